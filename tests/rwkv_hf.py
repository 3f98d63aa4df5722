"""Writes RWKV-7 in Hugging Face's layout, as flash-linear-attention does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

NAMES = {
    "emb.weight": "model.embeddings.weight",
    "ln_out.weight": "model.norm.weight",
    "ln_out.bias": "model.norm.bias",
    "head.weight": "lm_head.weight",
}
PARTS = {
    "ln0": "pre_norm",
    "ln1": "attn_norm",
    "ln2": "ffn_norm",
    "att.ln_x": "attn.g_norm",
    "att.receptance": "attn.r_proj",
    "att.key": "attn.k_proj",
    "att.value": "attn.v_proj",
    "att.output": "attn.o_proj",
}


def hugged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as flash-linear-attention's converter writes them."""
    found = {}
    for name, tensor in tensors.items():
        if name in NAMES:
            found[NAMES[name]] = tensor
            continue
        layer, part = re.fullmatch(r"blocks\.(\d+)\.(.*)", name).groups()  # type: ignore[union-attr]
        if match := re.fullmatch(r"att\.([wavg])([012])", part):
            end = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}[match[2]]
            part, tensor = f"attn.{match[1]}_lora.lora.{end}", tensor if match[2] == "0" else tensor.t()
        elif part.rpartition(".")[0] in PARTS:
            part = f"{PARTS[part.rpartition('.')[0]]}.{part.rpartition('.')[2]}"
        elif re.fullmatch(r"att\.x_.", part):
            tensor = tensor.reshape(1, 1, -1)
        found[f"model.layers.{layer}.{part.replace('att.', 'attn.')}"] = tensor.contiguous()
    return found


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A directory as `save_pretrained` leaves it, in two parts."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "rwkv7"}')
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    index = {}
    for at, part in enumerate(parts, 1):
        file = f"model-{at:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder
