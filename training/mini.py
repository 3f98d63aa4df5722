"""Trains rwkv7-mini: `python -m training.mini --minutes 66 --outdir runs/mini`.

Run again, it goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import click

from models.rwkv7 import Config, State, WeightsError
from training.loop import Settings, Trainer, TrainingError
from training.rwkv7_trainee import Rwkv7Trainee
from training.session import train


def mini_config(layers: int = 5, channels: int = 128) -> Config:
    """The shipped shape by default."""
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
@click.option(
    "--outdir", type=click.Path(path_type=Path), default=Path("runs/mini"), help="checkpoints, weights and log"
)
@click.option("--steps", default=6000, help="length of the run, unless --minutes is given")
@click.option("--minutes", type=float, help="length of the run by the clock")
@click.option("--seed", default=1)
@click.option("--layers", default=5)
@click.option("--channels", default=128, help="a multiple of 64")
@click.option("--lanes", default=8, help="texts read side by side")
@click.option("--window", default=512, help="tokens a lane and step")
@click.option("--rate", default=3e-3, help="learning rate of AdamW")
@click.option("--matrix-rate", default=0.02, help="learning rate of Muon")
@click.option("--cool-down", default=0.58, help="share of the run in which the rates fall")
@click.option("--threads", default=1)
@click.option("--compiled", is_flag=True, help="through torch.compile: needs a C++ compiler, a third faster")
def main(
    outdir: Path,
    steps: int,
    minutes: float | None,
    seed: int,
    layers: int,
    channels: int,
    lanes: int,
    window: int,
    rate: float,
    matrix_rate: float,
    cool_down: float,
    threads: int,
    compiled: bool,
) -> None:
    settings = Settings(
        seed=seed,
        lanes=lanes,
        window=window,
        steps=steps,
        minutes=minutes,
        rate=rate,
        matrix_rate=matrix_rate,
        cool_down=cool_down,
    )

    def make() -> Trainer[State]:
        try:
            trainee = Rwkv7Trainee(mini_config(layers, channels), seed, compiled=compiled)
        except WeightsError as error:
            raise TrainingError(str(error)) from None
        return Trainer(trainee, settings, outdir)

    train(make, outdir, threads)


if __name__ == "__main__":
    main()
