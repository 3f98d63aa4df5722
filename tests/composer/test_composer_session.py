from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composer.session import FILE, MAX_BYTES, Session, load, save

FULL = Session(
    geometry="AP8=",
    layout="eA==",
    tab="raw",
    zoom=-2,
    compose={"s1": "[USER]: ", "text": "unsent ä\n", "bang": "!a"},
    sampling={"set": "mini", "values": {"temp": 0.5}, "seed": "7"},
    model="talk",
    context="live",
    send_key="enter",
)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    assert save(tmp_path, FULL) == ""
    assert load(tmp_path) == FULL


def test_without_a_file_a_session_begins_afresh(tmp_path: Path) -> None:
    assert load(tmp_path) == Session()
    assert load(tmp_path / "nowhere") == Session()


def test_unknown_keys_are_passed_over_and_missing_ones_take_their_usual_values(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"tab": "raw", "of a newer window": [1, 2]}')
    assert load(tmp_path) == Session(tab="raw")


@pytest.mark.parametrize("data", [b"{", b"", b"[]", b'{"zoom": "wide"}', b"\xff", b"[" * 100_000])
def test_a_broken_file_is_set_aside_and_a_session_begins_afresh(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    found = load(tmp_path)
    assert "damaged" in found.trouble
    assert (tmp_path / (FILE + ".bad")).read_bytes() == data
    assert not (tmp_path / FILE).exists()
    found.trouble = ""
    assert found == Session()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_file_is_read_without_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert isinstance(load(tmp_path), Session)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "larger" in load(tmp_path).trouble
    assert (tmp_path / (FILE + ".bad")).exists()


def test_a_pipe_in_its_place_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert load(tmp_path) == Session()


def test_a_session_too_large_is_not_saved_and_the_old_one_stands(tmp_path: Path) -> None:
    assert save(tmp_path, FULL) == ""
    assert "4 MiB" in save(tmp_path, Session(compose={"text": "x" * MAX_BYTES}))
    assert load(tmp_path) == FULL


def test_a_disk_error_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    said = save(tmp_path, FULL)
    assert str(tmp_path / FILE) in said
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert "not saved" in save(tmp_path / "nowhere", FULL)


def test_what_json_cannot_hold_is_a_sentence(tmp_path: Path) -> None:
    assert "not saved" in save(tmp_path, Session(compose={"x": object()}))


def test_half_a_character_is_a_sentence(tmp_path: Path) -> None:
    said = save(tmp_path, Session(compose={"text": "a\ud800"}))
    assert "not saved" in said


def test_the_trouble_of_one_start_is_not_that_of_the_next(tmp_path: Path) -> None:
    assert save(tmp_path, Session(trouble="old")) == ""
    assert b"old" not in (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_text('{"trouble": "old"}')
    assert load(tmp_path).trouble == ""
