"""Documents of others as a stream of windows."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from models.mini import ByteTokenizer
from training.loop import TrainingError
from training.texts import BUNDLE, text_batches

DOCUMENTS = ["one two", "three", "four five six", "é"]


def test_lanes_read_whole_documents_one_after_the_other() -> None:
    tokenizer = ByteTokenizer()
    found = list(islice(text_batches(lambda: DOCUMENTS, lanes=1, window=4), 16))
    text = b"".join(b"|" if t == tokenizer.end else tokenizer.piece(t) for b in found for t in b.tokens[0].tolist())
    assert ("|".join(DOCUMENTS) + "|").encode() * 2 == text[: 2 * 31]
    for before, after in pairwise(found):
        assert before.targets[0, -1] == after.tokens[0, 0]
        assert (before.targets[0, :-1] == before.tokens[0, 1:]).all()


def test_a_document_goes_to_one_lane() -> None:
    batch = next(text_batches(lambda: ["aaaaaa", "bbbbbb"], lanes=2, window=5))
    assert [row.unique().tolist() for row in batch.tokens] == [[1 + ord("a")], [1 + ord("b")]]


def test_a_lane_begins_anew_now_and_then() -> None:
    fresh = [bool(b.fresh.all()) for b in islice(text_batches(lambda: DOCUMENTS, 2, 4), 2 * BUNDLE)]
    assert fresh == [number % BUNDLE == 0 for number in range(2 * BUNDLE)]


def test_no_document_is_an_error() -> None:
    with pytest.raises(TrainingError, match="too few documents"):
        next(text_batches(list, lanes=1, window=4))
