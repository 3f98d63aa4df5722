"""Tries out the model: `python -m research.asm.smoke --device cpu --seed 0 --outdir runs/smoke`.

All variants, with both scans, read a text at once and token by token. Then it runs one training step. Takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from models.asm.attention import VARIANTS
from models.asm.lm import ASMLanguageModel, build_model_from_cfg
from models.asm.loading import load_checkpoint
from models.asm.state import State
from research.asm.entry import common_options, one_line_errors, write_json

TINY: dict[str, Any] = {
    "vocab_size": 257,
    "embed_dim": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_slots": 8,
    "slotspace_dim": 8,
    "max_seq_len": 64,
}
SCANS = ("exact", "chunked:8")
BATCH, LENGTH = 2, 24  # three write chunks
TOLERANCE = 1e-4
"""How much logits may differ between two ways to compute them in fp32, relative to the largest one (at least 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One variant with one scan. `steps_differ`: the largest difference of a logit, token by token against at once."""

    variant: str
    scan: str
    logits: list[int]
    state_bytes: int
    steps_differ: float


@dataclass(frozen=True, slots=True)
class Training:
    """One step of AdamW. `gradients` counts the tensors that have a gradient."""

    loss: float
    loss_after: float
    gradient_norm: float
    gradients: int


class NotFinite(Exception):
    """A tensor has NaN or infinite values. The message names it."""


@click.command("smoke")
@common_options("runs/smoke")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Try this model instead of a tiny new one.",
)
@one_line_errors
def main(device: torch.device, seed: int, outdir: Path, checkpoint: Path | None) -> None:
    """Try out an Addressed State Model: read, step, resume and train one step. Check shapes and finite numbers."""
    outdir.mkdir(parents=True, exist_ok=True)
    model = _model("baseline", SCANS[0], seed, checkpoint, device)
    config, parameters = model.config, sum(parameter.numel() for parameter in model.parameters())
    source = f"freshly initialised from seed {seed}" if checkpoint is None else str(checkpoint)
    click.echo(
        f"{source}: {config.num_layers} layers, {config.embed_dim} channels, {config.num_heads} heads, "
        f"{config.num_slots} slots, {parameters:,} parameters, on {device}"
    )
    torch.manual_seed(seed)
    tokens = torch.randint(config.vocab_size, (BATCH, min(LENGTH, config.max_seq_len))).to(device)
    try:
        readings = _readings(tokens, seed, checkpoint)
        torch.manual_seed(seed)  # for dropout
        training = train_step(_model("online", SCANS[0], seed, checkpoint, device), tokens)
    except NotFinite as error:
        raise click.ClickException(f"NaN or infinite values: {error}") from None
    click.echo(
        f"training step: loss {training.loss:.4f}, then {training.loss_after:.4f}; gradients of "
        f"{training.gradients} tensors finite, norm {training.gradient_norm:.4f}"
    )
    path = outdir / "smoke.json"
    content = {"model": source, "parameters": parameters, "seed": seed, "device": str(device)}
    found = {"readings": [asdict(one) for one in readings], "training": asdict(training)}
    write_json(path, content | found)
    click.echo(f"written to {path}")


def _readings(tokens: Tensor, seed: int, checkpoint: Path | None) -> list[Reading]:
    found = []
    for scan in SCANS:
        first: Tensor | None = None
        for variant in VARIANTS:
            model = _model(variant, scan, seed, checkpoint, tokens.device)
            logits, one = read(model, tokens)
            first = logits if first is None else first
            _agree(logits, first, f"the logits of the variants baseline and {variant}, scan {scan}")
            click.echo(
                f"{variant:9} {scan:9} logits {'x'.join(map(str, one.logits))}, state {one.state_bytes:,} bytes per "
                f"context, finite; token by token differs by {one.steps_differ:.1e}"
            )
            found.append(one)
    return found


def _model(variant: str, scan: str, seed: int, checkpoint: Path | None, device: torch.device) -> ASMLanguageModel:
    """A model in eval mode. Every variant and scan gets the same weights."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint, scan=scan, variant=variant, device=device).model
    torch.manual_seed(seed)
    return build_model_from_cfg({**TINY, "scan": scan}, variant).eval().to(device)


@torch.no_grad()
def read(model: ASMLanguageModel, tokens: Tensor) -> tuple[Tensor, Reading]:
    """Logits [B,T,V] of tokens [B,T], read at once.

    Raises NotFinite, and ClickException if reading token by token gives other logits.
    """
    where = f"variant {model.variant}, scan {model.config.attention().scan_name}"
    logits, state = model(tokens)
    _finite([("the logits", logits), *_tensors(state)], where)
    stepped, carried = [], None
    for t in range(tokens.shape[1]):
        out, carried = model(tokens[:, t : t + 1], carried)
        if t == tokens.shape[1] // 2:
            carried = carried.pick(range(len(tokens)))  # a copy, as if it had been saved and loaded
        stepped.append(out)
    difference = _agree(torch.cat(stepped, dim=1), logits, f"the logits token by token and at once, {where}")
    size = sum(tensor.nbytes for _, tensor in state.memory.items()) // state.batch
    return logits, Reading(
        variant=model.variant, scan=state.scan, logits=list(logits.shape), state_bytes=size, steps_differ=difference
    )


def train_step(model: ASMLanguageModel, tokens: Tensor) -> Training:
    """One step of AdamW on tokens [B,T]; each predicts the next one. Raises NotFinite."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = _loss(model, tokens)
    _finite([("the loss", loss)], "training step")
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [(f"the gradient of {name}", p.grad) for name, p in model.named_parameters() if p.grad is not None]
    _finite(gradients, "training step")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    after = _loss(model, tokens)
    _finite([("the loss after it", after)], "training step")
    return Training(loss.item(), after.item(), norm.item(), len(gradients))


def _loss(model: ASMLanguageModel, tokens: Tensor) -> Tensor:
    logits, _ = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _tensors(state: State) -> list[tuple[str, Tensor]]:
    return [(f"the state's {name}", tensor) for name, tensor in state.memory.items()]


def _finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    for name, tensor in tensors:
        if not bool(tensor.isfinite().all()):
            raise NotFinite(f"{name}, {where}")


def _agree(found: Tensor, expected: Tensor, what: str) -> float:
    """The largest difference. Raises ClickException if it is too large for rounding."""
    difference = float((found - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:  # also true for NaN
        raise click.ClickException(f"{what} differ by {difference:.1e}; rounding alone gives at most {allowed:.1e}")
    return difference


if __name__ == "__main__":
    main()
