"""The shipped model does what its card says, on held-out prompts."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from demo.tour import ORDERS, REPLIES
from demo.words import drawn
from models import mini, rwkv7
from training import card
from training.data import FENCE
from training.evaluate import Rate, answered, greedy, rate, rated, read, report
from training.facts import UNKNOWN
from training.probes import CATEGORIES, Probe, library_source, probes
from training.questions import KNOWN
from training.readers import Contexts, Reader, open_reader

COUNT = 10
SEED = 17  # not the one of rates.json

# A little below what was measured: ten prompts are a small sample.
EXACT = {
    "repeat": 0.45,
    "times": 0.55,
    "upper": 0.55,
    "lower": 0.40,
    "reverse": 0.40,
    "carry_on": 0.50,
    "pick_word": 0.50,
    "answer": 0.55,
    "remark": 0.55,
    "not_known": 0.35,
    "role QUOTE": 0.55,
    "role ECHO": 0.60,
    "role SHOUT": 0.65,
    "mode echo": 0.55,
    "mode shouter": 0.60,
    "mode whisperer": 0.65,
    "mode quoter": 0.55,
    "mode announcer": 0.55,
    "mode reverser": 0.40,
    "mode counter": 0.70,
    "mode greeter": 0.75,
    "echo": 0.55,
    "capitals": 0.60,
    "recall, 0 between": 0.70,
    "recall, 1 between": 0.50,
    "recall, 3 between": 0.45,
    "recall, 6 between": 0.10,
    "recall, told by CONTEXT": 0.50,
    "recall, one of 3": 0.60,
    "recall, the newest": 0.40,
    "unknown, nothing told": 0.20,
    "mode switch": 0.60,
    "mode echo, after 3 others": 0.60,
}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return open_reader(mini.path())


@pytest.fixture(scope="module")
def replies(reader: Reader) -> dict[Probe, str]:
    """What comes after every prompt of every category."""
    return answered(reader, [probe for category in CATEGORIES for probe in probes(category, SEED, COUNT)])


@pytest.fixture(scope="module")
def rates(replies: dict[Probe, str]) -> dict[str, Rate]:
    asked = {category: probes(category, SEED, COUNT) for category in CATEGORIES}
    return {category: rated(some, replies) for category, some in asked.items()}


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


def turns(*texts: str, first: int = 1) -> str:
    """A transcript of `ROLE text`, which ends with the header of the model's next turn."""
    split = [text.split(maxsplit=1) for text in texts]
    parts = [f"(Turn {turn}) [{role}]: {text}{FENCE}" for turn, (role, text) in enumerate(split, first)]
    return "".join(parts) + f"(Turn {first + len(texts)}) [INTERFACE]:"


def reply(reader: Reader, *texts: str) -> str:
    return greedy(reader, [turns(*texts)], limit=200)[0].removesuffix(FENCE).removeprefix(" ")


RIVERS = "seven quiet rivers run toward the northern sea"
KEY = "The key is in the kitchen."


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(
            [f"USER Repeat: {RIVERS}"], RIVERS, marks=pytest.mark.xfail(strict=True, reason="see the card: long copies")
        ),
        (["CONTEXT You are an echo.", "USER the small cat sleeps in the garden"], "the small cat sleeps in the garden"),
        (["USER Upper: hello world"], "HELLO WORLD"),
        (["USER upper: Hello World"], "HELLO WORLD"),
        (["CONTEXT You are a shouter.", "USER hello world"], "HELLO WORLD"),
        ([f"CONTEXT {KEY}", "USER Where is the key?"], KEY),
        ([f"USER {KEY}", f"INTERFACE {KEY}", "USER Where is the key?"], KEY),
        ([f"CONTEXT {KEY}", f"CONTEXT {ORDERS['echo']}", "USER good morning"], "good morning"),
        ([f"CONTEXT {KEY}", f"CONTEXT {ORDERS['shouter']}", "USER good morning"], "GOOD MORNING"),
        (["USER My cat is called Luna.", "INTERFACE Your cat is called Luna.", "USER What is my cat called?"],
         "Your cat is called Luna."),
        (["USER What is my cat called?"], UNKNOWN),
        ([f"CONTEXT {KEY}", "USER What is my cat called?"], UNKNOWN),
    ],
)  # fmt: skip
def test_what_a_newcomer_tries_first_is_answered_rightly(reader: Reader, texts: list[str], expected: str) -> None:
    assert reply(reader, *texts) == expected


def test_the_questions_of_a_newcomer_are_answered_rightly(reader: Reader) -> None:
    """As the first turn of an empty context, in the usual wording and in the others."""
    asked = {turns(f"USER {question}"): entry.answer for entry in KNOWN for question in entry.questions}
    found = answered(reader, [Probe(prompt, f" {answer}{FENCE}") for prompt, answer in asked.items()])
    wrong = [probe.prompt for probe, said in found.items() if said != probe.expected]
    usual = {turns(f"USER {entry.questions[0]}") for entry in KNOWN}
    assert len([prompt for prompt in wrong if prompt in usual]) <= 0.03 * len(usual)
    assert len(wrong) <= 0.1 * len(asked)


def test_the_demo_is_right_with_any_words(reader: Reader) -> None:
    alone, primed = dict[str, str](), dict[str, str]()
    for seed in range(20):
        words = drawn(seed)
        where = f"USER Where is the {words.thing}?"
        alone[turns(where)] = UNKNOWN
        alone[turns(f"USER {words.fact}")] = words.fact
        alone[turns(f"USER {words.fact}", f"INTERFACE {words.fact}", where)] = words.fact
        for name, change in REPLIES.items():
            for said in words.sentences:
                primed[turns(f"CONTEXT {ORDERS[name]}", f"USER {said}", first=18)] = change(said)
    primer = (resources.files("demo") / "primer.txt").read_text(encoding="utf-8")
    for asked, start in ((alone, None), (primed, read(reader, primer))):
        found = answered(reader, [Probe(prompt, f" {expected}{FENCE}") for prompt, expected in asked.items()], start)
        assert sum(said == probe.expected for probe, said in found.items()) >= 0.9 * len(found)


def test_forks_of_one_context_become_different_specialists(reader: Reader) -> None:
    orders = ("You are an echo.", "You are a shouter.", "You are a greeter named Luna.")
    replies = [reply(reader, f"CONTEXT {order}", "USER I am Bob.") for order in orders]
    assert replies == ["I am Bob.", "I AM BOB.", "Hello, Bob. I am Luna."]


def test_the_card_holds_the_rates_of_these_weights() -> None:
    content = json.loads(mini.path().with_name("rates.json").read_text())
    assert content["fingerprint"] == rwkv7.fingerprint(mini.path())
    assert set(CATEGORIES) <= set(content["rates"])
    assert set(next(iter(content["rates"].values()))) == set(report({"any": Rate(1, 1.0, 1.0)})["any"])
    assert mini.path().stat().st_size < 12 * 2**20


def test_the_tables_of_the_card_are_those_of_the_rates(tmp_path: Path) -> None:
    folder = mini.path().parent
    copy = tmp_path / "README.md"
    copy.write_text(folder.joinpath("README.md").read_text(encoding="utf-8").replace("| 0.", "| 9."), encoding="utf-8")
    card.update(copy, folder / "rates.json", folder / "asm-rates.json")
    assert copy.read_text(encoding="utf-8") == folder.joinpath("README.md").read_text(encoding="utf-8")
