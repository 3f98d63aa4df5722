"""Rows as tokens, pairs of answers, rewards, and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rwkv7 import ByteTokenizer
from specialists.contract import contract_of, read_contract
from specialists.folder import Specialist, init
from specialists.grammars import grammar_of
from specialists.plan import Plan, StageTable
from specialists.rewards import Reward
from specialists.rows import Row
from specialists.samples import Asked, Pair, read_pairs, samples_of
from specialists.settings import risks_of, settings_of
from specialists.stages import STAGES
from specialists.tracks import track_of
from ssmprov.errors import BadRequest
from ssmprov.transcript import turns_of

ASKED = Asked(1, ("USER", "INTERFACE"))


@given(prompt=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip),
       answer=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))  # fmt: skip
def test_a_row_is_learnt_as_the_two_turns_that_a_filter_makes_of_it(prompt: str, answer: str) -> None:
    tokenizer = ByteTokenizer()
    [sample] = samples_of([Row(7, prompt, answer)], ASKED, tokenizer)
    said = b"".join(map(tokenizer.piece, sample.tokens)).decode()
    assert said.endswith(f" {answer}\n\n~~~(end)~~~\n\n")
    assert said == ASKED.question(prompt) + ASKED.answer(answer)
    assert sample.answer_at == len(tokenizer.encode(ASKED.question(prompt)))
    assert sample.row == 7


def test_the_turns_are_those_of_the_transcript() -> None:
    text = ASKED.question("[circle]") + ASKED.answer("<svg/>")
    assert [(turn.number, turn.role, turn.content) for turn in turns_of(text)] == [
        (1, "USER", "[circle]"),
        (2, "INTERFACE", "<svg/>"),
    ]


@dataclass
class Letters:
    """A tokenizer of small letters, line breaks and the characters of turns: whatever else there is, it drops."""

    end: int = 0
    size: int = 256

    def encode(self, text: str) -> list[int]:
        return [byte for byte in text.encode() if byte < 128 and byte != ord("!")]

    def piece(self, token: int) -> bytes:
        return bytes([token])


def test_a_tokenizer_that_does_not_cover_the_data_is_refused_by_line() -> None:
    with pytest.raises(BadRequest, match=r"line 9: the model's tokenizer cannot spell this row.*near '.*oh"):
        samples_of([Row(3, "hello", "there"), Row(9, "oh!", "no")], ASKED, Letters())


def test_pairs_are_a_row_and_the_answer_that_is_not_preferred(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("[circle]<svg></svg>\t<svg>\n\nhi\n", newline="")
    with pytest.raises(BadRequest, match="line 3: a pair is a row, a tab"):
        read_pairs(path, grammar_of("svg"), ascii_only=True)
    path.write_text("[circle]<svg></svg>\t<svg>\\n\r\n")
    [pair] = read_pairs(path, grammar_of("svg"), ascii_only=True)
    assert pair == Pair(1, "[circle]", "<svg></svg>", "<svg>\n")
    path.write_text("a\tb\tc\n")
    assert read_pairs(path, grammar_of("pairs"), ascii_only=True) == [Pair(1, "a", "b", "c")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a\tb\tb", "both answers are the same"),
        ("a\tb\t", "a pair is a row, a tab"),
        ("a\tb\t\\q", "is not a valid escape"),
        ("a\tb\t\u00e9", "not ASCII"),
        ("a\tb\0\tc", "a NUL"),
        ("", "has no pairs"),
    ],
)
def test_a_file_of_pairs_that_is_none_is_refused(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(f"{line}\n")
    with pytest.raises(BadRequest, match=why):
        read_pairs(path, grammar_of("pairs"), ascii_only=True)
    with pytest.raises(BadRequest, match="does not exist"):
        read_pairs(tmp_path / "none.txt", grammar_of("pairs"), ascii_only=True)


def test_rows_of_ones_own_are_a_file_or_a_folder_and_nothing_is_made_of_bad_ones(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()

    def made(name: str, data: Path | None, track: str = "pairs") -> Specialist:
        return init(tmp_path, name, track, "m", name, count=9, seed=1, examples=2, rows=data)

    with pytest.raises(BadRequest, match="has no built-in rows: give your own with --data FILE"):
        made("a", None)
    with pytest.raises(BadRequest, match="has no rows: --data takes a file of rows or a folder"):
        made("a", rows)
    (rows / "b.txt").write_text("no tabulator\n")
    with pytest.raises(BadRequest, match="line 1, column 13: a tab"):
        made("a", rows)
    (rows / "b.txt").write_text("".join(f"b{n}\t{'y' * 17_000}\n" for n in range(30)))
    with pytest.raises(BadRequest, match="every row that could be a probe has more than 16384 characters"):
        made("a", rows)
    assert not (tmp_path / "specialists").exists()

    (rows / "b.txt").write_text("".join(f"b{n}\tyes {n}\n" for n in range(30)).rstrip())
    (rows / "c.txt").write_text("".join(f"c{n}\tno\n" for n in range(30)))
    (rows / "notes.md").write_text("not rows")
    one = made("a", rows)
    assert (one.path / "rows.txt").read_text().splitlines() == [
        *(f"b{n}\tyes {n}" for n in range(30)), *(f"c{n}\tno" for n in range(30))
    ]  # fmt: skip
    asked = {probe.prompt: probe.exactly for probe in one.contract.probe}
    data = one.data("stage_a")
    assert asked == {row.prompt: row.answer for row in data.parts["test"]}
    assert data.held_out == 0, "what is asked was no row to learn from"


def reward_of(tmp_path: Path, track: str) -> Reward:
    path = tmp_path / "contract.toml"
    path.write_text(
        contract_of("pairs", [("a", "b\x7f \u00e9 \"'\\")]) if track == "pairs" else track_of(track).contract
    )
    return Reward(read_contract(path)[0])


def test_a_reward_is_what_the_gates_ask_for(tmp_path: Path) -> None:
    reward = reward_of(tmp_path, "svg")
    row = Row(1, "[circle][palette:cool]", "")
    circle = '<svg viewBox="0 0 64 64"><circle cx="1" cy="1" r="1" fill="#28c"/></svg>'
    assert reward(row, f" {circle}", True) == 1.0
    assert reward(row, f" {circle}", False) == 0.75, "it did not end"
    assert reward(row, f" {circle} and more", True) < 0.8, "it ended too late"
    assert reward(row, circle.replace("#28c", "#d94"), True) == 0.875, "one of two tags"
    assert reward(row, " rm -rf /", True) < reward(row, f" {circle}", False)


def test_a_reward_of_known_answers_is_that_they_are_said(tmp_path: Path) -> None:
    reward = reward_of(tmp_path, "pairs")
    row = Row(1, "a", "right")
    assert reward(row, " right", True) == 1.0
    assert reward(row, " wrong", True) == 0.75


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["tune", "train"])
def test_every_stage_has_settings_that_the_plan_and_the_command_go_before(kind: str, stage: str) -> None:
    plan = Plan(name="x", track="svg", model="m", public="x", stages={stage: StageTable(rate=0.5, group=3)})
    found = settings_of(plan, kind, stage, steps=None, rate=None)  # type: ignore[arg-type]
    assert found.steps % found.reuse == 0
    assert (found.rate, found.group) == (0.5, 3)
    asked = settings_of(plan, kind, stage, steps=8, rate=0.25)  # type: ignore[arg-type]
    assert (asked.steps, asked.rate) == (8, 0.25)


def test_choices_that_carry_a_risk_are_told() -> None:
    table = StageTable(packing="stream", reply_tokens=9, temperature=0.9)
    plan = Plan(name="x", track="svg", model="m", public="x", stages={"grpo": table, "sft": table})
    told = [risks_of(settings_of(plan, "train", stage, steps=2, rate=None), stage) for stage in ("sft", "grpo")]
    assert told == [
        {"packing": "stream", "reply_tokens": 9},
        {"packing": "stream", "reply_tokens": 9, "temperature": 0.9},
    ]
    with pytest.raises(BadRequest, match=r"steps must be a multiple of reuse \(2, .*, not 3"):
        settings_of(plan, "train", "grpo", steps=3, rate=None)
