"""The composed transcripts: repeatable, split, and in the exact form that the programs write."""

from __future__ import annotations

import json
import re
from itertools import islice, pairwise
from random import Random

import pytest
import torch

from models.rwkv7 import ByteTokenizer
from training import skills
from training.data import FENCE, KEY, RECALL, REPLY, REST, TELLERS, Batch, Transcript, batches, document, encode
from training.drills import copies, drill, facts
from training.facts import UNKNOWN, near, new_fact
from training.probes import CATEGORIES, probes
from training.questions import KNOWN, QUESTIONS
from training.skills import any_skill, new_mode
from training.words import ADJECTIVES, LISTED, NAMES, NOUNS, Split, Words, belongs

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
        for header, said in zip(transcript.pieces[::2], transcript.pieces[1::2], strict=True):
            assert header.weight < 0.2
            by_model = not re.search(rf"\[(USER|{'|'.join(TELLERS)})\]", header.text)
            assert (said.weight >= KEY) == by_model
        tokens, weights = encode(transcript)
        assert len(tokens) == len(weights)
        assert b"".join(ByteTokenizer().piece(token) for token in tokens).decode() == transcript.text


def test_the_value_of_a_fact_weighs_most_and_a_fence_only_at_its_start() -> None:
    transcript = Transcript(1)
    transcript.add("INTERFACE", "The in is in.", KEY, "in")
    weights = encode(transcript)[1]
    fence = len(weights) - len(FENCE)
    assert weights[fence - 3 : fence - 1] == [RECALL, RECALL]
    assert weights.count(RECALL) == 2
    assert weights[fence] == REPLY
    assert set(weights[fence + 1 :]) == {REST}


def words_of(text: str) -> set[str]:
    return {word.strip(".,:;?!()[]{}\"'<>=") for word in text.lower().split()}


def drawn(split: Split) -> set[str]:
    """Words and names that a split draws."""
    words = Words(Random(0), split)
    draws = (words.word, words.name, words.place, words.colour, words.noun)
    return {draw().lower() for draw in draws for _ in range(2000)}


def test_the_splits_share_no_word_and_no_name() -> None:
    train, held_out = drawn("train"), drawn("held_out")
    assert len(held_out) > 4000
    assert not train & held_out
    for pool in (NOUNS, ADJECTIVES, NAMES, LISTED):
        assert 0.05 < sum(belongs(word, "held_out") for word in pool) / len(set(pool)) < 0.35


def test_no_row_of_the_training_text_contains_a_word_that_is_held_out() -> None:
    held_out = {word for word in drawn("held_out") if word.isalpha() and len(word) > 2}
    rng, words, text = Random(9), Words(Random(9), "train"), ""
    for _ in range(100):
        text += document(rng, "train", 3000).text
        text += "".join(part for line in drill(words, 400) for part, _ in line)
    assert len(text) > 300_000
    # Random words of two letters meet by chance in passwords and the like.
    assert words_of(text) & held_out == set()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_probe_asks_for_a_turn_and_expects_its_end(category: str) -> None:
    for probe in probes(category, seed=1, count=5):
        assert re.search(r"\(Turn \d+\) \[[A-Z]+\]:$", probe.prompt)
        assert probe.expected.startswith(" ")
        assert probe.expected.endswith(FENCE)
    assert probes(category, seed=1, count=3) == probes(category, seed=1, count=3)


def test_a_drill_marks_only_what_follows_from_the_lines_before() -> None:
    marked = 0
    for seed in range(60):
        text = ""
        for line in facts(Words(Random(seed), "train"), 300):
            for part, follows in line:
                if follows and len(part) > 1 and part != UNKNOWN[:2]:
                    assert part in text or part.strip() in text
                    marked += 1
                text += part
    assert marked > 100


def test_a_drill_of_copies_marks_the_copies() -> None:
    for seed in range(20):
        for (text, asked), (copy, follows) in copies(Words(Random(seed), "train"), 300):
            assert (asked, follows) == (False, True)
            original = [word for word in text.lower().split() if word not in {"-", ">", "->", "|"}]
            assert copy.lower().split() in (original, original[::-1])


def test_the_known_questions_are_many_short_and_each_asked_once() -> None:
    about = [entry for entry in KNOWN if len(entry.questions) > 1]
    assert len(about) >= 80
    assert all(len(entry.answer.encode()) <= 120 and "\n" not in entry.answer for entry in KNOWN)
    questions = [question for entry in KNOWN for question in entry.questions]
    assert len(questions) == len(set(questions)) == len(QUESTIONS)


def test_json_holds_the_two_fields_that_were_asked_for() -> None:
    words = Words(Random(5), "train")
    for _ in range(100):
        exchange = skills.json_fields(words)
        fields = json.loads(exchange.reply)
        assert len(fields) == 2
        assert all(f"{name}" in exchange.text and value in exchange.text for name, value in fields.items())


def test_replies_are_what_the_skill_says() -> None:
    words = Words(Random(4), "train")
    for _ in range(200):
        upper = skills.upper(words)
        assert upper.text.upper().endswith(f": {upper.reply}")
        repeated = skills.repeat(words)
        assert repeated.text.endswith(f" {repeated.reply}")
        reverse = skills.reverse(words)
        items = reverse.text.removeprefix("Reverse: ")
        between = ", " if ", " in items else " "
        assert reverse.reply.split(between) == items.split(between)[::-1]
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


def test_a_fact_comes_back_with_its_key_before_its_value() -> None:
    words = Words(Random(2), "train")
    for _ in range(200):
        fact = new_fact(words)
        assert fact.value in fact.told
        assert fact.recalled.rstrip(".").endswith((fact.value, f"{fact.value} years old"))
        if any(word in fact.asked for word in fact.key.split()):
            assert fact.key in fact.recalled
        assert near(words, fact.key) != ""


def test_only_a_fact_that_was_told_is_recalled() -> None:
    """What a transcript recalls was told in it before, and what is unknown was not."""
    recalled = unknown = 0
    for seed in range(80):
        text = ""
        pieces = document(Random(seed), "train", 2500).pieces
        for said, header, reply in zip(pieces[1::2], pieces[2::2], pieces[3::2], strict=False):
            if reply.value:
                assert reply.value in text
                recalled += 1
            unknown += reply.text == f" {UNKNOWN}{FENCE}"
            text += said.text + header.text
    assert recalled > 200
    assert unknown > 40
