"""A model whose contexts end somewhere: no turn passes the end, and one that cannot fit is refused before it begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turn_toys import begin, primed, toy

from ssmprov.errors import BadRequest
from ssmprov.transcript import FENCE, FENCE_REST
from workers.turn import CLOSING_TOKENS

END_AT = 100


def test_a_reply_ends_in_time_for_its_fence() -> None:
    driver = begin(toy({b"": [b"x"]}), "1234567890", context=END_AT)
    turn = driver.run()
    assert (turn.stop, turn.sampled) == ("limit", END_AT - 10 - CLOSING_TOKENS)
    assert len(driver.runtime.read[0]) == END_AT - CLOSING_TOKENS


def test_a_smaller_limit_of_tokens_stands() -> None:
    turn = begin(toy({b"": [b"x"]}), "1234567890", tokens=3, context=END_AT).run()
    assert (turn.stop, turn.sampled) == ("limit", 3)


def test_a_turn_is_closed_within_the_limit_however_it_ends() -> None:
    fits = END_AT - CLOSING_TOKENS - 1
    half = "p" * (fits - 6) + "\n\n~~~("
    driver = begin(toy({b"": [b"x"]}), half, context=END_AT)
    assert (driver.run().stop, bytes(driver.turn.reply)) == ("forced", FENCE_REST.encode())
    driver = begin(toy({b"p": [b"\n\n~~~(foo"]}), "p" * fits, context=END_AT)
    assert (driver.run().stop, bytes(driver.turn.reply)) == ("fence", FENCE.encode())
    assert len(driver.runtime.read[0]) <= END_AT


@pytest.mark.parametrize("tokens", [None, 1])
def test_a_prompt_that_leaves_no_room_for_a_reply_is_refused(tokens: int | None) -> None:
    with pytest.raises(BadRequest, match=rf"holds 0 tokens and the prompt 100, .* end at {END_AT} .*n_ctx"):
        begin(toy({b"": [b"x"]}), "p" * END_AT, tokens=tokens, context=END_AT)


def test_a_prompt_that_is_only_read_may_fill_the_context() -> None:
    driver = begin(toy({b"": [b"x"]}), "p" * END_AT, tokens=0, context=END_AT)
    assert driver.run().stop == "read"
    with pytest.raises(BadRequest):
        begin(toy({b"": [b"x"]}), "p" * (END_AT + 1), tokens=0, context=END_AT)


def test_what_the_context_holds_and_what_is_replayed_count() -> None:
    runtime = toy({b"": [b"x"]})
    held = primed(runtime, "h" * 50)
    with pytest.raises(BadRequest, match="holds 50 tokens"):
        begin(runtime, "p" * 51, start=held, tokens=0, context=END_AT)
    with pytest.raises(BadRequest, match="holds 70 tokens"):
        begin(runtime, "p" * 31, replay=[5] * 70, tokens=0, context=END_AT)
    turn = begin(runtime, "p", start=held, context=END_AT).run()
    assert turn.sampled == 49 - CLOSING_TOKENS


@given(
    prompt=st.text(st.sampled_from("ab é€🦀\n~"), min_size=1, max_size=90),
    reply=st.sampled_from([b"x", "é".encode(), b"\xf0\x9f", b"\n\n~~~(", b" ", b"end)"]),
    context=st.integers(30, 120),
)
def test_no_context_ever_passes_its_end(prompt: str, reply: bytes, context: int) -> None:
    runtime = toy({b"": [reply, b"\xa6", b"\x80", b"y"]})
    try:
        driver = begin(runtime, prompt, context=context)
    except BadRequest:
        return
    driver.run()
    assert len(runtime.read[0]) <= context
