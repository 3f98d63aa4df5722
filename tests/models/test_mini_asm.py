"""The shipped ASM does what its card says, on a few held-out prompts of some kinds."""

from __future__ import annotations

import json

import pytest

from models import mini, rwkv7
from training.evaluate import rate, report
from training.probes import CATEGORIES, probes
from training.readers import Reader, open_reader

COUNT = 10
SEED = 17  # not the one of asm-rates.json
KINDS = ("answer", "upper", "mode greeter")
SLACK = 0.35  # ten prompts are a small sample


@pytest.fixture(scope="module")
def reader() -> Reader:
    return open_reader(mini.asm_path())


@pytest.fixture(scope="module")
def card() -> dict[str, dict[str, float]]:
    rates: dict[str, dict[str, float]] = json.loads(mini.asm_path().with_name("asm-rates.json").read_text())["rates"]
    return rates


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_what_its_card_says(reader: Reader, card: dict[str, dict[str, float]], kind: str) -> None:
    found = report({kind: rate(reader, probes(kind, SEED, COUNT))})[kind]
    assert found["exact"] >= card[kind]["exact"] - SLACK
    assert found["closed"] >= card[kind]["closed"] - 0.1


def test_the_card_is_of_these_weights(reader: Reader, card: dict[str, dict[str, float]]) -> None:
    content = json.loads(mini.asm_path().with_name("asm-rates.json").read_text())
    assert content["fingerprint"] == rwkv7.fingerprint(mini.asm_path())
    assert set(CATEGORIES) <= set(card)
    assert reader.architecture == "asm"
    assert mini.asm_path().stat().st_size < 4 * 2**20
