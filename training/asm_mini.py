"""Trains a small ASM on a CPU: `python -m training.asm_mini`. Run again, it goes on from its last checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

import click
import torch

from models.asm import ASMTrainConfig
from training.asm_trainee import ASMTrainee
from training.loop import Settings, Trainer


def asm_mini_config(
    layers: int = 6, channels: int = 128, heads: int = 4, slots: int = 32, slotspace: int = 32, strength: float = 4.0
) -> ASMTrainConfig:
    """The shape of asm-mini by default: over bytes, positions without an end, no dropout."""
    return ASMTrainConfig(
        vocab_size=257,
        embed_dim=channels,
        num_layers=layers,
        num_heads=heads,
        num_slots=slots,
        slotspace_dim=slotspace,
        dropout=0.0,
        slot_dropout=0.0,
        slotspace_dropout=0.0,
        alibi_strength_init=strength,
        content_read_init=0.0,
        slotspace_gate_init=-1.0,
        max_seq_len=2048,
        pos_mode="cyclic",
        scan="exact",
        tag="asm-mini",
    )


@click.command(context_settings={"show_default": True})
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("runs/asm-mini"))
@click.option("--steps", default=300)
@click.option("--minutes", type=float)
@click.option("--seed", default=1)
@click.option("--layers", default=6)
@click.option("--channels", default=128)
@click.option("--heads", default=4)
@click.option("--slots", default=32)
@click.option("--slotspace", default=32)
@click.option("--strength", default=4.0)
@click.option("--lanes", default=8)
@click.option("--window", default=512)
@click.option("--rate", default=3e-3)
@click.option("--matrix-rate", default=0.02)
@click.option("--cool-down", default=0.58)
@click.option("--threads", default=1)
@click.option("--compiled", is_flag=True)
def main(
    outdir: Path, steps: int, minutes: float | None, seed: int, layers: int, channels: int, heads: int, slots: int,
    slotspace: int, strength: float, lanes: int, window: int, rate: float, matrix_rate: float, cool_down: float,
    threads: int, compiled: bool,
) -> None:  # fmt: skip
    torch.set_num_threads(threads)
    outdir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", filename=outdir / "training.log", datefmt="%H:%M:%S"
    )
    settings = Settings(
        seed=seed, lanes=lanes, window=window, steps=steps, minutes=minutes, rate=rate, matrix_rate=matrix_rate,
        cool_down=cool_down,
    )  # fmt: skip
    config = asm_mini_config(layers, channels, heads, slots, slotspace, strength)
    logging.getLogger("training").info("%s %s", config, settings)
    trainer = Trainer(ASMTrainee(config, seed, compiled=compiled), settings, outdir)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
