"""Loads a model from a checkpoint, in either naming scheme. Some tensors may differ; other errors name the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.asm.configuration import ASMTrainConfig
from models.asm.errors import WeightsError
from models.asm.files import read_checkpoint
from models.asm.lm import ASMLanguageModel

LEGACY = (  # patterns of the notebooks' names, and our names
    (r"tok\.weight", "token_emb.weight"),
    (r"pos\.weight", "pos_emb.weight"),
    (r"norm\.(weight|bias)", r"ln_f.\1"),
    (r"blocks\.(\d+)\.norm1\.(.+)", r"blocks.\1.ln_1.\2"),
    (r"blocks\.(\d+)\.norm2\.(.+)", r"blocks.\1.ln_2.\2"),
    (r"blocks\.(\d+)\.asa\.(.+)", r"blocks.\1.attn.\2"),
)
SCALARS = r"attn\.(_alibi_strength_param|_content_read_gamma_raw|_slotspace_gate_raw)"
REFINEMENT = r"attn\.slot_(in|q|k|v|out)\.weight"
MLP_BIAS = r"mlp\.[03]\.bias"
MAY_DIFFER = re.compile(
    rf"pos_emb\.weight|blocks\.\d+\.({SCALARS}|{REFINEMENT}|{MLP_BIAS}|attn\._alibi_slopes|attn\.rope\w*\.inv_freq)"
)
"""Tensors that a checkpoint may lack, or may have although the model doesn't. Any other difference is an error."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in eval mode, and the keys that only the model or only its checkpoint has.

    missing: only the model has them. They are set to 0, so that they have no effect (biases, refinement, positions), or
    keep their initial value (the scalars). unused: only the checkpoint has them.
    """

    model: ASMLanguageModel
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def load_checkpoint(
    path: Path | str,
    *,
    cfg: ASMTrainConfig | Mapping[str, Any] | None = None,
    scan: str | None = None,
    pos_mode: str | None = None,
    variant: str = "baseline",
    device: str | torch.device = "cpu",
    strict: bool = True,
) -> Loaded:
    """Loads a model from our files or the original's. Raises WeightsError, which names the file and the key.

    `cfg` replaces the configuration in the file. `scan` and `pos_mode` override what the configuration says. `scan` is
    required if the file does not name its scan: the original's weights were trained with `chunked:<write_chunk_size>`,
    and no other scan gives their results. `strict=False` ignores tensors and configuration fields that the model does
    not have.
    """
    path = Path(path)
    tensors, found = read_checkpoint(path)
    chosen: dict[str, Any] = {"scan": scan, "pos_mode": pos_mode}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    config = _config(path, found if cfg is None else cfg, chosen, tensors, strict)
    return load_tensors(tensors, config, variant=variant, device=device, strict=strict, source=str(path))


def load_tensors(
    tensors: Mapping[str, Tensor],
    config: ASMTrainConfig,
    *,
    variant: str = "baseline",
    device: str | torch.device = "cpu",
    strict: bool = True,
    source: str = "the state dict",
) -> Loaded:
    """A model with the configuration `config` and these tensors, which may use either naming scheme."""
    given = canonical(tensors, source)
    _check_sizes(given, config, source)
    model = ASMLanguageModel(config, variant)
    expected = model.state_dict()
    if config.tie_weights:
        _tie(given, source)
    missing = sorted(expected.keys() - given.keys())
    unused = sorted(given.keys() - expected.keys())
    for key in missing:
        if not MAY_DIFFER.fullmatch(key):
            raise WeightsError(f"{source}: the tensor {key} of shape {list(expected[key].shape)} is missing")
    for key in unused:
        if strict and not MAY_DIFFER.fullmatch(key):
            raise WeightsError(f"{source}: the model has no tensor {key}")
    _whole_refinements(missing, expected, source)
    final: dict[str, Tensor] = {}
    for key, tensor in expected.items():
        if key in given:
            final[key] = _fitting(given[key], tensor, f"{source}: {key}")
        else:
            final[key] = tensor if re.search(SCALARS, key) else torch.zeros_like(tensor)
    model.load_state_dict(final)
    return Loaded(model.eval().to(device), tuple(missing), tuple(unused))


def canonical(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under our names."""
    named: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("module.")
        for pattern, ours in LEGACY:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, ours, name)
                break
        if name in named:
            raise WeightsError(f"{source}: two of its tensors map to {name}; one of them is {key}")
        named[name] = tensor
    return named


