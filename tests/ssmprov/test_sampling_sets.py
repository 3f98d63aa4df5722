"""Sampling settings: ranges, and sets that are read, written, and told by their nearest names."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov.errors import BadRequest, NotFound
from ssmprov.settings import (
    KEYS,
    MAX_SET_BYTES,
    RANGES,
    WHOLE,
    Sets,
    Settings,
    apply,
    as_values,
    check_value,
    dump_set,
    parse_set,
    parse_value,
    shipped,
)


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    values = {
        key: draw(st.integers(int(low), int(high)) if key in WHOLE else st.floats(low, high))
        for key, (low, high) in RANGES.items()
    }
    return apply(Settings(), values)


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    return Sets(tmp_path / "sets", "rwkv7")


# -- values


def test_the_ranges_speak_of_every_setting() -> None:
    assert set(KEYS) == set(Settings.__struct_fields__)


@pytest.mark.parametrize("key", KEYS)
def test_the_ends_of_a_range_are_in_it_and_what_is_beyond_is_not(key: str) -> None:
    low, high = RANGES[key]
    step = 1 if key in WHOLE else 1e-6
    for value in (low, high):
        assert check_value(key, value) == value
    for value in (low - step, high + step):
        with pytest.raises(BadRequest, match=rf"{key} must be between"):
            check_value(key, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, "1", [1], {}])
def test_what_is_no_number_is_no_value(value: object) -> None:
    for key in KEYS:
        with pytest.raises(BadRequest, match=key):
            check_value(key, value)


def test_an_integer_beyond_all_floats_is_out_of_range() -> None:
    for key in KEYS:
        with pytest.raises(BadRequest, match=key):
            check_value(key, 10**400)
    with pytest.raises(BadRequest, match="top_k"):
        parse_value("top_k", "1" + "0" * 400)
    with pytest.raises(BadRequest, match="here"):
        parse_set('{"temp": 1' + "0" * 400 + "}", Settings(), "here")


def test_whole_settings_take_whole_numbers() -> None:
    assert check_value("top_k", 40.0) == 40
    assert isinstance(check_value("max", 7.0), int)
    for key in WHOLE:
        with pytest.raises(BadRequest, match="must be a whole number"):
            check_value(key, 1.5)
        with pytest.raises(BadRequest, match="must be a number"):
            parse_value(key, "1.5")


def test_what_a_person_types_is_a_number_or_refused() -> None:
    assert parse_value("temp", "0.5") == 0.5
    assert parse_value("temp", "1e-2") == 0.01
    assert parse_value("top_k", "40") == 40
    for text in ("", "x", "nan", "inf", "0,5", "--1", "1" * 5000):
        for key in ("temp", "top_k"):
            with pytest.raises(BadRequest, match=key):
                parse_value(key, text)


def test_an_unknown_setting_is_told_its_nearest_name() -> None:
    with pytest.raises(BadRequest, match="'tmp' is not a setting; did you mean temp"):
        apply(Settings(), {"tmp": 1})
    with pytest.raises(BadRequest, match="did you mean top_p"):
        check_value("topp", 1)


def test_values_are_put_over_a_base() -> None:
    base = Settings(temp=0.5, top_k=7)
    assert apply(base, {"top_k": 9, "max": 5.0}) == Settings(temp=0.5, top_k=9, max=5)
    assert base == Settings(temp=0.5, top_k=7)
    assert apply(base, {}) == base


# -- sets as text


@given(any_settings())
def test_a_set_is_read_as_it_was_written(chosen: Settings) -> None:
    assert parse_set(dump_set(chosen), Settings(), "here") == chosen
    assert set(json.loads(dump_set(chosen))) == set(KEYS)


def test_a_key_that_a_set_leaves_out_takes_the_base() -> None:
    assert parse_set('{"temp": 0.5}', Settings(top_k=3), "here") == Settings(temp=0.5, top_k=3)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"temp"', '{"temp": "x"}', '{"temp": NaN}', '{"temp": 1e999}', '{"temp": 99}',
             '{"x": 1}', '{"temp": true}', '{"top_k": 1.5}', "[" * 100_000, '{"\\ud800": 1}',
             '{"temp": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_a_broken_set_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^here"):
        parse_set(text, Settings(), "here")


# -- sets by name


def test_the_shipped_sets_can_be_loaded() -> None:
    assert {"rwkv7", "falcon-mamba", "greedy", "mini"} <= set(shipped())
    bare = Sets(None)
    for name in shipped():
        assert as_values(bare.load(name))
    assert bare.load("falcon-mamba") == Settings(temp=0.18, top_p=0.88, top_k=0, min_p=0.12, max=16384)
    assert bare.load("rwkv7") == Settings(
        temp=0.70, top_p=0.95, top_k=40, pen_freq=0.20, pen_pres=0.10, pen_rep=1.10, max=8192
    )
    assert bare.load("greedy").temp == 0
    assert bare.default() == Settings()


@given(chosen=any_settings())
def test_a_saved_set_is_loaded_as_it_was(tmp_path_factory: pytest.TempPathFactory, chosen: Settings) -> None:
    sets = Sets(tmp_path_factory.mktemp("sets"), "rwkv7")
    name, size = sets.save("team/coder.json", chosen)
    assert name == "team/coder"
    assert sets.load("team/coder") == sets.load("team/coder.json") == chosen
    assert sets.folder is not None
    (path,) = [path for path in sets.folder.rglob("*") if path.is_file()]
    assert path.name == "coder.json"
    assert path.stat().st_size == size


def test_ones_own_set_goes_before_a_shipped_one(sets: Sets) -> None:
    sets.save("greedy", Settings(temp=2.0))
    assert sets.load("greedy").temp == 2.0
    assert Sets(None).load("greedy").temp == 0.0


def test_a_partial_set_of_ones_own_takes_the_models_default(sets: Sets, tmp_path: Path) -> None:
    sets.save("x", Settings())
    (tmp_path / "sets" / "x.json").write_text('{"temp": 0.1}')
    assert sets.load("x") == apply(sets.default(), {"temp": 0.1})
    assert sets.resolve("x", {"top_k": 2}) == apply(sets.default(), {"temp": 0.1, "top_k": 2})
    assert sets.resolve("", {"temp": 0.3}) == apply(Sets(None).load("rwkv7"), {"temp": 0.3})


def test_all_sets_are_listed_once(sets: Sets) -> None:
    sets.save("a/b", Settings())
    sets.save("greedy", Settings())
    assert sets.names() == sorted({"a/b", *shipped()})


def test_an_unknown_set_is_told_its_nearest_name(sets: Sets) -> None:
    with pytest.raises(NotFound, match="no sampling set 'greed'; did you mean greedy"):
        sets.load("greed")


@pytest.mark.parametrize("name", ["", ".json", "../x", "/etc/passwd", "a b", "@x", ".hidden"])
def test_what_is_no_name_is_no_set(sets: Sets, name: str) -> None:
    with pytest.raises(BadRequest, match=r"not a valid name|reserved"):
        sets.load(name)
    with pytest.raises(BadRequest, match=r"not a valid name|reserved"):
        sets.save(name, Settings())


def test_a_symlink_is_no_set(sets: Sets, tmp_path: Path) -> None:
    sets.save("real", Settings(temp=0.4))
    secret = tmp_path / "secret.json"
    secret.write_text('{"temp": 0.9}')
    folder = tmp_path / "sets"
    (folder / "link.json").symlink_to(secret)
    with pytest.raises(NotFound):
        sets.load("link")
    sets.save("link", Settings(temp=0.5))
    assert secret.read_text() == '{"temp": 0.9}', "saving goes to the name and not through the link"
    assert sets.load("link").temp == 0.5


def test_what_is_listed_can_be_loaded(sets: Sets, tmp_path: Path) -> None:
    sets.save("real", Settings())
    (tmp_path / "sets" / "link.json").symlink_to(tmp_path / "sets" / "real.json")
    for name in sets.names():
        sets.load(name)


def test_a_file_that_is_too_large_is_no_set(sets: Sets, tmp_path: Path) -> None:
    sets.save("x", Settings())
    (tmp_path / "sets" / "x.json").write_text(" " * (MAX_SET_BYTES + 1) + "{}")
    with pytest.raises(BadRequest, match="too large"):
        sets.load("x")


def test_a_save_that_fails_leaves_the_old_set_and_no_rubbish(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets.save("x", Settings(temp=0.3))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        sets.save("x", Settings(temp=0.6))
    assert sets.load("x").temp == 0.3
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["x.json"]


def test_a_default_set_may_be_written_with_its_suffix() -> None:
    sets = Sets(None, "rwkv7.json")
    assert sets.default() == Sets(None, "rwkv7").default()
    assert sets.load("mini").max == 2048


def test_a_set_and_a_folder_of_sets_cannot_share_a_name(sets: Sets) -> None:
    sets.save("a", Settings())
    sets.save("b.json/c", Settings())
    for name in ("a.json/b", "b"):
        with pytest.raises(BadRequest, match="cannot be the name of a set"):
            sets.save(name, Settings())
