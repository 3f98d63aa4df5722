"""How probes are told to read: words of `/routing` and `/slotmask`, and of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov.errors import BadRequest
from ssmprov.ops import MAX_PROBE_TEXT, MAX_SLOT
from ssmprov.probes import Look, check_text


@pytest.mark.parametrize(
    ("text", "routing", "topk", "shown"),
    [
        ("softmax", "softmax", 2, "softmax"),
        ("TOP1", "top1", 2, "top1"),
        ("topk", "topk", 2, "topk 2"),
        ("topk 4", "topk", 4, "topk 4"),
        ("topk:4", "topk", 4, "topk 4"),
    ],
)
def test_a_routing_is_a_word_and_for_topk_a_number(text: str, routing: str, topk: int, shown: str) -> None:
    look = Look(masked=(1,)).with_routing(text)
    assert (look.routing, look.topk, look.routing_text, look.masked) == (routing, topk, shown, (1,))


@pytest.mark.parametrize("text", ["", "top2", "top1 3", "softmax:2", "topk 0", "topk -1", "topk 1 2", "topk ²"])
def test_another_routing_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Look().with_routing(text)


@pytest.mark.parametrize(
    ("text", "masked"), [("0", (0,)), ("5 0 3", (0, 3, 5)), ("0,3", (0, 3)), ("1, 1 ,2", (1, 2)), ("OFF", ())]
)
def test_a_mask_lists_slots(text: str, masked: tuple[int, ...]) -> None:
    assert Look(routing="top1").with_masked(text) == Look("top1", masked=masked)


@pytest.mark.parametrize("text", ["", " , ", "-1", "1.5", "x", "off 1", str(MAX_SLOT + 1), "9" * 5000, "٣"])
def test_what_is_no_list_of_slots_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Look().with_masked(text)


@given(st.sets(st.integers(0, MAX_SLOT), max_size=20), st.sampled_from(["softmax", "top1", "topk 7"]))
def test_what_is_shown_can_be_typed_again(slots: set[int], routing: str) -> None:
    look = Look(masked=tuple(sorted(slots))).with_routing(routing)
    for word in ("/routing", "/slotmask"):
        name, _, text = look.shown(word).partition(" = ")
        assert name == word[1:]
        assert look.turned(word, text) == look


def test_slots_are_left_out_where_one_can() -> None:
    assert Look().with_where("slotspace_only").where == "slotspace_only"
    with pytest.raises(
        BadRequest, match="cannot be left out at 'write': use one of read, content_read_only, slotspace_only"
    ):
        Look().with_where("write")


def test_a_text_is_neither_empty_nor_long() -> None:
    check_text(1)
    check_text(MAX_PROBE_TEXT)
    for size in (0, MAX_PROBE_TEXT + 1):
        with pytest.raises(BadRequest):
            check_text(size)
