"""Trains rwkv7-mini: `python -m training.mini --minutes 66 --outdir runs/mini`.

If you run it again, it continues from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import click

from models.rwkv7 import Config, State, WeightsError
from training.loop import Settings, Trainer, TrainingError
from training.options import FILE, run_options
from training.rwkv7_trainee import Rwkv7Trainee
from training.session import train


def mini_config(layers: int = 5, channels: int = 128) -> Config:
    """The shape of a model; the default is that of rwkv7-mini."""
    return Config(
        layers=layers,
        channels=channels,
        head_size=64,
        vocabulary=257,
        ffn=4 * channels,
        rank_w=32,
        rank_a=32,
        rank_v=32,
        rank_g=64,
    )


@click.command(context_settings={"show_default": True})
@run_options(outdir="runs/mini", steps=6000, lanes=8, window=512)
@click.option("--weights", type=FILE, help="Weights to start from. They also determine the shape.")
@click.option("--layers", default=5)
@click.option("--channels", default=128, help="Channels of the model, a multiple of 64.")
def main(
    *,
    settings: Settings,
    outdir: Path,
    weights: Path | None,
    layers: int,
    channels: int,
    threads: int,
    compiled: bool,
) -> None:
    def make() -> Trainer[State]:
        try:
            if weights is not None:
                trainee = Rwkv7Trainee.from_file(weights, compiled=compiled)
            else:
                trainee = Rwkv7Trainee(mini_config(layers, channels), settings.seed, compiled=compiled)
        except WeightsError as error:
            raise TrainingError(str(error)) from None
        return Trainer(trainee, settings, outdir)

    train(make, outdir, threads)


if __name__ == "__main__":
    main()
