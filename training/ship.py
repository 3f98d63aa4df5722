"""Installs trained weights as rwkv7-mini, in fp16, with their measured rates: `python -m training.ship runs/mini`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from models import mini, rwkv7
from training.evaluate import measure, report


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=200, show_default=True, help="prompts of a category")
@click.option("--seed", default=0, show_default=True)
def main(run: Path, count: int, seed: int) -> None:
    torch.set_num_threads(1)
    tensors = rwkv7.read_tensors(run / "weights.safetensors")
    rwkv7.save({name: tensor.half() for name, tensor in tensors.items()}, mini.path())
    rates = report(measure(rwkv7.load(mini.path()), seed, count))
    content = {"fingerprint": rwkv7.fingerprint(mini.path()), "seed": seed, "rates": rates}
    mini.path().with_name("rates.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
