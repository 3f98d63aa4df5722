"""The fingerprint of a model: models with the same fingerprint give the same results and can read each other's states.

Also here: the name of a state's layout, and the tokenizer that fits a model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Literal

import torch

from models.asm.configuration import ASMTrainConfig
from models.asm.lm import ASMLanguageModel
from models.mini.tokenizer import ByteTokenizer
from models.rwkv7.tokenizer import WORLD_IDS

WORLD_VOCABULARY = 65536

WITHOUT_EFFECT = frozenset(
    {"dropout", "slot_dropout", "slotspace_dropout", "slotspace_chunk_size", "content_read_init", "slotspace_gate_init"}
    | {"write_chunk_size", "scan", "state_fp32"}
)
"""Options of a layer that do not change what a trained model computes, or that the fingerprint has in another form."""


def spelling(config: ASMTrainConfig) -> Literal["bytes", "World"] | None:
    """The name of the tokenizer that fits a model's vocabulary, or None if this package does not have it."""
    if config.vocab_size == ByteTokenizer.size:
        return "bytes"
    return "World" if WORLD_IDS <= config.vocab_size <= WORLD_VOCABULARY else None


def layout(config: ASMTrainConfig) -> str:
    """The name of a model's state layout: models with the same layout have states of the same shape and meaning."""
    layer = config.attention()
    refined = layer.slotspace_dim if layer.use_slotspace_refine else 0
    return (
        f"asm L{config.num_layers} C{config.embed_dim} H{config.num_heads} K{config.num_slots} M{refined} "
        f"{layer.scan_name} {config.pos_mode}:{config.max_seq_len}"
    )


def fingerprint(model: ASMLanguageModel, tokenizer: str) -> str:
    """sha256 in hex over the tokenizer's name, every option that changes a result, and all weights under our names.

    A model has the same fingerprint in both naming schemes and in all file formats. How it was trained does not count.
    """
    layer = model.config.attention()
    options = {name: value for name, value in asdict(layer).items() if name not in WITHOUT_EFFECT}
    options |= {"scan": layer.scan_name, "use_abs_pos": model.config.use_abs_pos, "tokenizer": tokenizer}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    tensors = model.state_dict()
    if model.config.tie_weights:
        del tensors["lm_head.weight"]
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).reshape(-1).numpy().data)
    return digest.hexdigest()
