"""Measures a byte-level model by greedy decoding on held-out prompts: `python -m training.evaluate WEIGHTS`.

A prompt ends with the header of the turn that the model should write. A reply is exact if every byte of it and of its
fence is as expected. It is closed if it has a fence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from models.mini import ByteTokenizer
from training.data import FENCE
from training.loop import TrainingError
from training.probes import AFTER_SOURCE, CATEGORIES, Probe, library_source, probes
from training.readers import Contexts, Reader, open_reader

PREFILL = 1024  # tokens of a shared prefix to read at once
SPARE = 100  # how many bytes longer than expected a reply may be before it counts as not closed
SOURCE_BYTES = (40_000,)
BESIDE = 50  # prompts to answer together


@dataclass(frozen=True, slots=True)
class Rate:
    count: int
    exact: float
    closed: float


def read(reader: Reader, text: str) -> Contexts:
    """The state of one context that has read a text."""
    state = reader.start(1)
    tokens = torch.tensor([ByteTokenizer().encode(text)])
    for part in torch.split(tokens, PREFILL, dim=1):
        _, state = reader.read(part, state)
    return state


def greedy(reader: Reader, prompts: list[str], limit: int, start: Contexts | None = None) -> list[str]:
    """What the model writes after each prompt, up to the end of its fence or `limit` tokens.

    All prompts continue `start` (one context); without it, they begin in an empty context.
    """
    tokenizer, batch = ByteTokenizer(), len(prompts)
    state = reader.start(batch) if start is None else reader.pick(start, [0] * batch)
    encoded = [torch.tensor(tokenizer.encode(prompt)) for prompt in prompts]
    lengths = torch.tensor([len(ids) for ids in encoded])
    tokens = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    logits, state = reader.read(tokens, state, lengths)
    written, fence, rows = (
        [b""] * batch,
        FENCE.encode(),
        list(range(batch)),
    )  # rows: the prompt of each row of the state
    open_rows = set(rows)
    for _ in range(limit):
        chosen = logits.argmax(dim=-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if row in open_rows:
                written[row] += tokenizer.piece(token)
                if token == tokenizer.end or written[row].endswith(fence):
                    open_rows.remove(row)
        if not open_rows:
            break
        if len(open_rows) < 0.75 * len(rows):  # leave out those that have ended
            kept = [at for at, row in enumerate(rows) if row in open_rows]
            state, chosen, rows = reader.pick(state, kept), chosen[kept], [rows[at] for at in kept]
        logits, state = reader.read(chosen.unsqueeze(1), state)
    return [text.decode(errors="replace") for text in written]


def answered(reader: Reader, asked: Iterable[Probe], start: Contexts | None = None) -> dict[Probe, str]:
    """What comes after every prompt. Prompts of about the same length are read together."""
    ordered, replies = sorted(set(asked), key=lambda probe: len(probe.prompt.encode())), list[str]()
    for part in (ordered[at : at + BESIDE] for at in range(0, len(ordered), BESIDE)):
        limit = max(len(probe.expected.encode()) for probe in part) + SPARE
        replies += greedy(reader, [probe.prompt for probe in part], limit, start)
    return dict(zip(ordered, replies, strict=True))


def rate(reader: Reader, asked: list[Probe], start: Contexts | None = None) -> Rate:
    return rated(asked, answered(reader, asked, start))


def rated(asked: list[Probe], replies: Mapping[Probe, str]) -> Rate:
    """The rate of some probes, given the reply to each."""
    found = [(probe, replies[probe]) for probe in asked]
    exact = sum(reply == probe.expected for probe, reply in found)
    return Rate(len(asked), exact / len(asked), sum(reply.endswith(FENCE) for _, reply in found) / len(asked))


def measure(reader: Reader, seed: int, count: int) -> dict[str, Rate]:
    """Rates of every category, and of some categories after SOURCE_BYTES of real source code."""
    rates = {name: rate(reader, probes(name, seed, count)) for name in tqdm(CATEGORIES, unit="category")}
    for size in SOURCE_BYTES:
        start = read(reader, library_source(size))
        for name in tqdm(AFTER_SOURCE, unit="category"):
            rates[f"{name}, after {size} bytes of source"] = rate(reader, probes(name, seed, count), start)
    return rates


def report(rates: dict[str, Rate]) -> dict[str, dict[str, float]]:
    """Rates in the form in which they are written to JSON."""
    return {name: {key: round(value, 4) for key, value in asdict(found).items()} for name, found in rates.items()}


@click.command()
@click.argument("path", metavar="WEIGHTS", type=click.Path(path_type=Path))
@click.option("--count", default=100, show_default=True, help="Prompts of each category.")
@click.option("--seed", default=0, show_default=True)
@click.option("--show", default=0, help="Print this many wrong replies of each category.")
def main(path: Path, count: int, seed: int, show: int) -> None:
    torch.set_num_threads(1)
    try:
        reader = open_reader(path)
    except TrainingError as error:
        raise click.ClickException(str(error)) from None
    for name, found in measure(reader, seed, count).items():
        click.echo(f"{name:46} exact {found.exact:.3f}  closed {found.closed:.3f}  of {found.count}")
    for name in CATEGORIES if show else ():
        wrong = [(p, reply) for p, reply in answered(reader, probes(name, seed, count)).items() if reply != p.expected]
        for probe, reply in wrong[:show]:
            click.echo(f"{name}: {probe.prompt[-160:]!r}\n  expected {probe.expected!r}\n  written  {reply!r}")


if __name__ == "__main__":
    main()
