"""The shipped model does what its card says, on held-out prompts."""

from __future__ import annotations

import json

import pytest

from models import mini, rwkv7
from training.data import FENCE
from training.evaluate import SPARE, Rate, greedy, rate, rated, read, report
from training.probes import CATEGORIES, Probe, library_source, probes
from training.readers import Contexts, Reader, open_reader

COUNT = 10
BESIDE = 40  # prompts that are read side by side
SEED = 17  # not the one of rates.json

# A little below what was measured: ten prompts are a small sample.
EXACT = {
    "repeat": 0.65,
    "times": 0.7,
    "upper": 0.75,
    "lower": 0.6,
    "reverse": 0.8,
    "carry_on": 0.8,
    "pick_word": 0.7,
    "answer": 0.8,
    "remark": 0.55,
    "role QUOTE": 0.55,
    "role ECHO": 0.6,
    "role SHOUT": 0.6,
    "mode echo": 0.65,
    "mode shouter": 0.7,
    "mode whisperer": 0.75,
    "mode quoter": 0.6,
    "mode announcer": 0.65,
    "mode reverser": 0.75,
    "mode counter": 0.8,
    "mode greeter": 0.75,
    "recall, 0 between": 0.6,
    "recall, 1 between": 0.65,
    "recall, 3 between": 0.5,
    "recall, 6 between": 0.55,
    "recall, one of 3": 0.3,
    "unknown": 0.45,
    "mode switch": 0.65,
    "mode echo, after 3 others": 0.65,
}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return open_reader(mini.path())


@pytest.fixture(scope="module")
def replies(reader: Reader) -> dict[Probe, str]:
    """What comes after every prompt of every category; prompts of like lengths are padded the least."""
    asked = sorted({probe for category in CATEGORIES for probe in probes(category, SEED, COUNT)}, key=_length)
    limit = max(len(probe.expected.encode()) for probe in asked) + SPARE
    found: list[str] = []
    for part in (asked[at : at + BESIDE] for at in range(0, len(asked), BESIDE)):
        found += greedy(reader, [probe.prompt for probe in part], limit)
    return dict(zip(asked, found, strict=True))


def _length(probe: Probe) -> int:
    return len(probe.prompt.encode())


@pytest.fixture(scope="module")
def rates(replies: dict[Probe, str]) -> dict[str, Rate]:
    asked = {category: probes(category, SEED, COUNT) for category in CATEGORIES}
    return {category: rated(some, [replies[probe] for probe in some]) for category, some in asked.items()}


@pytest.fixture(scope="module")
def after_source(reader: Reader) -> Contexts:
    """What a context is that has read twenty thousand bytes of real Python."""
    return read(reader, library_source(20_000))


@pytest.mark.parametrize("category", EXACT)
def test_replies_are_exact(rates: dict[str, Rate], category: str) -> None:
    assert rates[category].exact >= EXACT[category]


def test_turns_are_closed(rates: dict[str, Rate]) -> None:
    assert sum(found.closed for found in rates.values()) / len(rates) >= 0.99


@pytest.mark.parametrize("category", ["repeat", "mode echo", "mode greeter"])
def test_a_long_file_before_does_no_harm(reader: Reader, after_source: Contexts, category: str) -> None:
    found = rate(reader, probes(category, SEED, COUNT), after_source)
    assert found.closed >= 0.97
    assert found.exact >= EXACT[category] - 0.15


def test_a_reply_holds_no_header(replies: dict[Probe, str]) -> None:
    assert not [reply for reply in replies.values() if "(Turn" in reply.split(FENCE)[0]]


def test_forks_of_one_context_become_different_specialists(reader: Reader) -> None:
    said = "(Turn 1) [USER]: I am Bob." + FENCE
    replies = []
    for order in ("You are an echo.", "You are a shouter.", "You are a greeter named Luna."):
        prompt = f"(Turn 0) [CONTEXT]: {order}{FENCE}{said}(Turn 2) [INTERFACE]:"
        replies += greedy(reader, [prompt], limit=60)
    assert replies == [f" I am Bob.{FENCE}", f" I AM BOB.{FENCE}", f" Hello, Bob. I am Luna.{FENCE}"]


def test_the_card_holds_the_rates_of_these_weights() -> None:
    content = json.loads(mini.path().with_name("rates.json").read_text())
    assert content["fingerprint"] == rwkv7.fingerprint(mini.path())
    assert set(CATEGORIES) <= set(content["rates"])
    assert set(next(iter(content["rates"].values()))) == set(report({"any": Rate(1, 1.0, 1.0)})["any"])
    assert mini.path().stat().st_size < 8 * 2**20
