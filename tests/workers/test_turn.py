"""One turn at a time: what the reply says is what the state has read, for every stop, limit, boundary and cancel."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turn_toys import CONTROL, END, FIRST_BYTE, GREEDY, Driver, ToyRuntime, begin, follow, primed, toy

from ssmprov.errors import BadRequest, Cancelled, SsmprovError, TimedOut
from ssmprov.settings import Settings
from ssmprov.transcript import FENCE, FENCE_REST
from workers.context import WINDOW, empty
from workers.prompt import Prompt
from workers.runtimes import scripted
from workers.runtimes.base import Feed, Logits, Plan
from workers.sampler import sample
from workers.turn import Limits, Turn
from workers.turns import vocabulary_of

EURO = "€".encode()  # e2 82 ac


def check(driver: Driver, prompt: str | bytes) -> str:
    """The reply of a turn that ended well, held against what the runtime was given to read."""
    turn, runtime = driver.turn, driver.runtime
    data = prompt.encode() if isinstance(prompt, str) else prompt
    assert turn.failed is None
    read = runtime.read[0][len(runtime.read[0]) - len(turn.tokens) :] if turn.tokens else []
    assert turn.tokens == read
    assert b"".join(map(runtime.piece, read)) == data + turn.reply
    assert turn.text().text == data + turn.reply
    assert not {END, CONTROL} & set(runtime.read[0])
    assert turn.showable == len(turn.reply)
    for before, after in pairwise([*driver.shown, bytes(turn.reply)]):
        assert after.startswith(before), "what was streamed stands"
        before.decode()
    snapshot = driver.snapshot()
    assert snapshot.tokens == len(runtime.read[0])
    assert snapshot.window.tolist() == runtime.read[0][-WINDOW:]
    text = turn.reply.decode()
    assert "\0" not in text
    return text


def reply(driver: Driver, prompt: str | bytes) -> tuple[str, str]:
    return driver.run().stop, check(driver, prompt)


# -- how a turn ends


def test_a_turn_ends_with_the_fence_that_the_model_writes() -> None:
    runtime = toy({b"?": [b"yes"], b"yes": [b"\n\n"], b"\n\n": [b"~~~("]})
    driver = begin(runtime, "Well?")
    assert reply(driver, "Well?") == ("fence", "yes" + FENCE)
    assert driver.turn.sampled == 3
    assert runtime.text().decode() == "Well?yes" + FENCE


def test_a_token_that_runs_on_behind_the_mark_is_cut_there() -> None:
    runtime = toy({b"?": [b"yes\n"], b"yes\n": [b"~~~(foo"]})
    assert reply(begin(runtime, "Well?"), "Well?") == ("fence", "yes\n~~~(end)~~~\n\n")


def test_the_end_token_ends_the_turn_and_is_not_read() -> None:
    runtime = toy({b"?": [b"yes"], b"yes": [b""]})
    assert reply(begin(runtime, "Well?"), "Well?") == ("end", "yes")
    assert reply(begin(toy({b"?": [b""]}), "Well?"), "Well?") == ("end", "")


def test_a_half_step_is_closed_by_force_and_nothing_is_sampled() -> None:
    runtime = toy({b"": [b"nonsense"]})
    prompt = "(Turn 1) [USER]: hi\n\n~~~("
    for chars, tokens in [(1000, None), (0, None), (3, 1)]:
        driver = begin(runtime, prompt, chars=chars, tokens=tokens)
        assert reply(driver, prompt) == ("forced", FENCE_REST)
        assert driver.turn.sampled == 0


def test_a_turn_of_no_tokens_only_reads_the_prompt() -> None:
    for prompt in ("Well?", "Well? ", "Well?\n\n~~~(", " ", "  "):
        driver = begin(toy({b"": [b"x"]}), prompt, tokens=0)
        assert reply(driver, prompt) == ("read", "")
        assert driver.runtime.text() == prompt.encode()


def test_a_token_limit_is_met_exactly() -> None:
    runtime = toy({b"": [b"ab"]})
    for limit in (1, 2, 5):
        driver = begin(runtime, "x", tokens=limit)
        assert reply(driver, "x") == ("limit", "ab" * limit)
        assert driver.turn.sampled == limit


def test_a_token_that_would_pass_the_character_limit_is_neither_read_nor_returned() -> None:
    runtime = toy({b"": ["äöü".encode()]})
    for limit, expected in [(0, ""), (2, ""), (3, "äöü"), (5, "äöü"), (6, "äöüäöü")]:
        driver = begin(runtime, "x", chars=limit)
        assert reply(driver, "x") == ("limit", expected)


def test_a_fence_that_would_pass_the_limit_leaves_the_turn_open() -> None:
    runtime = toy({b"?": [b"yes"], b"yes": [b"\n\n~~~(foo"]})
    whole = len("yes" + FENCE)
    assert reply(begin(runtime, "?", chars=whole), "?") == ("fence", "yes" + FENCE)
    assert reply(begin(runtime, "?", chars=whole - 1), "?") == ("limit", "yes")


def test_a_stop_before_the_first_token_reads_only_the_prompt() -> None:
    driver = begin(toy({b"": [b"word"]}), "Well?", chars=1)
    assert reply(driver, "Well?") == ("limit", "")
    assert driver.runtime.text() == b"Well?"


def test_nothing_can_be_continued_from_nothing() -> None:
    with pytest.raises(BadRequest, match="nothing to continue"):
        begin(toy({b"": [b"x"]}), "")


def test_an_empty_prompt_goes_on_where_the_context_stands() -> None:
    runtime = toy({b"one": [b"two"], b"two": [b""]})
    driver = begin(runtime, "", start=primed(runtime, "one"))
    assert reply(driver, "") == ("end", "two")
    assert runtime.text() == b"onetwo"


# -- the boundary: a trailing space


def test_a_token_that_begins_with_a_space_takes_up_the_withheld_one() -> None:
    runtime = toy({b"]:": [b" word", b"x"], b" word": [b""]})
    driver = begin(runtime, "[A]: ")
    assert reply(driver, "[A]: ") == ("end", "word")
    assert runtime.id(b" word") in driver.turn.tokens


def test_where_no_likely_token_takes_up_the_space_it_is_read_as_it_is() -> None:
    runtime = toy({b"]:": [b"x", b" word"], b": ": [b"word"], b"word": [b""]})
    driver = begin(runtime, "[A]: ")
    assert reply(driver, "[A]: ") == ("end", "word")
    assert runtime.id(b" word") not in driver.turn.tokens
    assert driver.turn.sampled == 1


def test_half_of_the_softmax_is_enough_to_take_up_the_space() -> None:
    def model(spaced: float) -> ToyRuntime:
        def logits(runtime: ToyRuntime, text: bytes) -> Logits:
            row = np.full(runtime.vocabulary, -np.inf, np.float32)
            row[runtime.id(b" a")], row[runtime.id(b"b")] = spaced, 0.0
            if not text.endswith(b":"):
                row[:] = -np.inf
                row[END] = 0
            return row

        return ToyRuntime([b" a"], logits)

    assert reply(begin(model(0.0), ": "), ": ") == ("end", "a")
    below = begin(model(-0.01), ": ")
    assert reply(below, ": ") == ("end", "")
    assert below.runtime.text() == b": "


def test_exactly_one_of_two_spaces_is_withheld() -> None:
    runtime = toy({b": ": [b" word"], b":": [b"no"], b" word": [b""]})
    driver = begin(runtime, "x:  ")
    assert reply(driver, "x:  ") == ("end", "word")
    assert runtime.text() == b"x:  word"


def test_a_prompt_of_one_space_is_read_or_healed() -> None:
    runtime = toy({b"one": [b" two"], b"two": [b""], b" ": [b"first"], b"first": [b""]})
    assert reply(begin(runtime, " "), " ") == ("end", "first")
    driver = begin(runtime, " ", start=primed(runtime, "one"))
    assert reply(driver, " ") == ("end", "two")
    assert runtime.text() == b"one two"


def test_a_half_steps_prompt_and_one_without_a_space_are_not_touched() -> None:
    vocabulary = vocabulary_of(toy({}))
    assert Prompt(b"x ", vocabulary, heal=True).withheld
    assert not Prompt(b"x ", vocabulary, heal=False).withheld
    assert not Prompt(b"x\n", vocabulary, heal=True).withheld
    assert not Prompt(b" x\n\n~~~(", vocabulary, heal=True).withheld


def test_a_healed_token_that_passes_the_limit_leaves_the_space_read() -> None:
    driver = begin(toy({b":": [b" word"]}), "x: ", chars=3)
    assert reply(driver, "x: ") == ("limit", "")
    assert driver.runtime.text() == b"x: "
    assert reply(begin(toy({b":": [b" word"], b"word": [b""]}), "x: ", chars=4), "x: ") == ("end", "word")


def test_a_healed_space_alone_adds_nothing_to_the_reply() -> None:
    driver = begin(toy({b":": [b" "], b": ": [b"go"], b"go": [b""]}), "x: ", chars=2)
    assert reply(driver, "x: ") == ("end", "go")
    assert driver.turn.sampled == 2


def test_a_healed_token_with_a_mark_in_it_is_cut_there() -> None:
    driver = begin(toy({b":": [b" yes\n~~~(foo"]}), "x: ")
    assert reply(driver, "x: ") == ("fence", "yes\n~~~(end)~~~\n\n")
    driver = begin(toy({b":": [b" yes\n~~~("]}), "x: ")
    assert reply(driver, "x: ") == ("fence", "yes\n~~~(end)~~~\n\n")


def test_where_every_spaced_token_is_refused_the_space_is_read_as_it_is() -> None:
    runtime = ToyRuntime([b" \xff"], follow({b":": [b" \xff"], b": ": [b"fine"[:1]], b"f": [b""]}))
    runtime.pieces[FIRST_BYTE + ord(" ")] = b"!"  # so that the invalid token is the only one with a space
    runtime.pieces.append(b"\t ")
    vocabulary = vocabulary_of(runtime)
    assert int(vocabulary.spaced().sum()) == 1
    runtime.pieces[FIRST_BYTE + ord(" ")] = b" "
    runtime.load(0, {})
    prompt = Prompt(b"x: ", vocabulary, heal=True)
    driver = Driver(runtime, Turn(vocabulary, empty(), prompt, GREEDY, Limits(None, 100), 0))
    assert reply(driver, "x: ") == ("end", "f")


# -- text that is text


def test_a_character_of_several_tokens_is_whole_in_the_reply() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [EURO[1:2]], EURO[:2]: [EURO[2:]], EURO: [b""]})
    driver = begin(runtime, "?")
    assert reply(driver, "?") == ("end", "€")
    assert driver.turn.sampled == 3
    assert set(driver.shown) <= {b"", EURO}, "no part of a character is streamed"


def test_a_token_may_end_one_character_and_open_the_next() -> None:
    runtime = toy({b"?": [b"a\xe2\x82"], b"\xe2\x82": [b"\xacb\xe2"], b"b\xe2": [b"\x82\xac"], EURO: [b""]})
    driver = begin(runtime, "?")
    assert reply(driver, "?") == ("end", "a€b€")
    assert set(driver.shown) <= {b"", b"a", "a€b".encode(), "a€b€".encode()}


@pytest.mark.parametrize(
    "bad", [b"\xff", b"a\xff", b"\xe2a", b"\x82", b"\xc0\x80", b"\xed\xa0", b"\xf4\x90", b"\0", b"a\0"]
)
def test_a_token_that_would_make_the_text_invalid_is_drawn_again(bad: bytes) -> None:
    runtime = toy({b"?": [bad, b"good"], b"good": [b""]})
    for settings_ in (GREEDY, Settings(temp=0.01)):
        assert reply(begin(runtime, "?", settings=settings_), "?") == ("end", "good")


def test_a_token_that_breaks_an_open_character_is_drawn_again() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [b"x", b"", EURO[1:]], EURO: [b""]})
    assert reply(begin(runtime, "?"), "?") == ("end", "€")


def test_control_tokens_and_tokens_that_spell_nothing_are_never_read() -> None:
    def logits(runtime: ToyRuntime, text: bytes) -> Logits:
        row = np.zeros(runtime.vocabulary, np.float32)
        row[CONTROL], row[runtime.vocabulary - 1] = 30, 20
        row[runtime.id(b"a") if text.endswith(b"?") else END] = 10
        return row

    assert reply(begin(ToyRuntime([b"zz", b""], logits), "?"), "?") == ("end", "a")


def test_a_model_without_a_valid_token_fails_its_turn() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [b""]})
    runtime.pieces = [
        b"" if len(piece) == 1 and piece >= b"\x80" and piece != EURO[:1] else piece for piece in runtime.pieces
    ]
    turn = begin(runtime, "?").run()
    assert turn.failed is not None
    assert turn.failed.code == "internal"


def test_limits_count_a_character_when_it_is_opened() -> None:
    rules = {b"?": [b"ab\xe2"], b"\xe2": [EURO[1:]], EURO: [b"c"]}
    assert reply(begin(toy(rules), "?", chars=2), "?") == ("limit", "")
    assert reply(begin(toy(rules), "?", chars=3), "?") == ("limit", "ab€")
    assert reply(begin(toy(rules), "?", chars=4), "?") == ("end", "ab€c")


def test_an_open_character_is_completed_at_the_limit_and_nothing_more() -> None:
    runtime = toy(
        {
            b"?": [EURO[:1]],
            EURO: [b"x"],
            EURO[:1]: [b"\x82\xacmore", b"\x82\xac\xe2", b"\x82"],
            EURO[:2]: [b"\xac!", b"\xac"],
        }
    )
    for limits in ({"chars": 1}, {"tokens": 1}):
        assert reply(begin(runtime, "?", **limits), "?") == ("limit", "€")
    assert reply(begin(runtime, "?", tokens=2), "?") == ("limit", "€more")  # not at its limit


def test_a_mark_in_a_token_that_ends_a_character_closes_the_turn() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [EURO[1:] + b"\n~~~("]})
    assert reply(begin(runtime, "?"), "?") == ("fence", "€\n~~~(end)~~~\n\n")


def test_no_cut_goes_through_an_open_character() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [EURO[1:] + b"\n~~~(foo", EURO[1:]], EURO: [b""]})
    assert reply(begin(runtime, "?"), "?") == ("end", "€")


def test_a_prompt_is_text() -> None:
    vocabulary = vocabulary_of(toy({}))
    with pytest.raises(BadRequest, match="0xff at offset 2"):
        Prompt(b"ab\xff", vocabulary, heal=True)
    with pytest.raises(BadRequest, match=r"U\+0000 at offset 3"):
        Prompt("ä \0b".encode(), vocabulary, heal=True)
    with pytest.raises(BadRequest, match="offset 0"):
        Prompt(b"\xed\xa0\x80", vocabulary, heal=True)


def test_a_prompt_that_the_tokenizer_does_not_give_back_is_refused() -> None:
    class Lossy(ToyRuntime):
        def tokenize(self, text: str) -> list[int]:
            return super().tokenize(text.replace("ﬁ", "fi").rstrip(" "))

    vocabulary = vocabulary_of(Lossy([], follow({})))
    assert Prompt(b"fine", vocabulary, heal=True).tokens
    for text in ("ﬁne", "fine ", "fine  "):
        with pytest.raises(BadRequest, match="tokenizer would change the prompt"):
            Prompt(text.encode(), vocabulary, heal=True)


# -- cancel


def cancelled(mode: str, at: int, prompt: str, runtime: ToyRuntime) -> Driver:
    """A turn that is cancelled before its step `at`, then driven to its end."""
    driver = begin(runtime, prompt, tokens=30)
    while not driver.turn.done:
        if driver.steps == at:
            driver.turn.cancel(mode)
        driver.step()
    return driver


STEPS = {
    b"?": [b" one"],
    b"? ": [b" one"],
    b"one": [b" two"],
    b"two": [EURO[:1]],
    EURO[:1]: [EURO[1:2]],
    EURO[:2]: [EURO[2:]],
    EURO: [b"\n\n"],
    b"\n\n": [b"~~~"],
    b"~~~": [b"("],
}


@pytest.mark.parametrize("prompt", ["What is it?", "What is it? ", " ?\n\n~~~("])
@pytest.mark.parametrize("mode", ["keep", "close", "drop"])
def test_a_cancel_at_every_step_leaves_the_old_context_or_a_truthful_one(mode: str, prompt: str) -> None:
    whole = begin(toy(STEPS), prompt, tokens=30)
    whole.run()
    texts = set()
    for at in range(whole.steps + 1):
        driver = cancelled(mode, at, prompt, toy(STEPS))
        turn = driver.turn
        if turn.failed:
            assert isinstance(turn.failed, Cancelled)
            assert mode == "drop" or at * driver.slice < turn.prompt_tokens
        else:
            text = check(driver, prompt)
            texts.add(text)
            if turn.stop != "cancelled":
                assert (turn.stop, text) == (whole.turn.stop, whole.turn.reply.decode())
            elif mode == "keep":
                assert whole.turn.reply.decode().startswith(text)
            else:
                kept = text.removesuffix(FENCE)
                assert text.endswith(FENCE)
                assert whole.turn.reply.decode().startswith(kept)
            if mode == "close":
                assert text.endswith(FENCE_REST)
    if mode != "drop" and not prompt.endswith("("):
        assert len(texts) >= 3, "the cancels hit different steps"


@pytest.mark.parametrize(("mode", "expected"), [("keep", ""), ("close", FENCE)])
@pytest.mark.parametrize("prompt", ["x?", "x? "])
def test_a_cancel_right_after_the_prompt_keeps_the_prompt(mode: str, expected: str, prompt: str) -> None:
    runtime = toy(STEPS)
    driver = begin(runtime, prompt)
    turn = driver.turn
    while turn.prefilling:
        turn.fed(1, runtime.forward([Feed(0, turn.upcoming(1))])[0])
    turn.cancel(mode)
    assert reply(driver, prompt) == ("cancelled", expected)
    assert turn.sampled == 0


def test_a_cancel_waits_for_an_open_character_and_not_longer() -> None:
    rules = {b"?": [EURO[:1]], EURO[:1]: [b"\x82\xac and so on", b"\x82"], EURO[:2]: [b"\xac\xe2", b"\xac"]}
    for mode, expected in (("keep", "€"), ("close", "€" + FENCE)):
        driver = begin(toy(rules), "?")
        driver.step()
        driver.turn.cancel(mode)
        assert reply(driver, "?") == ("cancelled", expected)


def test_close_adds_only_what_of_the_fence_is_missing() -> None:
    for written in ("\n", "\n\n", "\n\n~~", "\n\n~~~"):
        runtime = toy({b"?": [("yes" + written).encode()], written.encode(): [b"never"]})
        driver = begin(runtime, "?")
        driver.step()
        driver.turn.cancel("close")
        assert reply(driver, "?") == ("cancelled", "yes" + FENCE)


def test_a_later_cancel_may_still_drop_the_turn() -> None:
    driver = begin(toy(STEPS), "?")
    driver.step()
    driver.turn.cancel("keep")
    driver.turn.cancel("drop")
    assert isinstance(driver.run().failed, Cancelled)


def test_a_drop_while_the_fence_is_read_still_drops() -> None:
    runtime = toy({b"?": [b"yes\n~~~("]})
    driver = begin(runtime, "?")
    driver.step()
    assert driver.turn.stop == "fence"
    assert not driver.turn.done
    driver.turn.cancel("drop")
    assert isinstance(driver.run().failed, Cancelled)


def test_an_unknown_way_to_cancel_drops() -> None:
    driver = begin(toy(STEPS), "?")
    driver.step()
    driver.turn.cancel("pause")
    assert isinstance(driver.turn.failed, Cancelled)


def test_what_has_ended_cannot_be_cancelled() -> None:
    driver = begin(toy({b"?": [b""]}), "?")
    driver.run()
    for mode in ("keep", "close", "drop"):
        driver.turn.cancel(mode)
    assert reply(driver, "?") == ("end", "")


def test_the_first_failure_stands() -> None:
    driver = begin(toy(STEPS), "?")
    driver.turn.fail(TimedOut("late"))
    driver.turn.cancel("drop")
    driver.turn.fail(SsmprovError("other"))
    assert isinstance(driver.turn.failed, TimedOut)


# -- a header that the model writes itself


def writing(*tokens: str, then: bytes = b"x") -> ToyRuntime:
    """A model that writes these tokens after any text, then the same one for ever."""

    def model(runtime: ToyRuntime, text: bytes) -> Logits:
        logits = np.full(runtime.vocabulary, -20.0, np.float32)
        written, left = text[text.index(b"?") + 1 :], b"".join(map(str.encode, tokens))
        at = 0
        for token in map(str.encode, tokens):
            if len(written) == at and written == left[:at]:
                logits[runtime.id(token)] = 10
                return logits
            at += len(token)
        logits[runtime.id(then)] = 10
        return logits

    return ToyRuntime([token.encode() for token in dict.fromkeys(tokens) if len(token.encode()) > 1], model)


HEADER = "(Turn 3) [USER]: "


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["yes", "\n\n", "(", "Turn", " ", "3", ")", " [", "USER", "]", ":"], "yes\n\n"),
        (["yes", "\n\n(Turn 3", ") [USER]: hi"], "yes\n\n"),
        (["yes\n\n(Turn 3) [USER]: hi"], "yes\n\n"),
        (["yes", "\n(", "Turn 3)", "\n(Turn\t3)[", "Ü", "]:"], "yes\n(Turn 3)\n"),
        (list("yes\n" + HEADER), "yes\n"),
        (["a\nb\n(Turn 3) [A]: x\n(Turn 4) [B]: y"], "a\nb\n"),
    ],
)
def test_a_reply_ends_before_a_header_and_is_closed(tokens: list[str], text: str) -> None:
    driver = begin(writing(*tokens), "?")
    stop, said = reply(driver, "?")
    assert (stop, said) == ("header", text.removesuffix("\n").removesuffix("\n") + FENCE)
    assert not any("(Turn 3) [" in shown.decode() or shown.endswith(b"\n(") for shown in driver.shown)
    assert driver.turn.sampled <= len(tokens)


def test_the_old_logic_writes_headers() -> None:
    tokens = ["yes", "\n\n(Turn 3", ") [USER]: hi"]
    assert reply(begin(writing(*tokens, then=b""), "?", headers=True), "?") == ("end", "".join(tokens))


@pytest.mark.parametrize(
    "text",
    [
        "see (Turn 3) [USER]: there",
        "> (Turn 3) [USER]: quoted",
        "\\(Turn 3) [USER]: escaped",
        "(Turn three) [USER]: x",
        "\n(Turn 3) [USER\n]: x",
        "\n(Turn 3): x",
        "\n (Turn 3) [USER]: x",
        f"\n(Turn {'3' * 19}) [A]:",
    ],
)
def test_what_only_resembles_a_header_ends_nothing(text: str) -> None:
    for tokens in (list(text), [text]):
        assert reply(begin(writing(*tokens, then=b""), "?"), "?") == ("end", text)


def test_text_that_may_become_a_header_is_held_back_and_then_shown() -> None:
    driver = begin(writing("a\n", "(", "Turn 3)", " is", then=b""), "?")
    assert reply(driver, "?") == ("end", "a\n(Turn 3) is")
    assert b"a\n" in driver.shown
    assert b"a\n(" not in driver.shown


@pytest.mark.parametrize(("limit", "stop"), [(3, "limit"), (20, "header")])
def test_a_turn_that_ends_inside_a_possible_header_keeps_what_was_read(limit: int, stop: str) -> None:
    driver = begin(writing(*"a\n(Turn 3) [A]:"), "?", tokens=limit)
    assert reply(driver, "?") == (stop, "a\n(" if stop == "limit" else "a" + FENCE)
    driver = begin(writing("a\n(Turn", then=b""), "?")
    assert reply(driver, "?") == ("end", "a\n(Turn")


@pytest.mark.parametrize(("mode", "text"), [("keep", "a\n(T"), ("close", "a\n(T" + FENCE)])
def test_a_cancel_inside_a_possible_header_keeps_what_was_read(mode: str, text: str) -> None:
    driver = begin(writing(*"a\n(Turn 3) [A]:"), "?")
    while not driver.turn.reply.endswith(b"("):
        driver.step()
    driver.turn.cancel(mode)
    assert reply(driver, "?") == ("cancelled", text)


def test_the_fence_that_comes_first_decides() -> None:
    runtime = writing("yes", "\n\n~~~(end)~~~\n\n(Turn 3) [USER]: hi")
    assert reply(begin(runtime, "?"), "?") == ("fence", "yes" + FENCE)


def test_a_closing_fence_that_would_pass_the_limit_leaves_the_turn_open() -> None:
    whole = "yes" + FENCE
    assert reply(begin(writing("yes", "\n", HEADER), "?", chars=len(whole)), "?") == ("header", whole)
    for tokens in (["yes", "\n", HEADER], ["yes", "\n(Turn", " 3) [A]:"]):
        assert reply(begin(writing(*tokens), "?", chars=len(whole) - 1), "?") == ("limit", "yes\n")
    assert reply(begin(writing("yes", "\n" * 9 + HEADER), "?", chars=5), "?") == ("limit", "yes")


def test_a_reply_opens_a_turn_with_a_header_only_after_a_closed_one() -> None:
    rules = {b"?\n": [HEADER.encode()], FENCE.encode(): [HEADER.encode()], HEADER.encode(): [b""]}
    assert reply(begin(toy(rules), "?\n"), "?\n") == ("header", FENCE)
    assert reply(begin(toy(rules), "?" + FENCE), "?" + FENCE) == ("end", HEADER)
    for text, found in (("?\n", ("header", FENCE)), ("?" + FENCE, ("end", HEADER))):
        runtime = toy(rules)
        assert reply(begin(runtime, "", start=primed(runtime, text)), "") == found


def test_a_healed_token_with_a_header_in_it_is_cut_there() -> None:
    for tokens in ([" yes\n" + HEADER], [" yes\n(", "Turn 3) [USER]:"]):
        rules = {b"?:": [tokens[0].encode()], b"(": [tokens[-1].encode()]}
        assert reply(begin(toy(rules), "?: "), "?: ") == ("header", "yes" + FENCE)


def test_no_header_cuts_an_open_character() -> None:
    runtime = toy({b"?": [EURO[:1]], EURO[:1]: [EURO[1:] + b"\n(Turn", EURO[1:]], EURO: [b""]})
    assert reply(begin(runtime, "?"), "?") == ("end", "€")


TOKENS = st.lists(
    st.sampled_from(
        ["(", "Turn", " ", "3", ")", "[", "USER", "]", ":", "\n", "\n\n", "\n(Turn", "é", "~~~(", "x", HEADER]
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=300, deadline=None)
@given(tokens=TOKENS, chars=st.sampled_from([1000, 30, 20]))
def test_a_reply_is_the_free_one_up_to_its_first_header(tokens: list[str], chars: int) -> None:
    free = begin(writing(*tokens, then=b""), "?", headers=True).run().reply.decode()
    driver = begin(writing(*tokens, then=b""), "?", chars=chars)
    stop, said = reply(driver, "?")
    found = re.search(r"(?m)^\(Turn[ \t]+[0-9]{1,18}\)[ \t]*\[[^\[\]\r\n]{1,64}\]:", "?" + free)
    until = free[: found.start() - 1] if found else free
    if stop == "header":
        assert said.removesuffix(FENCE).rstrip("\n") == until.rstrip("\n")
        assert said.endswith(FENCE)
    elif stop == "limit":
        assert until.startswith(said)
    else:
        assert found is None or stop == "fence"
        assert said == free


# -- seeds, windows, replay


def wandering(seed: int) -> ToyRuntime:
    """A model that likes other tokens after every text, and knows many odd ones."""

    def logits(runtime: ToyRuntime, text: bytes) -> Logits:
        rng = np.random.default_rng([seed, len(text), *text[-8:]])
        row = rng.normal(0, 3, runtime.vocabulary).astype(np.float32)
        row[FIRST_BYTE : FIRST_BYTE + 256] -= 4
        row[FIRST_BYTE + 0x80 : FIRST_BYTE + 0xC0] += 3
        row[END] -= 4
        return row

    pieces = [
        b"  ",
        b" a",
        b"ab",
        b" \xc3\xa9",
        b"\xe2",
        b"\x82\xac",
        b"\xac",
        b"\xac\xe2",
        b"\x82\xac\n~~~(",
        b"\xac\n~~~(x",
    ]
    pieces += [
        b"\xff\xff",
        b" \xff",
        b"a\0",
        b"\n\n",
        b"~~~",
        b"~~~(",
        b"~~~(foo",
        b"end",
        b")~~~\n\n",
        b")~~",
        b"\xf0\x9f",
    ]
    pieces += [b"\x98\x80", b" \xe2", b"end)~~~\n\n", b"\xf0\x9f\x98", b"\x80", b"zz\xe2\x82", b"\n"]
    pieces += [b"\n(Turn", b" 3) [A]", b"\n(Turn 4) [B]: x"]
    return ToyRuntime(pieces, logits)


WILD = Settings(temp=1.2, pen_rep=1.1, pen_freq=0.1, min_p=0.01)


def test_a_seeded_turn_is_repeated_and_another_seed_is_another_turn() -> None:
    def run(seed: int) -> str:
        return reply(begin(wandering(1), "go", settings=WILD, tokens=20, seed=seed), "go")[1]

    assert run(5) == run(5)
    assert len({run(seed) for seed in range(6)}) > 3


def test_a_turn_taken_up_draws_what_the_whole_one_would_have_drawn() -> None:
    """Draws are addressed by position and the penalty window is kept: two turns of n are one of 2 n."""
    for seed in range(8):
        whole = begin(wandering(2), "start", settings=WILD, tokens=24, seed=seed)
        whole.run()
        parts = begin(wandering(2), "start", settings=WILD, tokens=12, seed=seed)
        parts.run()
        if parts.turn.sampled > 12:
            continue  # the limit fell into an open character, and waited for its end
        if parts.turn.stop == "limit":
            first = parts.snapshot()
            parts = begin(wandering(2), "", start=first, settings=WILD, tokens=12, seed=seed)
            parts.run()
        assert parts.runtime.read[0] == whole.runtime.read[0]


def test_the_penalty_window_is_the_last_tokens_read_prompt_included() -> None:
    runtime = toy({b"": [b"a", b"b"]})
    strong = Settings(temp=0.0, pen_pres=10.0)
    assert reply(begin(runtime, "xa", settings=strong, tokens=1), "xa")[1] == "b"
    far = "a" + "x" * (WINDOW - 1)
    assert reply(begin(runtime, far, settings=strong, tokens=1), far)[1] == "b"
    far = "a" + "x" * WINDOW
    assert reply(begin(runtime, far, settings=strong, tokens=1), far)[1] == "a"
    start = primed(runtime, "a")
    assert reply(begin(runtime, "x", start=start, settings=strong, tokens=1), "x")[1] == "b"


def test_replayed_tokens_are_read_again_and_belong_to_no_reply() -> None:
    runtime = toy({b"?": [b"yes"], b"yes": [b""]})
    old = runtime.tokenize("what was")
    driver = begin(runtime, " now?", start=empty(), replay=old)
    assert driver.turn.progress == (0, len(old) + 5)
    assert reply(driver, " now?") == ("end", "yes")
    turn = driver.turn
    assert runtime.text() == b"what was now?yes"
    assert (turn.replayed, turn.prompt_tokens, len(turn.tokens)) == (len(old), 5, 6)
    assert turn.progress == (len(old) + 5, len(old) + 5)


@pytest.mark.parametrize("mode", ["keep", "close"])
def test_a_cancel_during_a_replay_leaves_the_old_context(mode: str) -> None:
    runtime = toy({b"": [b"x"]})
    driver = begin(runtime, "", replay=runtime.tokenize("long ago"))
    driver.step()
    driver.turn.cancel(mode)
    assert isinstance(driver.turn.failed, Cancelled)


def test_a_replay_of_nothing_but_tokens_reads_them_and_ends() -> None:
    runtime = toy({b"": [b"x"]})
    tokens = runtime.tokenize("a b")
    driver = begin(runtime, "", replay=tokens, tokens=0)
    assert reply(driver, "") == ("read", "")
    assert runtime.read[0] == tokens


def test_an_untruthful_turn_is_not_given_out() -> None:
    driver = begin(toy({b"?": [b"yes"], b"yes": [b""]}), "?")
    driver.run()
    driver.turn.reply += b"!"
    with pytest.raises(AssertionError, match="do not spell"):
        driver.turn.text()


# -- the scripted runtime, as the processes use it


def scripted_turn(tmp_path: Path, prompt: str, pieces: list[str], **limits: int) -> tuple[str, str, bytes]:
    path = tmp_path / "script.json"
    path.write_text(
        json.dumps({"replies": [{"after": prompt.rstrip(" "), "pieces": pieces}, {"after": "", "pieces": []}]})
    )
    runtime = scripted.open_runtime(Plan(path=path, slots=1))
    vocabulary = vocabulary_of(runtime)
    prompt_read = Prompt(prompt.encode(), vocabulary, heal=True)
    turn = Turn(vocabulary, empty(), prompt_read, GREEDY, Limits(limits.get("tokens"), limits.get("chars", 1000)), 0)
    while not turn.done:
        if tokens := turn.upcoming(4):
            turn.fed(len(tokens), runtime.forward([Feed(0, tokens)])[0])
        turn.settle()
        while not (turn.done or turn.waiting or turn.stop):
            logits, draw = turn.draw()
            turn.judge(sample(logits[None], [draw])[0])
    assert turn.text().text == prompt.encode() + turn.reply
    return turn.stop, turn.reply.decode(), runtime.save(0)["text"].tobytes()


@pytest.mark.parametrize(
    ("prompt", "pieces", "limits", "stop", "answer"),
    [
        ("hi", ["yes", " ", "sir"], {}, "end", "yes sir"),
        ("hi", ["yes\n\n", "~~~(", "end)"], {}, "fence", "yes" + FENCE),
        ("hi", ["yes", " sir"], {"tokens": 1}, "limit", "yes"),
        ("hi", ["yes", " sir"], {"chars": 5}, "limit", "yes"),
        ("hi", ["yes"], {"tokens": 0}, "read", ""),
        ("hi: ", [" yes", " sir"], {}, "end", "yes sir"),
        ("hi\n\n~~~(", ["no"], {}, "forced", FENCE_REST),
    ],
)
def test_the_scripted_state_is_prompt_and_reply(
    tmp_path: Path, prompt: str, pieces: list[str], limits: dict[str, int], stop: str, answer: str
) -> None:
    assert scripted_turn(tmp_path, prompt, pieces, **limits) == (stop, answer, (prompt + answer).encode())


# -- everything at once

PROMPTS = st.lists(st.sampled_from(["a", " ", "  ", "é", "€", "\n", "\n\n~~~(", "end", "(Turn 1) [A]: "]), max_size=6)
MARKS = ("\n~~~(", "end)~~", ")~~~\n\n")


@settings(max_examples=400, deadline=None)
@given(
    model=st.integers(0, 10_000),
    words=PROMPTS,
    start=st.sampled_from(["", "before", "before "]),
    chosen=st.sampled_from([GREEDY, WILD, Settings(temp=2.0), Settings(temp=1.5, top_k=20)]),
    tokens=st.none() | st.integers(0, 12),
    chars=st.integers(0, 60),
    seed=st.integers(0, 2**63 - 1),
    cancel=st.none() | st.tuples(st.integers(0, 15), st.sampled_from(["keep", "close", "drop"])),
)
def test_whatever_happens_text_and_state_agree(
    model: int,
    words: list[str],
    start: str,
    chosen: Settings,
    tokens: int | None,
    chars: int,
    seed: int,
    cancel: tuple[int, str] | None,
) -> None:
    runtime, prompt = wandering(model), "".join(words)
    context = primed(runtime, start) if start else empty()
    if not prompt and not start and tokens != 0:
        return
    driver = begin(runtime, prompt, start=context, settings=chosen, tokens=tokens, chars=chars, seed=seed)
    turn = driver.turn
    while not turn.done:
        if cancel and driver.steps == cancel[0]:
            turn.cancel(cancel[1])
        driver.step()
    if turn.failed:
        assert isinstance(turn.failed, Cancelled)
        assert cancel is not None
        return
    text = check(driver, prompt)
    if turn.stop in ("end", "limit", "read"):
        assert not any(mark in text for mark in MARKS)
    if turn.stop in ("fence", "forced", "header"):
        assert text.endswith(")~~~\n\n")
        assert text.count(")~~~\n\n") == 1
    if turn.stop == "cancelled":
        assert cancel is not None
        assert not any(mark in text.removesuffix(FENCE) for mark in MARKS)
    else:
        assert turn.stop == "forced" or len(text) <= chars
        assert tokens is None or turn.sampled <= tokens + 3
        if turn.stop == "limit":
            assert chars - len(text) < 20 or (tokens is not None and turn.sampled >= tokens)
