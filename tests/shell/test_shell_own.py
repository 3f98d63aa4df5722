"""One transcript, one context: what a directory's transcript holds is what its context has read, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from places import Shell, good, own, recorded

from ssmprov.transcript import turn, turns_of


@pytest.fixture
def agree(cluster: Cluster, place: Path) -> Callable[[], str]:
    """Checks that the directory's context has read just its transcript, and returns that text."""

    def check() -> str:
        text = recorded(place)
        with cluster.client() as client:
            assert client.text(own(place)) == text
        return text

    return check


def test_two_directories_never_share_a_context(sh: Shell, place: Path, cluster: Cluster) -> None:
    good(sh("PIPE --in USER", "My cat is called Luna."))
    good(sh("mkdir other && cd other && PIPE --in USER --out OK", "What is my cat called?"))
    assert own(place).startswith("talk:place-")
    assert own(place / "other").startswith("talk:other-")
    with cluster.client() as client:
        assert client.text(own(place)) == recorded(place) == turn(1, "USER", "My cat is called Luna.")
        assert client.text(own(place / "other")) == recorded(place / "other")
    assert "Luna" not in recorded(place / "other")


def test_what_is_saved_under_a_name_is_continued_by_the_next_turn(sh: Shell, agree: Callable[[], str]) -> None:
    good(sh("ssmprov primer --max-tokens 3000 | PIPE --save primed"))
    primer = agree()
    assert len(turns_of(primer)) > 5
    good(sh("PIPE --in USER --out OK", "next"))
    assert agree().startswith(primer)
    assert good(sh("ssmprov ckpt show primed --text")) == primer


def test_a_turn_that_is_not_recorded_leaves_the_context_as_it_is(
    sh: Shell, place: Path, agree: Callable[[], str]
) -> None:
    good(sh("PIPE --in USER", "one"))
    before = agree()
    done = json.loads(good(sh("PIPE --no-record --json --in USER --out OK", "aside")))
    assert (done["text"][:4], done["prompt_tokens"] < len(before) + 60) == ("fine", True)
    assert agree() == before


def changed_in_the_middle(place: Path) -> str:
    text = recorded(place).replace("two", "2")
    (place / ".transcript.txt").write_text(text)
    return text


@pytest.fixture
def three(sh: Shell, place: Path) -> str:
    for word in ("one", "two", "three"):
        good(sh("PIPE --in USER", word))
    return recorded(place)


def refused(sh: Shell, place: Path, *choices: str) -> str:
    before = recorded(place)
    done = sh("PIPE --in USER", "more")
    assert (done.returncode, done.stdout, recorded(place)) == (5, b"", before)
    said = done.stderr.decode()
    assert [word for word in ("reread", "back", "restore", "new") if f"ssmprov transcript {word}`" in said] == [
        *choices
    ]
    return said


def test_a_change_anywhere_in_the_transcript_is_noticed(sh: Shell, place: Path, three: str, cluster: Cluster) -> None:
    changed_in_the_middle(place)
    assert "differ from line 5 on" in refused(sh, place, "reread", "back", "restore", "new")
    done = sh("ssmprov transcript")
    assert (done.returncode, b"no: they differ from line 5 on" in done.stdout) == (1, True)
    with cluster.client() as client:
        assert client.text(own(place)) == three
    (place / ".transcript.txt").write_text(three)
    assert json.loads(good(sh("ssmprov transcript status --json")))["agree"] is True
    good(sh("PIPE --in USER", "more"))


def test_the_context_reads_the_transcript_anew(sh: Shell, place: Path, three: str, agree: Callable[[], str]) -> None:
    text = changed_in_the_middle(place)
    good(sh("ssmprov transcript reread"))
    assert agree() == text
    good(sh("PIPE --in USER", "more"))
    assert agree() == text + turn(4, "USER", "more")
    left = [row["name"] for row in json.loads(good(sh("ssmprov ckpt ls --json"))) if row["name"] not in own(place)]
    assert [good(sh(f"ssmprov ckpt show {name} --text")) for name in left] == [three]


def test_both_go_back_to_where_they_agree(sh: Shell, place: Path, three: str, agree: Callable[[], str]) -> None:
    changed = changed_in_the_middle(place)
    good(sh("ssmprov transcript back"))
    assert agree() == turn(1, "USER", "one")
    assert good(sh(f"ssmprov ckpt show {own(place)}.1 --text")) == three
    (kept,) = place.glob(".transcript.*.1.txt")
    assert kept.read_text() == changed
    good(sh("PIPE --in USER", "more"))
    assert agree() == turn(1, "USER", "one") + turn(2, "USER", "more")


def test_the_transcript_becomes_what_the_context_has_read(
    sh: Shell, place: Path, three: str, agree: Callable[[], str]
) -> None:
    changed = changed_in_the_middle(place)
    done = sh("ssmprov transcript restore")
    assert agree() == three
    kept = next(path for path in place.glob(".transcript.*.txt") if path.name != ".transcript.txt")
    assert kept.name in done.stderr.decode()
    assert kept.read_text() == changed
    (place / ".transcript.txt").unlink()
    refused(sh, place, "restore", "new")
    good(sh("ssmprov transcript restore"))
    assert agree() == three


