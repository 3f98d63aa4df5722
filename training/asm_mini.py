"""Trains a small Addressed State Model on a CPU: `python -m training.asm_mini`.

If you run it again, it continues from its last checkpoint. It writes `checkpoint.pth`, `weights.safetensors`,
`losses.json`, `losses.png` and `training.log`. The weights file contains the configuration, so
`models.asm.load_checkpoint` needs nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from models.asm import ASMError, ASMTrainConfig, State
from training import plot
from training.asm_trainee import ASMTrainee
from training.data import batches
from training.loop import Settings, Stream, Trainer, TrainingError
from training.options import COUNT, FILE, POSITIVE, run_options, usable_device
from training.session import train
from training.texts import HubTexts, text_batches

ROPE = ("none", "keys", "refinement", "both")
STRENGTHS = (4.0, 0.5)


def asm_mini_config(*, rope: str = "none", **sizes: float) -> ASMTrainConfig:
    """The shape of asm-mini, which `sizes` can change: byte tokens, no limit on positions, no dropout.

    Keys have length one and the write logits a low temperature. So logits stay in a range in which fp32 sums are
    accurate, and a slot can still be dominated by a few tokens. Raises ConfigError.
    """
    config = ASMTrainConfig(
        vocab_size=257,
        embed_dim=128,
        num_layers=6,
        num_heads=8,
        num_slots=16,
        slotspace_dim=32,
        dropout=0.0,
        slot_dropout=0.0,
        slotspace_dropout=0.0,
        content_read_init=0.0,
        slotspace_gate_init=-1.0,
        normalize_k=True,
        write_temperature=1 / 16,
        read_temperature=0.5,
        use_rope_keys=rope in ("keys", "both"),
        use_rope_slotspace=rope in ("refinement", "both"),
        max_seq_len=2048,
        pos_mode="cyclic",
        scan="exact",
        tag="asm-mini",
    )
    return replace(config, **sizes)  # type: ignore[arg-type]


@click.command(context_settings={"show_default": True})
@run_options(outdir="runs/asm-mini", steps=300, lanes=4, window=256)
@click.option("--weights", type=FILE, help="Weights to start from. They also determine the shape.")
@click.option("--device", default="cpu", callback=usable_device, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--dataset",
    help="A Hugging Face dataset or a directory of texts instead of the composed text. Needs the extra asm-data.",
)
@click.option("--dataset-config", help="Configuration of the dataset, such as wikitext-2-raw-v1.")
@click.option("--text-column", default="text", help="Column of the dataset that holds the text.")
@click.option("--layers", type=COUNT, default=6, help="Number of layers.")
@click.option("--channels", type=COUNT, default=128, help="Width of a layer.")
@click.option("--heads", type=COUNT, default=8, help="Heads per layer.")
@click.option("--slots", type=COUNT, default=16, help="Slots per head.")
@click.option("--slotspace", type=COUNT, default=32, help="Width of the refinement.")
@click.option(
    "--strengths",
    nargs=2,
    type=POSITIVE,
    default=STRENGTHS,
    help="Initial strength of recency in the lowest and in the highest layer.",
)
@click.option("--rope", type=click.Choice(ROPE), default="none", help="What to rotate by position (RoPE).")
@click.option("--write-temperature", type=POSITIVE, default=1 / 16, help="Temperature of the write weights.")
@click.option("--read-temperature", type=POSITIVE, default=0.5, help="Temperature of the read weights.")
def main(
    *,
    settings: Settings,
    outdir: Path,
    weights: Path | None,
    device: torch.device,
    dataset: str | None,
    dataset_config: str | None,
    text_column: str,
    layers: int,
    channels: int,
    heads: int,
    slots: int,
    slotspace: int,
    strengths: tuple[float, float],
    rope: str,
    write_temperature: float,
    read_temperature: float,
    threads: int,
    compiled: bool,
) -> None:
    """Train a small Addressed State Model over bytes, on the text that comes with the project or on a dataset.

    Ctrl-C stops it and saves a checkpoint. If you run it again, it continues from its last checkpoint.
    """

    def trainee() -> ASMTrainee:
        if weights is not None:
            return ASMTrainee.from_file(weights, device=device, compiled=compiled)
        config = asm_mini_config(
            rope=rope,
            num_layers=layers,
            embed_dim=channels,
            num_heads=heads,
            num_slots=slots,
            slotspace_dim=slotspace,
            write_temperature=write_temperature,
            read_temperature=read_temperature,
        )
        return ASMTrainee(config, settings.seed, strengths=strengths, device=device, compiled=compiled)

    def make() -> Trainer[State]:
        try:
            return Trainer(trainee(), settings, outdir, stream_of(settings, dataset, dataset_config, text_column))
        except ASMError as error:
            raise TrainingError(str(error)) from None

    trainer = train(make, outdir, threads)
    if not plot.draw_losses({"asm": trainer.curve}, outdir / "losses.png"):
        click.echo(plot.MISSING)
    last = trainer.curve[-1]
    click.echo(f"step {last.step}: loss {last.loss:.4f}, held out {last.held_out:.4f} nats per byte; see {outdir}")


def stream_of(settings: Settings, dataset: str | None, dataset_config: str | None, column: str) -> Stream:
    """The composed text, or the text of a dataset. Raises TrainingError."""
    if dataset is None:
        return lambda split: batches(settings.seed, split, settings.lanes, settings.window)
    texts = HubTexts(dataset, dataset_config, column)
    return lambda split: text_batches(lambda: texts.of(split), settings.lanes, settings.window)


if __name__ == "__main__":
    main()
