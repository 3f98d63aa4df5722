"""A turn as HTML: what is drawn, what is refused, and that nothing can break it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PyQt6.QtGui import QColor, QFont, QImage, QPalette, QTextCursor, QTextDocument
from pytestqt.qtbot import QtBot

from composer.reading.maths import Maths, braced
from composer.reading.pieces import stable
from composer.reading.plain import displayable, units
from composer.reading.render import BEGINNING, LARGEST, Renderer
from composer.reading.theme import CONTRAST, Theme, contrast, role_colours, theme_of
from ssmprov.transcript import FENCE, Gap, Turn, header, parse, turn

ROLES = ["ANALYSIS", "BASH", "CONTEXT", "FILE", "INTERFACE", "OUTPUT", "PLAN", "PYTHON", "QUERY", "QUOTE", "RECAP"]
ROLES += ["USER", "VISITOR"]
MARKS = st.sampled_from(
    [
        *("<script>", "$", "$$", "\\(", "\\)", "\\[", "`", "```", "~~~", "\n", "\n\n", "|", "- ", "> ", "x"),
        *("_", "^", " ", "{", "}", "\\frac", "&", "\udcff", "\x00", "![a](b)", "[a](javascript:b)", "\ufdd0"),
    ]
)
ANY = st.lists(MARKS, max_size=25).map("".join) | st.text(max_size=80)


def palette(dark: bool) -> QPalette:
    role, colours = QPalette.ColorRole, ("#1e2126", "#e6e8eb") if dark else ("#f4f4f4", "#101214")
    made = QPalette()
    for back in (role.Window, role.Base):
        made.setColor(back, QColor(colours[0]))
    for front in (role.WindowText, role.Text):
        made.setColor(front, QColor(colours[1]))
    return made


@pytest.fixture(scope="module")
def light(qapp: object) -> Theme:
    return theme_of(palette(dark=False))


@pytest.fixture(scope="module")
def renderer(light: Theme) -> Renderer:
    return Renderer(light, QFont("DejaVu Sans", 11))


def of(role: str, content: str, *, closed: bool = True) -> Turn:
    return Turn(3, role, header(3, role), content, FENCE if closed else "", 1)


def document(renderer: Renderer, html: str) -> QTextDocument:
    made = QTextDocument()
    made.setDefaultStyleSheet(renderer.stylesheet)
    made.setHtml(html)
    return made


def said(renderer: Renderer, content: str, role: str = "INTERFACE") -> str:
    """What is read on the screen, below the header."""
    return (
        document(renderer, renderer.body(content, role))
        .toPlainText()
        .replace("\u00a0", " ")
        .replace("\u200b", "")
        .strip()
    )


# -- nothing breaks it


@settings(deadline=None)
@given(ANY, st.sampled_from(ROLES), st.booleans(), st.booleans())
def test_any_text_is_rendered_and_none_of_it_as_an_element(
    renderer: Renderer, text: str, role: str, closed: bool, streaming: bool
) -> None:
    html = renderer.html(of(role, text, closed=closed), streaming=streaming)
    for refused in ("<script", "javascript:b", "\x00", '<img src="b'):
        assert refused not in html.lower().replace("&lt;", "").replace("](javascript:b", "")
    html.encode("utf-8")
    assert "<script" not in renderer.html(Gap(text, 1))


@settings(deadline=None, max_examples=60)
@given(ANY)
def test_any_text_can_be_drawn(renderer: Renderer, text: str) -> None:
    assert "INTERFACE" in document(renderer, renderer.html(of("INTERFACE", text))).toPlainText()


def test_an_error_in_rendering_shows_the_source(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("no")

    monkeypatch.setattr(renderer._markup, "html", broken)
    assert said(renderer, "**as** it is\n1") == "**as** it is\n1"


def test_bytes_that_are_no_utf8_are_drawn_as_replacement_characters(renderer: Renderer) -> None:
    assert said(renderer, "a\udcff\udc80b") == "a\ufffd\ufffdb"


def test_a_very_large_turn_shows_its_beginning(renderer: Renderer) -> None:
    shown = said(renderer, "*word* " * (LARGEST // 7 + 1))
    assert f"first {BEGINNING:,} of" in shown
    assert "*word*" in shown
    assert len(shown) < BEGINNING + 200


# -- what is drawn


def test_a_header_is_a_chip_with_role_and_number(renderer: Renderer) -> None:
    text = document(renderer, renderer.html(of("USER", "hello"))).toPlainText().replace("\u00a0", " ")
    assert text.split("\n")[0].split() == ["USER", "3"]
    assert "(Turn" not in text


def test_the_divider_is_a_rule(renderer: Renderer) -> None:
    html = renderer.html(of("USER", "hello"))
    assert "~~~" not in html
    assert html.count("<hr") == 1


def test_a_divider_that_divides_nothing_opens_no_fence(renderer: Renderer) -> None:
    assert said(renderer, "a\n~~~(end)~~~\n\n**b**") == "a ~~~(end)~~~\nb"
    assert said(renderer, "~~~(end)~~~\n\n**b**") == "~~~(end)~~~\nb"


def test_an_open_turn_says_so(renderer: Renderer) -> None:
    turn_ = of("USER", "hello", closed=False)
    assert "open" in document(renderer, renderer.html(turn_)).toPlainText()
    assert document(renderer, renderer.html(turn_, streaming=True)).toPlainText().endswith("\u258d")


def test_markdown_is_drawn(renderer: Renderer) -> None:
    shown = document(renderer, renderer.body("# H\n\n*i* **b** ~~s~~ `c`\n\n| a | b |\n|--|--|\n| 1 | 2 |", "USER"))
    cursor = QTextCursor(shown)
    assert cursor.block().text() == "H"
    cursor = shown.find("b")
    assert cursor.charFormat().fontWeight() > 500
    assert shown.find("s").charFormat().fontStrikeOut()
    assert shown.find("1").currentTable() is not None


def test_code_is_coloured_by_its_language(renderer: Renderer) -> None:
    plain = renderer.body("```\nreturn 1\n```", "USER")
    python = renderer.body("```python\nreturn 1\n```", "USER")
    unknown = renderer.body("```klingon\nreturn 1\n```", "USER")
    assert plain.count("color:") == unknown.count("color:") < python.count("color:")
    assert said(renderer, "```python\nif x:\n    return 1\n```") == "if x:\n    return 1"


def test_a_turn_of_code_is_code(renderer: Renderer) -> None:
    content = "for i in *; do echo *$i*; done"
    assert said(renderer, content, "BASH") == content
    assert "color:" in renderer.body(content, "BASH")
    assert said(renderer, "see *this*:\n```\nx\n```", "BASH") == "see this:\nx"


@pytest.mark.parametrize("role", ["OUTPUT", "FILE"])
def test_a_turn_from_elsewhere_is_shown_as_it_is(renderer: Renderer, role: str) -> None:
    content = "# no *heading* $x$ <b>\n  1"
    assert said(renderer, content, role) == content


def test_gaps_are_muted_and_blank_ones_are_nothing(renderer: Renderer) -> None:
    assert renderer.html(Gap("\n\n", 1)) == ""
    assert "!primed x" in renderer.html(Gap("!primed x\n", 1))


# -- what is refused


def test_a_picture_shows_its_description(renderer: Renderer) -> None:
    html = renderer.body("![a *cat*](http://example.org/cat.png) ![](file:///etc/passwd)", "USER")
    assert "<img" not in html
    assert "passwd" not in html
    assert "cat.png" not in html
    assert "a *cat*" in html or "a cat" in html


def test_only_web_and_mail_are_links(renderer: Renderer) -> None:
    html = renderer.body(
        "[a](https://x.org/?q=1&r=2) [b](mailto:me@x.org) [c](file:///etc/passwd) [d](javascript:x) "
        "[e](y.txt) <math:ix>",
        "USER",
    )
    assert html.count("href=") == 2
    assert 'href="https://x.org/?q=1&amp;r=2"' in html
    assert 'href="mailto:me@x.org"' in html


# -- formulas


@pytest.mark.parametrize(
    "source", ["$x_1$", "\\(x_1\\)", "$$x_1$$", "\\[x_1\\]", "a \\[x_1\\] b", "a $$x_1$$ b", "$$\nx_1\n$$"]
)
def test_formulas_are_drawn_in_every_notation(renderer: Renderer, source: str) -> None:
    html = renderer.body(source, "USER")
    assert html.count("<img") == 1
    url = html.split('src="')[1].split('"')[0]
    image = renderer.image(url)
    assert image is not None
    assert inked(image) > 20
    assert "x_1" not in html


def inked(image: QImage) -> int:
    return sum(image.pixelColor(x, y).alpha() > 100 for x in range(image.width()) for y in range(image.height()))


@pytest.mark.parametrize("source", ["It costs $5 and then $6.", "`$x$`", "```\n$x$\n```", "\\$x\\$"])
def test_what_is_no_formula_is_text(renderer: Renderer, source: str) -> None:
    assert "<img" not in renderer.body(source, "USER")


@pytest.mark.parametrize("latex", ["\\frac{a}{", "\\begin{pmatrix} a", "x" * 3000, "\\nosuchcommand{", "{", "^^"])
def test_a_formula_that_cannot_be_drawn_shows_its_source(renderer: Renderer, latex: str) -> None:
    assert latex.strip() in said(renderer, f"so ${latex}$ it is")


def test_an_environment_with_an_exponent_is_drawn(renderer: Renderer) -> None:
    matrix = "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}"
    assert braced(f"{matrix}^{{-1}} + {matrix}") == f"{{{matrix}}}^{{-1}} + {matrix}"
    assert "<img" in renderer.body(f"$${matrix}^{{-1}}$$", "USER")


def test_formulas_are_in_the_colour_of_the_text_and_as_fine_as_the_screen(qapp: object) -> None:
    font = QFont("DejaVu Sans", 11)
    fine = Maths("#ff0000", font, 2.0).formula("x^2", display=False)
    coarse = Maths("#ff0000", font, 1.0).formula("x^2", display=False)
    assert fine is not None
    assert coarse is not None
    assert (fine.width, fine.height) == (coarse.width, coarse.height)
    assert fine.image.width() == 2 * fine.width
    pixels = (coarse.image.pixelColor(x, y) for x in range(coarse.width) for y in range(coarse.height))
    colours = {pixel.name() for pixel in pixels if pixel.alpha() == 255}
    assert colours == {"#ff0000"}


def test_formulas_grow_with_the_font(qapp: object) -> None:
    small, large = (Maths("#000", QFont("DejaVu Sans", size)).formula("x", display=False) for size in (9, 27))
    assert small is not None
    assert large is not None
    assert large.height > 2 * small.height


def test_the_cache_of_formulas_is_bounded(qapp: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composer.reading.maths.CACHE_BYTES", 4000)
    maths = Maths("#000000", QFont("DejaVu Sans", 11))
    for number in range(30):
        maths.formula(f"x_{{{number}}}", display=False)
    assert maths._bytes <= 4000
    assert 0 < len(maths._drawn) < 30
    assert ("x_{29}", False) in maths._drawn  # the oldest go first
    assert ("x_{0}", False) not in maths._drawn
    assert maths.image(maths.url("x_{0}", display=False)) is not None  # drawn again


@pytest.mark.parametrize("url", ["math:", "math:x", "math:i!!", "http://x/y.png", "file:///etc/passwd", ""])
def test_only_formulas_are_pictures(renderer: Renderer, url: str) -> None:
    assert renderer.image(url) is None


# -- colours


@given(st.text("ABCDEFGHIJ_", min_size=1, max_size=12), st.booleans())
def test_chips_can_be_read_in_light_and_dark(role: str, dark: bool) -> None:
    theme = theme_of(palette(dark))
    back, front = (QColor(colour) for colour in role_colours(role, theme))
    assert contrast(back, front) >= CONTRAST
    assert role_colours(role, theme) == (back.name(), front.name())


@pytest.mark.parametrize("dark", [False, True])
def test_text_of_all_kinds_can_be_read(dark: bool) -> None:
    theme = theme_of(palette(dark))
    assert theme.dark is dark
    for colour in (theme.text, theme.muted, theme.link, theme.warning):
        assert contrast(QColor(colour), QColor(theme.background)) >= CONTRAST
    for behind in (theme.code, theme.added, theme.removed, theme.changed, theme.chosen, theme.found):
        assert contrast(QColor(theme.text), QColor(behind)) >= CONTRAST


def test_the_roles_of_the_primer_have_colours_of_their_own(light: Theme) -> None:
    assert len({role_colours(role, light) for role in ROLES}) == len(ROLES)


# -- pieces of a content that grows


@given(ANY, st.integers(0, 100))
def test_what_is_stable_stays_so(text: str, length: int) -> None:
    place = stable(text[:length])
    assert place <= length
    assert stable(text) >= place
    assert stable(text, place) == stable(text)


def test_fences_formulas_and_lists_are_not_divided() -> None:
    assert stable("one\n\ntwo") == 5
    assert stable("```\na\n\nb\n") == 0
    assert stable("```\na\n\nb\n```\n\nc") == 14
    assert stable("$$\na\n\nb\n$$\n\nc") == 12
    assert stable("\\[\na\n\nb") == 0
    assert stable("- a\n\n  more\n\n- b") == 13
    assert stable("one\n\n") == 0


def test_a_long_paragraph_is_divided_at_the_end_of_a_sentence() -> None:
    text = "It is $x. y$ so. " * 400
    place = stable(text)
    assert len(text) - 1000 < place < len(text)
    assert text[:place].endswith("so. ")
    words = "a $x$ b " * 1000
    assert 0 < stable(words) < len(words)
    assert words[: stable(words)].count("$") % 2 == 0
    assert stable("- " + text) == 0
    assert stable("```\n" + text) == 0


def test_what_qt_would_take_seconds_for_is_drawn_simply(renderer: Renderer) -> None:
    table = "|" + "a|" * 50 + "\n|" + "-|" * 50 + "\n" + ("|" + "b|" * 50 + "\n") * 40
    assert "<th" not in renderer.body(table, "USER")
    assert "<th" in renderer.body("| a |\n|--|\n| b |", "USER")
    run = renderer.body("x" * 5000, "USER")
    assert max(len(word) for word in run.split("\u200b")) < 100
    code = "```python\n" + "x = 1\n" * 1000 + "```"
    assert renderer.body(code, "USER", quick=True).count("<span") < renderer.body(code, "USER").count("<span")


# -- text for Qt


@given(st.text())
def test_lengths_are_counted_as_qt_counts_them(text: str) -> None:
    shown = displayable(text)
    assert units(shown) == len(shown.encode("utf-16-le")) // 2
    made = QTextDocument()
    made.setPlainText(shown)
    assert made.characterCount() - 1 == units(shown)
    cursor = QTextCursor(made)
    cursor.select(QTextCursor.SelectionType.Document)
    assert cursor.selectedText().replace("\u2029", "\n") == shown


def test_a_whole_transcript_is_rendered(renderer: Renderer) -> None:
    text = "!primed standard\n" + turn(1, "USER", "a $x$") + turn(2, "INTERFACE", "b")
    assert [bool(renderer.html(item)) for item in parse(text)] == [True, True, True]


def test_images_of_markdown_need_a_browser_to_be_loaded_by(qtbot: QtBot, renderer: Renderer) -> None:
    made = document(renderer, renderer.body("$x$", "USER"))
    assert made.toPlainText().strip() == "\ufffc"
