"""Names and the references that people type."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov.errors import BadRequest
from ssmprov.names import MAX_NAME, Ref, check_model, check_name, parse_ref, parse_worker, split_model, worker_name

LETTERS = string.ascii_letters + string.digits + "_-"
parts = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(st.sampled_from(LETTERS + "."), max_size=10))
names = st.lists(parts, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("name", ["a", "9", "-", "_x", "a.b", "a..b", "a.", "a/b/c", "Kv.pkl", "x" * MAX_NAME])
def test_names_are_taken_as_they_are(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "a/.b", "a/..", "../a", "/a", "a/", "a//b", "a b", "a\n", "a\0", "ä", "a~1", "a:b", "#a",
     "a@b", "@", "@@a", "x" * (MAX_NAME + 1), "a\\b", "a*"],
)  # fmt: skip
def test_anything_else_is_refused_and_shown(name: str) -> None:
    for reserved in (False, True):
        with pytest.raises(BadRequest, match="is not a valid name for a context"):
            check_name(name, reserved=reserved)


def test_reserved_names_are_for_the_house() -> None:
    assert check_name("@bridge/6502", reserved=True) == "@bridge/6502"
    with pytest.raises(BadRequest, match="reserved"):
        check_name("@bridge/6502")
    assert parse_ref("@bridge/6502~3") == Ref("@bridge/6502", 3)


@given(names)
def test_a_name_never_leads_out_of_its_folder(name: str) -> None:
    assert check_name(name) == name
    assert not any(part.startswith(".") for part in name.split("/"))
    assert parse_ref(name) == Ref(name)


@given(st.text(max_size=12))
def test_a_name_is_refused_or_harmless(text: str) -> None:
    try:
        check_name(text, reserved=True)
    except BadRequest:
        return
    assert set(text) <= set(LETTERS + "./@")
    assert all(part and not part.startswith(".") for part in text.removeprefix("@").split("/"))


@given(names, st.integers(0, 999_999))
def test_a_reference_is_read_as_it_is_written(name: str, back: int) -> None:
    reference = parse_ref(f"{name}~{back}")
    assert reference == Ref(name, back)
    assert parse_ref(str(reference)) == reference
    assert str(reference) == (f"{name}~{back}" if back else name)


def test_objects_are_named_by_their_hash() -> None:
    assert parse_ref("#" + "0a" * 32) == Ref(object="0a" * 32)
    assert str(parse_ref("#deadbeef")) == "#deadbeef"
    for text in ("#deadbee", "#DEADBEEF", "#" + "a" * 65, "#nothexno", "#deadbeef~1"):
        with pytest.raises(BadRequest):
            parse_ref(text)


@pytest.mark.parametrize("text", ["a~", "a~x", "a~-1", "~1", "a~1~2", "a~1000000", "a ~1", "m:a"])
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_ref(text)


def test_a_model_stands_before_the_colon() -> None:
    assert split_model("mini:a/b~2") == ("mini", "a/b~2")
    assert split_model("a/b") == ("", "a/b")
    assert split_model("mini:a:b") == ("mini", "a:b")
    for text in (":a", "a/b:c", ".m:a", "m m:a"):
        with pytest.raises(BadRequest, match="not a valid name for a model"):
            split_model(text)
    assert check_model("m" * 64) == "m" * 64
    with pytest.raises(BadRequest):
        check_model("m" * 65)


def test_workers_are_counted_within_their_model() -> None:
    assert parse_worker(worker_name("mini", 3)) == ("mini", 3)
    assert parse_worker("other/0", "mini") == ("other", 0)
    assert parse_worker("1", "mini") == ("mini", 1)
    assert parse_worker("w1", "mini") == ("mini", 1)
    for text, model in [("1", ""), ("w1", ""), ("mini/", ""), ("mini/01", ""), ("mini/-1", ""), ("w", "m"), ("", "m"),
                        ("x1", "m"), ("10000", "m"), ("²", "m"), ("mini/1/2", "m")]:  # fmt: skip
        with pytest.raises(BadRequest, match="is not a worker"):
            parse_worker(text, model)
