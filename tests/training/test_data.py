"""The composed transcripts: repeatable, split, and in the exact form that the programs write."""

from __future__ import annotations

import re
from itertools import islice, pairwise
from random import Random

import pytest
import torch

from models.rwkv7 import ByteTokenizer
from training import skills
from training.data import FENCE, RECALL, REPLY, Batch, batches, document, encode
from training.probes import CATEGORIES, probes
from training.skills import any_skill, new_fact, new_mode
from training.words import ADJECTIVES, NAMES, NOUNS, Split, Words, belongs

HEADER = re.compile(r"\(Turn (\d+)\) \[([A-Z]+)\]: ")


def test_the_same_seed_gives_the_same_batches_and_another_does_not() -> None:
    def first(seed: int) -> list[Batch]:
        return list(islice(batches(seed, "train", lanes=2, window=64), 5))

    for one, other in zip(first(1), first(1), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in Batch.__slots__)
    assert any(not torch.equal(a.tokens, b.tokens) for a, b in zip(first(1), first(2), strict=True))


def test_targets_are_the_next_tokens_across_windows() -> None:
    found = list(islice(batches(3, "train", lanes=3, window=32), 40))
    for before, after in pairwise(found):
        assert torch.equal(before.tokens[:, 1:], before.targets[:, :-1])
        going_on = ~after.fresh
        assert torch.equal(before.targets[going_on, -1], after.tokens[going_on, 0])
    assert 0 < sum(int(batch.fresh.sum()) for batch in found[1:]) < 3 * 39


def test_a_document_is_turns_numbered_in_order_each_closed_by_the_fence() -> None:
    for seed in range(30):
        text = document(Random(seed), "train", size=1500).text
        *turns, rest = text.split(FENCE)
        assert rest == ""
        headers = [HEADER.match(turn) for turn in turns]
        numbers = [int(header.group(1)) for header in headers if header]
        assert numbers == list(range(numbers[0], numbers[0] + len(turns)))


def test_only_what_the_model_writes_weighs_fully() -> None:
    for seed in range(30):
        transcript = document(Random(seed), "train", size=800)
        for (header, light), (_, weight) in zip(transcript.pieces[::2], transcript.pieces[1::2], strict=True):
            assert light < 0.2
            assert (weight in (REPLY, RECALL)) == (not re.search(r"\[(USER|CONTEXT|SYSTEM|FILE)\]", header))
        tokens, weights = encode(transcript)
        assert len(tokens) == len(weights)
        assert b"".join(ByteTokenizer().piece(token) for token in tokens).decode() == transcript.text


def drawn(split: Split) -> tuple[set[str], set[str]]:
    """Invented words and names that a split draws."""
    words = Words(Random(0), split)
    return {words.invented() for _ in range(3000)}, {words.name().lower() for _ in range(3000)}


def test_the_splits_share_no_word_and_no_name() -> None:
    for train, held_out in zip(drawn("train"), drawn("held_out"), strict=True):
        assert train
        assert held_out
        assert not train & held_out
    for pool in (NOUNS, ADJECTIVES, NAMES):
        assert 0.05 < sum(belongs(word, "held_out") for word in pool) / len(set(pool)) < 0.35


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_probe_asks_for_a_turn_and_expects_its_end(category: str) -> None:
    for probe in probes(category, seed=1, count=5):
        assert re.search(r"\(Turn \d+\) \[[A-Z]+\]:$", probe.prompt)
        assert probe.expected.startswith(" ")
        assert probe.expected.endswith(FENCE)
    assert probes(category, seed=1, count=3) == probes(category, seed=1, count=3)


def test_replies_are_what_the_skill_says() -> None:
    words = Words(Random(4), "train")
    for _ in range(200):
        upper = skills.upper(words)
        assert upper.reply == upper.text.split(": ", 1)[1].upper()
        repeated = skills.repeat(words)
        assert repeated.text.endswith(f" {repeated.reply}")
        reverse = skills.reverse(words)
        items = reverse.text.removeprefix("Reverse: ").split(", ")
        assert reverse.reply.split(", ") == items[::-1]
        assert any_skill(words).reply


@pytest.mark.parametrize(
    ("kind", "text", "reply"),
    [
        ("echo", "{}", "{}"),
        ("quoter", "{}", "> {}"),
        ("announcer", "{}", "Tom says: {}"),
    ],
)
def test_a_mode_answers_every_text_in_its_way(kind: str, text: str, reply: str) -> None:
    words = Words(Random(1), "train")
    mode = new_mode(words, kind)
    mode.name = "Tom"
    exchanges = [mode.exchange(words) for _ in range(50)]
    single = [exchange for exchange in exchanges if "\n" not in exchange.text]
    assert single
    assert all(exchange.reply == reply.format(exchange.text) for exchange in single)


def test_a_counter_counts_on() -> None:
    words = Words(Random(1), "train")
    mode = new_mode(words, "counter")
    start = mode.count
    assert f"start at {start}." in mode.order
    assert [mode.exchange(words).reply for _ in range(3)] == [str(start), str(start + 1), str(start + 2)]


def test_a_fact_comes_back_in_its_own_words() -> None:
    words = Words(Random(2), "train")
    for _ in range(100):
        fact = new_fact(words)
        value = fact.told.rstrip(".").split()[-1]
        assert value in fact.recalled
        assert value not in fact.asked
