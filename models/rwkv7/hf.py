"""RWKV-7 in Hugging Face's layout (`RWKV7ForCausalLM` of flash-linear-attention), by the official names.

Its low-rank parts are `nn.Linear`, so they are stored transposed; older files pack the six token shifts of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from models.rwkv7.config import WeightsError

_ENDS = {
    "model.embeddings.weight": "emb.weight",
    "model.norm.weight": "ln_out.weight",
    "model.norm.bias": "ln_out.bias",
    "lm_head.weight": "head.weight",
}
_PARTS = {
    "pre_norm": "ln0",
    "attn_norm": "ln1",
    "ffn_norm": "ln2",
    "attn.g_norm": "att.ln_x",
    "attn.r_proj": "att.receptance",
    "attn.k_proj": "att.key",
    "attn.v_proj": "att.value",
    "attn.o_proj": "att.output",
    "ffn.key": "ffn.key",
    "ffn.value": "ffn.value",
}
_LAYER = re.compile(r"model\.layers\.([0-9]+)\.(.+)")
_LOW_RANK = re.compile(r"attn\.([wavg])_lora\.lora\.(?:(0|2)\.weight|2\.bias)")
_VECTOR = re.compile(r"(attn|ffn)\.(x_[rwkvag]|k_k|k_a|r_k)")
_PACKED = "attn.x_x"
_SHIFTS = "rwkvag"


def is_hf(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of this layout."""
    return any(name.startswith("model.layers.") and name.endswith(".attn.r_k") for name in tensors)


def official(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors with their official names and shapes. Raises WeightsError for a tensor that this model has not."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer = _LAYER.fullmatch(name)
        if name in _ENDS:
            found[_ENDS[name]] = tensor
        elif layer and layer[2] == _PACKED:
            found |= {f"blocks.{layer[1]}.att.x_{one}": tensor[at].flatten() for at, one in enumerate(_SHIFTS)}
        elif layer and (ours := _official(layer[2])):
            found[f"blocks.{layer[1]}.{ours}"] = (
                tensor.T if _LOW_RANK.fullmatch(layer[2]) and ours[-1] != "0" else tensor
            )
        else:
            raise WeightsError(f"{source}: the tensor {name} does not belong to an RWKV-7 model in this layout")
    if "emb.weight" in found:
        found.setdefault("head.weight", found["emb.weight"])  # tied
    return found


def _official(name: str) -> str:
    """The official name of a tensor inside a layer, or ''."""
    if match := _LOW_RANK.fullmatch(name):
        return f"att.{match[1]}{ {'0': '1', '2': '2', None: '0'}[match[2]] }"
    if match := _VECTOR.fullmatch(name):
        return f"{'att' if match[1] == 'attn' else 'ffn'}.{match[2]}"
    part, _, kind = name.rpartition(".")
    return f"{_PARTS[part]}.{kind}" if part in _PARTS and kind in ("weight", "bias") else ""
