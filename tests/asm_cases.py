"""The golden cases, tiny models, and the layer once more, token by token, in float64."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from models.asm import AddressedStateAttention, ASMLanguageModel, ASMTrainConfig, AttentionConfig, build_model_from_cfg
from models.asm.attention import AttentionLayer, attention_class

NAMED = {
    "@slots": "mask.slots",
    "@right_pad": "mask.right_pad",
    "@routing": "routing.weights",
    "@head_mask": "mask.heads",
}
NO_DROPOUT = {"dropout": 0.0, "slot_dropout": 0.0, "slotspace_dropout": 0.0}
TINY = {"embed_dim": 16, "num_heads": 2, "num_slots": 5, "slotspace_dim": 6, "max_seq_len": 256} | NO_DROPOUT


@functools.cache
def golden() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and all tensors."""
    with safe_open(Path(__file__).parent / "models" / "asm" / "asa_golden.safetensors", "pt") as file:
        return json.loads(file.metadata()["manifest"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """A case's options, tensors in place of their names."""
    tensors = golden()[1]
    return {k: tensors[NAMED[v]] if isinstance(v, str) and v in NAMED else v for k, v in values.items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in golden()[1].items() if key.startswith(prefix)}


def golden_layer(case: Mapping[str, Any], chunk: int, scan: str) -> AttentionLayer:
    """The layer of a case with its weights and attributes."""
    options = golden()[0]["layer_defaults"] | given(case["config"])
    layer = attention_class(case["variant"])(**options, write_chunk_size=chunk, scan=scan).eval()
    weights = prefixed(case["weights"])
    layer.load_state_dict({key: weights[key] for key in weights.keys() - set(case["unused_weights"])})
    for name, value in given(case["attributes"]).items():
        setattr(layer, name, value)
    return layer


def wide(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter random and large enough that each part shows in the output; gates open."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(0.3)
            elif "norm" not in name and "ln_" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (1.0 if "slot_keys" in name else 1.5 / math.sqrt(parameter.shape[-1])))
    return module.eval()


def tiny_layer(variant: str = "baseline", **options: Any) -> AttentionLayer:
    layer = attention_class(variant)(**{**TINY, **options})
    wide(layer)
    return layer


def tiny_model(variant: str = "baseline", **options: Any) -> ASMLanguageModel:
    model = build_model_from_cfg({**TINY, "vocab_size": 31, "num_layers": 2, **options}, variant)
    wide(model)
    return model


def tiny_config(**options: Any) -> ASMTrainConfig:
    return ASMTrainConfig.from_mapping({**TINY, "vocab_size": 31, "num_layers": 2, **options})


def inputs(batch: int, length: int, channels: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, channels, generator=torch.Generator().manual_seed(seed))


def by_recurrence(layer: AddressedStateAttention, x: Tensor) -> Tensor:
    """y [B,T,C] by the definition, one token after another, in float64, ALiBi at its absolute position."""
    c: AttentionConfig = layer.config
    w = {name: tensor.double() for name, tensor in layer.state_dict().items()}
    batch, length, _ = x.shape
    heads, slots, size, width = c.num_heads, c.num_slots, c.head_dim, c.slotspace_dim
    softplus = torch.nn.functional.softplus
    decay = torch.tensor([2.0 ** (-8 / heads * (h + 1)) for h in range(heads)]).double()  # heads: a power of two
    decay = decay * softplus(w["_alibi_strength_param"])
    gamma = softplus(w["_content_read_gamma_raw"]).clamp(max=c.content_read_max_gamma)
    m = torch.full((batch, heads, slots), -torch.inf).double()
    den, num = torch.zeros_like(m), torch.zeros(batch, heads, slots, size).double()
    s, z = torch.zeros(batch, heads, width, width).double(), torch.zeros(batch, heads, width).double()
    found = []
    for t in range(length):
        position = t % c.max_seq_len if c.pos_mode == "cyclic" and c.max_seq_len else t
        k, v, q = (
            (x[:, t].double() @ w[f"{name}.weight"].T).view(batch, heads, size)
            for name in ("Wk_write", "Wv_write", "Wq_read")
        )
        k = turned(k, position, c.rope_base)
        logit = torch.einsum("hsd,bhd->bhs", w["slot_keys"], k) / math.sqrt(size) + (decay * t).unsqueeze(1)
        top = torch.maximum(m, logit)
        old, new = (m - top).exp(), (logit - top).exp()
        m, den, num = top, den * old + new, num * old.unsqueeze(-1) + new.unsqueeze(-1) * v.unsqueeze(2)
        slot = num / den.unsqueeze(-1)
        read = torch.einsum("bhd,hsd->bhs", q, w["slot_keys"]) + gamma * torch.einsum("bhd,bhsd->bhs", q, slot)
        weights = (read / math.sqrt(size)).softmax(-1)
        u = weights @ w["slot_in.weight"].T
        qs, ks, vs = (u @ w[f"slot_{name}.weight"].T for name in "qkv")
        qs, ks = (torch.nn.functional.elu(turned(y, position, c.rope_base_slotspace)) + 1 for y in (qs, ks))
        s, z = s + ks.unsqueeze(-1) * vs.unsqueeze(-2), z + ks
        u = torch.einsum("bhm,bhmn->bhn", qs, s) / (qs * z).sum(-1, keepdim=True)
        weights = weights + softplus(w["_slotspace_gate_raw"]) * torch.tanh(u @ w["slot_out.weight"].T)
        found.append(torch.einsum("bhs,bhsd->bhd", weights, slot).flatten(1) @ w["out_proj.weight"].T)
    return torch.stack(found, dim=1)


def turned(x: Tensor, position: int, base: float) -> Tensor:
    """The published RoPE: angles in halves, pairs of neighbours."""
    dim = x.shape[-1]
    out = torch.empty_like(x)
    for i in range(dim):
        angle = position * base ** (-2 * (i % (dim // 2)) / dim)
        other = -x[..., i + 1] if i % 2 == 0 else x[..., i - 1]
        out[..., i] = x[..., i] * math.cos(angle) + other * math.sin(angle)
    return out
