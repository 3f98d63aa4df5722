"""What the command line draws and writes: tables, trees, turns and streams."""

from __future__ import annotations

import json

import pytest

from shell.lineage import draw
from shell.options import assignments
from shell.pipe import templated
from shell.tables import echo_json, echo_table
from shell.terminal import Output
from ssmprov.errors import BadRequest
from ssmprov.formatting import plain, size
from ssmprov.ops import Page, Row, Step
from ssmprov.terminal import printable


def step(name: str, parent: str = "", tokens: int = 10, **fields: object) -> Step:
    names = [name] if name.isalpha() else []
    return Step(object=name * 16, parent=parent * 16, tokens=tokens, step_tokens=5, names=names, **fields)  # type: ignore[arg-type]


def test_a_forest_is_drawn_with_names_pins_and_hashes() -> None:
    steps = [step("a"), step("1", "a", 15), step("b", "1", 20), step("c", "1", 25), step("d", "a", 15), step("e")]
    lines = list(draw(steps, {"b": "m/0"}))
    assert lines == [
        "├─ a  #aaaaaaaaaaaa  10 tokens",
        "│  ├─ #111111111111  15 tokens  (+5)",
        "│  │  ├─ b [m/0]  #bbbbbbbbbbbb  20 tokens  (+5)",
        "│  │  └─ c  #cccccccccccc  25 tokens  (+5)",
        "│  └─ d  #dddddddddddd  15 tokens  (+5)",
        "└─ e  #eeeeeeeeeeee  10 tokens",
    ]


def test_a_long_lineage_is_drawn_without_recursion() -> None:
    steps = [Step(object=f"{i:064x}", parent=f"{i - 1:064x}" if i else "", names=[f"n{i}"]) for i in range(3000)]
    assert len(list(draw(steps, {}))) == 3000


def test_a_step_whose_parent_is_not_listed_is_a_root() -> None:
    assert list(draw([step("b", "a", kind="import")], {})) == ["└─ b  #bbbbbbbbbbbb  10 tokens  (+5)  import"]


def test_control_characters_never_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert printable("größe") == "größe"


def test_columns_stand_under_their_headers(capsys: pytest.CaptureFixture[str]) -> None:
    echo_table(("NAME", "N"), [("primed", 7), ("", 1234)])
    assert capsys.readouterr().out == "NAME       N\nprimed     7\n-       1234\n"
    echo_table(("NAME", "N"), [])
    assert capsys.readouterr().out == "NAME  N\n"


def test_json_has_every_field_defaults_too(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json(Page([Row(name="primed", object="ab")]))
    found = json.loads(capsys.readouterr().out)
    assert found["more"] is False
    assert {"name", "object", "model", "fingerprint", "parent", "tokens", "bytes", "created"} <= set(found["rows"][0])
    assert plain({"id": b"\x01\xff"}) == {"id": "01ff"}


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**21, "2.0 MiB"), (2**40, "1024.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_text_becomes_a_turn_only_with_a_role() -> None:
    assert templated("as it is\n", 1, "", "") == "as it is\n"
    assert templated("hi", 4, "USER", "") == "(Turn 4) [USER]: hi\n\n~~~("
    assert templated("hi\n", 4, "USER", "BOT") == "(Turn 4) [USER]: hi\n\n\n~~~(end)~~~\n\n(Turn 5) [BOT]: "


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        (["hel", "lo", "\n\n~~~(", "end)~~~\n\n"], "hello\n"),
        (["a\n", "\n~~~", " b", "\n\n"], "a\n\n~~~ b\n\n\n"),
        (["\n\n~~~(end)~~~\n\n"], "\n"),
        ([], "\n"),
    ],
)
def test_bare_output_leaves_out_the_closing_fence_alone(
    pieces: list[str], written: str, live: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    output = Output(live=live, bare=True)
    for piece in pieces:
        output.write(piece)
    output.end()
    assert capfd.readouterr().out == written


def test_live_output_is_written_as_it_comes(capfd: pytest.CaptureFixture[str]) -> None:
    output = Output(live=True, bare=True)
    output.write("hello\n\n~")
    assert capfd.readouterr().out == "hello"
    output.write("x")
    assert capfd.readouterr().out == "\n\n~x"
    whole = Output(live=False, bare=False)
    whole.write("hello")
    assert capfd.readouterr().out == ""
    whole.end()
    assert capfd.readouterr().out == "hello"


def test_settings_are_checked_before_anything_is_asked() -> None:
    assert assignments(["temp=0.5", "top_k = 3"]) == {"temp": 0.5, "top_k": 3}
    for wrong in ("tmp=1", "temp=hot", "temp=11"):
        with pytest.raises(BadRequest, match="temp"):
            assignments([wrong])
