"""Trains on other text: documents of a Hugging Face dataset, read as bytes. Every byte has the same loss weight."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import count
from typing import Any

import torch

from models.mini import ByteTokenizer
from training.data import Batch
from training.loop import TrainingError
from training.words import Split

HELD_OUT_EVERY = 20  # documents
BUNDLE = 32  # windows that a lane reads before its state is reset


class HubTexts:
    """The training split of a dataset, opened once. Raises TrainingError, which says what is missing."""

    def __init__(self, name: str, config: str | None, column: str) -> None:
        if find_spec("datasets") is None:
            raise TrainingError("--dataset needs the package datasets: pip install 'ssmprov[asm-data]'")
        self.name, self.column = name, column
        library: Any = importlib.import_module("datasets")
        try:
            self.rows: Iterable[dict[str, Any]] = library.load_dataset(name, config, split="train")
        except Exception as error:  # whatever the network, the hub and the file formats raise
            detail = (str(error).strip() or repr(error)).splitlines()[0]
            raise TrainingError(f"the dataset {name!r} cannot be loaded ({detail})") from error

    def of(self, split: Split) -> Iterator[str]:
        """The documents of a split that are not empty. Every twentieth is held out."""
        number = 0
        for row in self.rows:
            text = row.get(self.column)
            if not isinstance(text, str):
                raise TrainingError(
                    f"the dataset {self.name!r} has no text in the column {self.column!r}; its columns are "
                    f"{', '.join(row)}"
                )
            if text.strip():
                number += 1
                if (number % HELD_OUT_EVERY == 0) == (split == "held_out"):
                    yield text


def text_batches(texts: Callable[[], Iterable[str]], lanes: int, window: int) -> Iterator[Batch]:
    """An endless stream of documents, with the end of text between them. A lane takes the next one when its last ends.

    `texts` returns all documents from the beginning at each call. Raises TrainingError if there are none.
    """
    documents = _endless(texts)
    rests = [list[int]() for _ in range(lanes)]
    for number in count():
        for rest in rests:
            while len(rest) < window + 1:
                rest += [*ByteTokenizer().encode(next(documents)), ByteTokenizer.end]
        tokens = torch.tensor([rest[: window + 1] for rest in rests])
        for rest in rests:
            del rest[:window]
        fresh = torch.full((lanes,), number % BUNDLE == 0)
        yield Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(lanes, window), fresh)


def _endless(texts: Callable[[], Iterable[str]]) -> Iterator[str]:
    while True:
        empty = True
        for text in texts():
            empty = False
            yield text
        if empty:
            raise TrainingError("the dataset has too few documents: training needs some, and the held-out split too")
