"""Installs trained weights as a shipped model, in fp16, with their measured rates: `python -m training.ship runs/mini`.

It also writes the tables of the card.

The file itself shows which of the two models it contains, rwkv7-mini or asm-mini.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from models import asm, mini, rwkv7
from training import card
from training.evaluate import measure, report
from training.loop import TrainingError
from training.readers import open_reader


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--count", default=100, help="Prompts of each category.")
@click.option("--seed", default=0)
@click.option(
    "--into",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory to use instead of models/mini.",
)
def main(run: Path, count: int, seed: int, into: Path | None) -> None:
    torch.set_num_threads(1)
    try:
        source = run / "weights.safetensors"
        architecture = open_reader(source).architecture
        target, rates = (mini.asm_path(), "asm-rates.json") if architecture == "asm" else (mini.path(), "rates.json")
        target = target if into is None else into / target.name
        install(source, target)
        found = report(measure(open_reader(target), seed, count))
    except TrainingError as error:
        raise click.ClickException(str(error)) from None
    content = {"fingerprint": rwkv7.fingerprint(target), "seed": seed, "rates": found}
    target.with_name(rates).write_text(json.dumps(content, indent=1) + "\n")
    if into is None:
        card.update(*(target.with_name(name) for name in ("README.md", "rates.json", "asm-rates.json")))
    click.echo(f"{target}: {target.stat().st_size} bytes")


def install(source: Path, target: Path) -> None:
    """Writes the weights of a run in fp16, replacing the file as a whole. An ASM's file includes its configuration."""
    tensors, config = asm.read_checkpoint(source)
    metadata = {"cfg": json.dumps(config)} if config is not None else None
    rwkv7.save({name: tensor.half() for name, tensor in tensors.items()}, target, metadata=metadata)


if __name__ == "__main__":
    main()
