"""The tables of the embedded models' card, written from their measured rates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from training.evaluate import SOURCE_BYTES
from training.probes import AFTER_SOURCE, CATEGORIES

Rates = Mapping[str, Mapping[str, float]]

BARS: dict[str, float] = {
    "echo": 0.97,
    "capitals": 0.95,
    "reverse": 0.90,
    "recall, 0 between": 0.95,
    "recall, 3 between": 0.90,
    "recall, 6 between": 0.85,
    "recall, one of 3": 0.80,
    "unknown, nothing told": 0.95,
    "unknown, another told": 0.80,
    "carry_on": 0.90,
    "json_fields": 0.95,
}
"""The rates that rwkv7-mini should reach: exact replies to held-out prompts."""

NAMES = {
    "echo": "echo of 3 to 8 words",
    "reverse": "order of words reversed",
    "carry_on": "list continued",
    "json_fields": "JSON of two named fields",
    "answer": "known questions",
    "times": "say it n times",
    "pick_word": "first or last word",
    "remark": "any other sentence",
    "not_known": "other questions",
}
KEPT = 0.9  # the share of a bar that should be left after a long text


def after(category: str) -> str:
    return f"{category}, after {SOURCE_BYTES[0]} bytes of source"


def bars(rwkv: Rates, asm: Rates) -> Iterator[str]:
    """What each bar is and what was reached, by rwkv7-mini and by asm-mini."""
    yield "| kind | bar | rwkv7-mini | asm-mini | bar after 40 kB | rwkv7-mini | asm-mini |"
    yield "|---|---|---|---|---|---|---|"
    for category, bar in BARS.items():
        found = [_exact(rates, name) for name in (category, after(category)) for rates in (rwkv, asm)]
        yield _row(NAMES.get(category, category), f"{bar:.2f}", *found[:2], f"{KEPT * bar:.2f}", *found[2:])
    closed = [min(rate["closed"] for name, rate in rates.items() if name in CATEGORIES) for rates in (rwkv, asm)]
    yield _row("fence closed, the worst kind", "1.00", *(f"{rate:.2f}" for rate in closed), "", "", "")


def all_rates(rwkv: Rates, asm: Rates) -> Iterator[str]:
    """The rates of every kind, alone and after a long text."""
    yield "| kind | rwkv7-mini | asm-mini | after 40 kB: rwkv7-mini | asm-mini |"
    yield "|---|---|---|---|---|"
    for category in CATEGORIES:
        names = (category, after(category)) if category in AFTER_SOURCE else (category,)
        found = [_exact(rates, name) for name in names for rates in (rwkv, asm)]
        yield _row(NAMES.get(category, category), *found, *[""] * (4 - len(found)))


TABLES = {"bars": bars, "rates": all_rates}


def update(card: Path, rwkv: Path, asm: Path) -> None:
    """Writes the tables into a card, between the marks `<!-- table: NAME -->` and `<!-- end -->`."""
    found: list[Rates] = [json.loads(path.read_text())["rates"] for path in (rwkv, asm)]
    text = card.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        lines = "\n".join(table(*found))
        text = re.sub(
            rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", rf"\g<1>\n{lines}\n\n\g<2>", text, flags=re.DOTALL
        )
    card.write_text(text, encoding="utf-8")


def _exact(rates: Rates, name: str) -> str:
    return f"{rates[name]['exact']:.2f}" if name in rates else "-"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
