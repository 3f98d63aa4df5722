"""Measures a byte-level model by greedy decoding on held-out prompts: `python -m training.evaluate WEIGHTS`.

A prompt ends with the header of the turn that the model should write. A reply is exact if every byte of it and of its
fence is as expected. It is closed if it has a fence.
"""

from __future__ import annotations

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
SOURCE_BYTES = (4000, 40000)


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
    written, fence, open_rows = [b""] * batch, FENCE.encode(), set(range(batch))
    for _ in range(limit):
        chosen = logits.argmax(dim=-1)
        for row in list(open_rows):
            token = int(chosen[row])
            written[row] += tokenizer.piece(token)
            if token == tokenizer.end or written[row].endswith(fence):
                open_rows.remove(row)
        if not open_rows:
            break
        logits, state = reader.read(chosen.unsqueeze(1), state)
    return [text.decode(errors="replace") for text in written]


def rate(reader: Reader, asked: list[Probe], start: Contexts | None = None) -> Rate:
    limit = max(len(probe.expected.encode()) for probe in asked) + SPARE
    return rated(asked, greedy(reader, [probe.prompt for probe in asked], limit, start))


def rated(asked: list[Probe], replies: list[str]) -> Rate:
    """The rate of some probes, given one reply to each."""
    exact = sum(reply == probe.expected for reply, probe in zip(replies, asked, strict=True))
    return Rate(len(asked), exact / len(asked), sum(reply.endswith(FENCE) for reply in replies) / len(asked))


def measure(reader: Reader, seed: int, count: int) -> dict[str, Rate]:
    """Rates of every category, and of some categories after SOURCE_BYTES of real source code."""
    rates = {}
    for name in tqdm(CATEGORIES, unit="category"):
        rates[name] = rate(reader, probes(name, seed, count))
    for size in SOURCE_BYTES:
        start = read(reader, library_source(size))
        for name in AFTER_SOURCE:
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
        asked = probes(name, seed, count)
        replies = greedy(reader, [probe.prompt for probe in asked], SPARE)
        wrong = [(p, reply) for p, reply in zip(asked, replies, strict=True) if reply != p.expected]
        for probe, reply in wrong[:show]:
            click.echo(f"{name}: {probe.prompt[-160:]!r}\n  expected {probe.expected!r}\n  written  {reply!r}")


if __name__ == "__main__":
    main()
