"""Reads prompts except for their last token. A probe then intervenes in that token, at the cost of a single step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import Tensor

from models.asm.attention import AddressedStateAttention
from models.asm.errors import InputError
from models.asm.lm import ASMLanguageModel
from models.asm.state import State
from models.asm.trace import Info


@dataclass(frozen=True, slots=True)
class Prompts:
    """tokens [B,T] padded at the right, lengths [B], and a `state` that has read all but the `last` token [B,1]."""

    tokens: Tensor
    lengths: Tensor
    state: State
    last: Tensor


@torch.no_grad()
def read_prompts(model: ASMLanguageModel, ids: Sequence[Sequence[int]]) -> Prompts:
    """Reads prompts. Each must have at least one token."""
    device = model.token_emb.weight.device
    lengths = torch.tensor([len(one) for one in ids])
    tokens = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = torch.tensor(one)
    last = tokens.gather(1, (lengths - 1).unsqueeze(1))
    tokens, lengths, last = tokens.to(device), lengths.to(device), last.to(device)
    state = model.new_state(len(ids))
    if tokens.shape[1] > 1:
        _, state = model(tokens[:, :-1], state, lengths=lengths - 1, last_logits=True)
    return Prompts(tokens, lengths, state, last)


@torch.no_grad()
def next_tokens(model: ASMLanguageModel, prompts: Prompts, *, whole: bool = False) -> Tensor:
    """Log probabilities [B,V] after each prompt.

    It runs one step from the stored state. With `whole` it reads the whole prompts, for changes that affect all tokens.
    """
    if whole:
        logits, _ = model(prompts.tokens, lengths=prompts.lengths, last_logits=True)
    else:
        logits, _ = model(prompts.last, prompts.state, last_logits=True)
    if not bool(logits.isfinite().all()):
        raise InputError("the model's logits are NaN or infinite: its weights are too large")
    found: Tensor = logits.log_softmax(dim=-1)
    return found


@torch.no_grad()
def look(model: ASMLanguageModel, prompts: Prompts, layer: int) -> tuple[list[Info], Tensor]:
    """The info of every layer's attention on the prompts, and the outputs [B,T,C] of one block."""
    seen: list[Tensor] = []
    blocks = model.layers()
    after = blocks[layer + 1].ln_1 if layer + 1 < len(blocks) else model.ln_f  # its input is the block's output
    handle = after.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        _, _, infos = model(prompts.tokens, lengths=prompts.lengths, return_info=True)
    finally:
        handle.remove()
    return infos, seen[0]


def attention_of(model: ASMLanguageModel, layer: int) -> AddressedStateAttention:
    """The attention of one layer of a baseline model."""
    found = model.layers()[layer].attn
    assert isinstance(found, AddressedStateAttention)
    return found


@contextmanager
def routed(attention: AddressedStateAttention, weights: Tensor) -> Iterator[None]:
    """Forces read weights [B,H,T,K] on a layer inside the `with` block."""
    attention.routing_override = weights
    try:
        yield
    finally:
        attention.routing_override = None


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "median": median(values), "min": min(values), "max": max(values)}
