"""Looks inside a model: `python -m research.asm.probe --device cpu --seed 0 --outdir runs/probes`.

It measures the Paris margin, compares the steering of routing and residual, and knocks out slots. Results are text,
JSON and a plot. It computes in fp64 (on mps, which has no fp64, in fp32), because the differences are small.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from models.asm.lm import ASMLanguageModel, build_model_from_cfg
from models.asm.loading import load_checkpoint
from research.asm.entry import common_options, one_line_errors, write_json
from research.asm.probing import plot
from research.asm.probing.knockout import knock_outs
from research.asm.probing.prompts import texts
from research.asm.probing.reading import next_tokens, read_prompts, summary
from research.asm.probing.steering import compare
from research.asm.probing.wording import BYTES, Wording, wording_for

FRESH: dict[str, Any] = {
    "vocab_size": BYTES,
    "embed_dim": 64,
    "num_layers": 4,
    "num_heads": 4,
    "num_slots": 16,
    "slotspace_dim": 16,
}
SIDES = {"routing": "routing", "residual": "residual", "residual_frozen": "residual, routing frozen"}


@click.command("probe")
@common_options("runs/probes")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The model file (default: asm-mini if it is installed, else a new model).",
)
@click.option(
    "--fresh", is_flag=True, help="Use a new, untrained model, to see what the measures show without training."
)
@click.option("--scan", metavar="exact|chunked:N", help="The scan to use if the checkpoint does not name one.")
@click.option(
    "--layer", type=click.IntRange(min=0), help="The layer to steer, counted from 0 (default: the middle one)."
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Directory with GPT-2's vocab.json and merges.txt, for a model with that vocabulary.",
)
@one_line_errors
def main(
    device: torch.device,
    seed: int,
    outdir: Path,
    checkpoint: Path | None,
    fresh: bool,
    scan: str | None,
    layer: int | None,
    tokenizer: Path | None,
) -> None:
    """Measure the Paris margin of an Addressed State Model, steer its routing and residual, and knock out slots."""
    outdir.mkdir(parents=True, exist_ok=True)
    if checkpoint is None and scan is not None:
        raise click.UsageError("--scan needs a --checkpoint")
    if checkpoint is not None and fresh:
        raise click.UsageError("give --checkpoint or --fresh, not both")
    model, source = _model(None if fresh else checkpoint or _shipped(), scan, seed)
    layers = model.config.num_layers
    if layer is None:
        layer = layers // 2
    elif layer >= layers:
        raise click.BadParameter(f"the model has {layers} layers, 0 to {layers - 1}", param_hint="--layer")
    wording = wording_for(model.config.vocab_size, tokenizer)
    model = model.to(device, torch.float32 if device.type == "mps" else torch.float64)
    found = {"model": _described(model, source), "seed": seed, "device": str(device)} | probe(model, wording, layer)
    click.echo(report(found))
    written = outdir / "probe.json"
    write_json(written, found)
    drawn = outdir / "probe.png"
    click.echo(f"written to {written}")
    click.echo(f"drawn in {drawn}" if plot.draw(found, drawn) else plot.MISSING)


def probe(model: ASMLanguageModel, wording: Wording, layer: int) -> dict[str, Any]:
    """All measures of a baseline model in eval mode: the content of `probe.json`."""

    def margin(logs: Tensor) -> Tensor:
        return logs[:, wording.better] - logs[:, wording.worse]

    asked = texts()
    prompts = read_prompts(model, [wording.encode(text) for _, text in asked])
    margins: list[float] = margin(next_tokens(model, prompts)).tolist()
    controls = [value for value, (group, _) in zip(margins, asked, strict=True) if group == "control"]
    others = [value for value, (group, _) in zip(margins, asked, strict=True) if group != "control"]
    return {
        "margin": {
            "measure": wording.measure,
            "proxy": wording.proxy,
            "prompts": [
                {"group": group, "text": text, "margin": value}
                for (group, text), value in zip(asked, margins, strict=True)
            ],
            "all": summary(margins),
            "without_controls": summary(others),
            "controls": summary(controls),
        },
        "steering": asdict(compare(model, prompts, layer, margin)),
        "knock_out": [asdict(one) for one in knock_outs(model, prompts)],
    }


def report(found: dict[str, Any]) -> str:
    """The findings as text."""
    model, margin, steering = found["model"], found["margin"], found["steering"]
    lines = [
        f"{model['source']}: {model['layers']} layers, {model['slots']} slots, {model['parameters']:,} parameters, "
        f"scan {model['scan']}",
        f"Paris margin{', a proxy' if margin['proxy'] else ''}: {margin['measure']}",
    ]
    if margin["proxy"]:
        lines.append("  (the margin itself needs GPT-2's vocabulary, --tokenizer, and a model trained with it)")
    for name in ("all", "without_controls", "controls"):
        numbers = "  ".join(f"{key} {value:+.4f}" for key, value in margin[name].items())
        lines.append(f"  {name.replace('_', ' '):17} {numbers}")
    lines.append(f"steering at layer {steering['layer']}, mean margin (unforced {steering['unforced']:+.6f}):")
    lines.append(f"  {'step':25} {'  '.join(f'{eps:9.2f}' for eps in steering['sweep'])}")
    for name, label in SIDES.items():
        values = "  ".join(f"{value:+9.6f}" for value in steering[name]["margins"])
        lines.append(f"  {label:25} {values}  slope {steering[name]['slope']:.4g}")
    lines.append("slots masked, mean KL of the next token in nats:")
    if not found["knock_out"]:
        lines.append("  left out because the model has only one slot")
    for one in found["knock_out"]:
        parts = (
            f"{name} used ({', '.join(map(str, one[name]))}) {one[f'{name}_kl']:.3g}" for name in ("most", "least")
        )
        lines.append(f"  layer {one['layer']}: {', '.join(parts)}")
    return "\n".join(lines)


def _model(path: Path | None, scan: str | None, seed: int) -> tuple[ASMLanguageModel, str]:
    """A baseline model on the CPU, and a text that says where it comes from."""
    if path is not None:
        return load_checkpoint(path, scan=scan).model, "asm-mini" if path == _shipped() else str(path)
    torch.manual_seed(seed)
    return build_model_from_cfg(FRESH).eval(), f"freshly initialised from seed {seed}, untrained"


def _shipped() -> Path | None:
    """The path of asm-mini's weights, or None if they are not installed."""
    from models import mini

    path = mini.path().with_name("asm-mini.safetensors")
    return path if path.is_file() else None


def _described(model: ASMLanguageModel, source: str) -> dict[str, Any]:
    config = model.config
    return {
        "source": source,
        "layers": config.num_layers,
        "channels": config.embed_dim,
        "heads": config.num_heads,
        "slots": config.num_slots,
        "slotspace_dim": config.slotspace_dim,
        "vocabulary": config.vocab_size,
        "scan": config.attention().scan_name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


if __name__ == "__main__":
    main()