def test_a_new_transcript_has_a_new_context(sh: Shell, place: Path, three: str, agree: Callable[[], str]) -> None:
    former = own(place)
    changed = changed_in_the_middle(place)
    done = sh("ssmprov transcript new")
    assert (recorded(place), (place / ".counter").read_text()) == ("", "0")
    assert f".transcript.{former.partition(':')[2]}.txt" in done.stderr.decode()
    assert (place / f".transcript.{former.partition(':')[2]}.txt").read_text() == changed
    good(sh("PIPE --in USER", "new"))
    assert agree() == turn(1, "USER", "new")
    assert good(sh(f"ssmprov ckpt show {former} --text")) == three
    good(sh(f"ssmprov transcript new; PIPE --in USER --load {former}", "on"))
    assert agree() == three + turn(4, "USER", "on")


def test_a_context_that_was_removed_is_told(sh: Shell, place: Path, three: str, agree: Callable[[], str]) -> None:
    good(sh(f"ssmprov ckpt rm {own(place)}"))
    assert "has not read the transcript" in refused(sh, place, "reread", "new")
    good(sh("ssmprov transcript reread"))
    assert agree() == three


def test_a_context_that_something_else_continued_is_told(sh: Shell, place: Path, three: str) -> None:
    good(sh(f"ssmprov pipe --no-record --load {own(place)} --save {own(place)} --in USER --turn 9", "elsewhere"))
    refused(sh, place, "reread", "back", "restore", "new")
    good(sh("ssmprov transcript back"))  # the transcript is a beginning of what the context has read
    assert recorded(place) == three
    good(sh("PIPE --in USER", "more"))


# -- directories of before, which all used the context `live`


def test_a_directory_that_used_the_shared_context_takes_it_over(
    sh: Shell, place: Path, three: str, agree: Callable[[], str]
) -> None:
    good(sh(f"ssmprov ckpt fork {own(place)} live"))
    (place / ".context").unlink()
    good(sh("PIPE --in USER", "more"))
    assert agree() == three + turn(4, "USER", "more")
    assert good(sh("ssmprov ckpt show live --text")) == three


def test_a_directory_whose_transcript_is_not_the_shared_contexts_is_asked_about(
    sh: Shell, place: Path, three: str
) -> None:
    good(sh(f"ssmprov ckpt fork {own(place)}~1 live"))
    (place / ".context").unlink()
    refused(sh, place, "reread", "new")
    assert sh("ssmprov transcript").returncode == 1
    good(sh("ssmprov transcript reread && PIPE --in USER", "more"))
    assert recorded(place) == three + turn(4, "USER", "more")


@pytest.mark.parametrize("names", ["nothing", "talk:../x", "talk:", "\0"])
def test_a_dot_file_that_names_no_context_is_told(sh: Shell, place: Path, three: str, names: str) -> None:
    (place / ".context").write_text(names)
    done = sh("PIPE --in USER", "more")
    assert (done.returncode, recorded(place)) == (1, three)
    assert b"write MODEL:NAME into it" in done.stderr
    good(sh("ssmprov transcript new"))


def test_a_context_of_a_model_that_is_not_served_is_told(sh: Shell, place: Path, three: str) -> None:
    (place / ".context").write_text(f"other:{own(place).partition(':')[2]}\n")
    done = sh("PIPE --in USER", "more")
    assert (done.returncode, recorded(place)) == (1, three)
    assert b"other is not served now" in done.stderr
    good(sh("ssmprov transcript new"))
    assert own(place).startswith("talk:")


def test_another_model_does_not_continue_the_directorys_context(sh: Shell, place: Path, three: str) -> None:
    done = sh("PIPE --in USER --model other", "more")
    assert (done.returncode, recorded(place)) == (1, three)
    assert b"ssmprov transcript new --model other" in done.stderr


# -- names of others


@pytest.mark.parametrize("line", ["PIPE --in USER", "ssmprov pipe --in USER --turn 1", "PIPE --in USER --load base"])
def test_a_name_that_holds_something_else_is_not_replaced_by_accident(
    sh: Shell, place: Path, three: str, line: str
) -> None:
    good(sh("ssmprov pipe --no-record --save base --in CONTEXT --turn 1", "base"))
    good(sh("ssmprov pipe --no-record --save other --in CONTEXT --turn 1", "other"))
    before = recorded(place)
    done = sh(f"{line} --save other", "x")
    assert (done.returncode, b"--overwrite" in done.stderr) == (5, True)
    assert good(sh("ssmprov ckpt show other --text")) == turn(1, "CONTEXT", "other")
    if "--load" not in line:
        assert recorded(place) == before
    good(sh(f"{line} --save other --overwrite", "x"))
    assert turn(1, "CONTEXT", "other") not in good(sh("ssmprov ckpt show other --text"))


def test_a_name_that_the_turn_continues_moves_on(sh: Shell, three: str) -> None:
    good(sh("ssmprov pipe --no-record --save base --in CONTEXT --turn 1", "base"))
    good(sh("ssmprov ckpt fork base early"))
    good(sh("ssmprov pipe --no-record --load base --save base --in CONTEXT --turn 2", "on"))
    good(sh("ssmprov pipe --no-record --load base --save early --in CONTEXT --turn 3", "and on"))
    assert len(turns_of(good(sh("ssmprov ckpt show early --text")))) == 3
    good(sh("PIPE --in USER --save mine", "x"))
    good(sh("PIPE --in USER --save mine", "y"))
    assert len(turns_of(good(sh("ssmprov ckpt show mine --text")))) == 5