def _config(
    path: Path,
    given: ASMTrainConfig | Mapping[str, Any] | None,
    chosen: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    strict: bool,
) -> ASMTrainConfig:
    if given is None:
        raise WeightsError(
            f"{path}: neither the file nor a config.json beside it has the model's configuration: pass cfg"
        )
    if isinstance(given, ASMTrainConfig):
        return replace(given, **chosen)
    options = {**given, **chosen}
    if "scan" not in options:
        size = options.get("write_chunk_size", ASMTrainConfig().write_chunk_size)
        raise WeightsError(
            f'{path}: its configuration does not name the scan: set scan = "chunked:{size}" for weights of the '
            'original, or scan = "exact" for weights that were trained with the exact formula'
        )
    # The notebooks' models have no MLP biases, and their configuration does not say so.
    options.setdefault("mlp_bias", any(re.search(MLP_BIAS, key) for key in tensors))
    try:
        return ASMTrainConfig.from_mapping(options, strict=strict)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _check_sizes(given: Mapping[str, Tensor], config: ASMTrainConfig, source: str) -> None:
    """Runs before the model is built, because a configuration of another model may need any amount of memory."""
    c = config
    shapes = {
        "token_emb.weight": (c.vocab_size, c.embed_dim),
        "pos_emb.weight": (c.max_seq_len, c.embed_dim) if c.use_abs_pos else None,
        "blocks.0.attn.slot_keys": (c.num_heads, c.num_slots, c.embed_dim // c.num_heads),
        "blocks.0.attn.slot_in.weight": (c.slotspace_dim, c.num_slots) if c.use_slotspace_refine else None,
        "blocks.0.mlp.0.weight": (int(c.embed_dim * c.mlp_ratio), c.embed_dim),
    }
    for key, shape in shapes.items():
        if shape is not None and key in given and given[key].shape != shape:
            raise WeightsError(f"{source}: {key} should have shape {list(shape)}, found {list(given[key].shape)}")
    blocks = {key.split(".")[1] for key in given if key.startswith("blocks.")}
    if len(blocks) < c.num_layers:
        raise WeightsError(f"{source}: num_layers is {c.num_layers}, but there are tensors for {len(blocks)} blocks")


def _tie(given: dict[str, Tensor], source: str) -> None:
    """Tied weights may be stored once or twice. If they are stored twice, both must be equal."""
    if "token_emb.weight" not in given:
        return
    head = given.setdefault("lm_head.weight", given["token_emb.weight"])
    if not torch.equal(head, given["token_emb.weight"]):
        raise WeightsError(f"{source}: lm_head.weight differs from token_emb.weight, but tie_weights is on")


def _whole_refinements(missing: list[str], expected: Mapping[str, Tensor], source: str) -> None:
    """A layer's whole refinement may be missing. If only a part of it is missing, the file is broken."""
    absent = {key for key in missing if re.search(REFINEMENT, key)}
    for key in sorted(absent):
        block = key.split("attn.")[0]
        if any(other.startswith(block) and re.search(REFINEMENT, other) for other in expected.keys() - absent):
            raise WeightsError(f"{source}: the tensor {key} is missing, while others of this refinement are there")


def _fitting(found: Tensor, expected: Tensor, what: str) -> Tensor:
    if found.shape != expected.shape and not found.numel() == expected.numel() == 1:
        raise WeightsError(f"{what} should have shape {list(expected.shape)}, found {list(found.shape)}")
    if not found.is_floating_point():
        raise WeightsError(f"{what} should hold floating point numbers, found {found.dtype}")
    if not bool(torch.isfinite(found).all()):
        count = int((~torch.isfinite(found)).sum())
        raise WeightsError(f"{what} holds {count} values that are NaN or infinite")
    return found.reshape(expected.shape)
