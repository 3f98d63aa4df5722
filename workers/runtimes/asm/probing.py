"""A probe: how a context reads its slots. It reads tokens with the chosen slots, beside everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import asm
from ssmprov.errors import BadRequest, SsmprovError
from workers.context import Arrays
from workers.runtimes.asm.states import Form
from workers.runtimes.base import LayerSeen, Probe, Reading

SLICE_TOKENS = 128
"""Tokens read at once: what a probe keeps of them, for every layer, is in memory until they are read."""

ROUTINGS = ("softmax", "top1", "topk")
WHERES = ("read", "content_read_only", "slotspace_only")


@torch.inference_mode()
def probe(
    model: asm.ASMLanguageModel,
    form: Form,
    arrays: Arrays,
    tokens: Sequence[int],
    reading: Reading,
    reply_tokens: int,
    before: Sequence[int],
    mute: tuple[frozenset[int], frozenset[int]],
) -> Probe:
    """See `Probes.probe`. `mute`: the tokens that end a text, and those that are never written."""
    flags = flags_of(reading, model.config)
    end, control = mute
    for part in (tokens, before) if before else (tokens,):
        _check_tokens(part, model.config.vocab_size)
    read = (form.check(arrays) if arrays else 0) + len(before)
    if form.limit is not None and read + len(tokens) > form.limit:
        raise BadRequest(
            f"the context holds {read} tokens and the prompt {len(tokens)}, but this model's contexts end at "
            f"{form.limit}: send a shorter prompt"
        )
    state = model.new_state(1)
    if arrays:
        form.put(state, 0, arrays)
    for first in range(0, len(before), SLICE_TOKENS):
        _, state, _ = _read(model, list(before[first : first + SLICE_TOKENS]), state, {})
    entropies: list[Tensor] = []
    for first in range(0, len(tokens), SLICE_TOKENS):
        part = list(tokens[first : first + SLICE_TOKENS])
        logits, state, infos = _read(model, part, state, flags | {"return_info": True})
        weights = [info["read_weights"][0] for info in infos]  # for each layer (H, T, K)
        entropies.append(torch.stack([_entropy(w).sum(dim=1) for w in weights]))  # (L, H)
    mean = torch.stack(entropies).sum(dim=0) / len(tokens)
    layers = [
        LayerSeen(
            weights=_array(w[:, -1]),
            entropy=_array(_entropy(w[:, -1])),
            mean_entropy=_array(mean[layer]),
            gate=float(info["slotspace_gate"]),
            gamma=float(info["content_read_gamma"]),
            strength=float(info["alibi_strength"]),
        )
        for layer, (w, info) in enumerate(zip(weights, infos, strict=True))
    ]
    seen = _row(logits)
    reply: list[int] = []
    room = reply_tokens if form.limit is None else min(reply_tokens, form.limit - read - len(tokens))
    row = seen
    while len(reply) < room:
        row = row.copy()
        row[sorted(control)] = -np.inf
        token = int(row.argmax())
        if token in end:
            break
        reply.append(token)
        if len(reply) < room:
            logits, state, _ = _read(model, [token], state, flags)
            row = _row(logits)
    return Probe(layers, seen, reply)


def flags_of(reading: Reading, config: asm.ASMTrainConfig) -> dict[str, Any]:
    """A reading as flags of the baseline variant. Raises BadRequest for a reading that this model does not know."""
    slots = config.num_slots
    if reading.routing not in ROUTINGS:
        raise BadRequest(f"routing must be one of {', '.join(ROUTINGS)}, not {reading.routing!r}")
    if reading.where not in WHERES:
        raise BadRequest(f"where must be one of {', '.join(WHERES)}, not {reading.where!r}")
    if reading.routing == "topk" and not 1 <= reading.topk <= slots:
        raise BadRequest(f"topk = {reading.topk}: this model has {slots} slots, so write 1 to {slots}")
    flags: dict[str, Any] = {"routing_mode": reading.routing}
    if reading.routing == "topk":
        flags["routing_topk"] = reading.topk
    if not reading.masked:
        return flags
    outside = [slot for slot in reading.masked if not 0 <= slot < slots]
    if outside:
        raise BadRequest(f"slot {outside[0]} cannot be masked: this model's slots are 0..{slots - 1}")
    if len(set(reading.masked)) == slots:
        raise BadRequest(f"all slots 0..{slots - 1} are masked: leave at least one to be read")
    if reading.where == "content_read_only" and not config.use_content_read:
        raise BadRequest("content_read_only: this model does not read its slots by content")
    if reading.where == "slotspace_only" and not config.use_slotspace_refine:
        raise BadRequest("slotspace_only: this model has no refinement")
    mask = torch.ones(slots)
    mask[list(reading.masked)] = 0.0
    return flags | {"slot_mask": mask, "slot_mask_where": reading.where}


def _check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    if not tokens:
        raise BadRequest("a probe must read something: send a prompt")
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise BadRequest(f"a token is outside the vocabulary 0..{vocabulary - 1}")


def _read(
    model: asm.ASMLanguageModel, tokens: list[int], state: asm.State, flags: dict[str, Any]
) -> tuple[Tensor, asm.State, list[asm.Info]]:
    """The logits [V] after the last token, the state after it, and each layer's numbers if asked for."""
    row = torch.tensor([tokens], device=state.t.device)
    logits, new, *infos = model(row, state, last_logits=True, **flags)
    return logits[0], new, infos[0] if infos else []


def _entropy(weights: Tensor) -> Tensor:
    """The entropy of read weights [..,K], in nats [..]."""
    entropy: Tensor = torch.special.entr(weights).sum(dim=-1)
    return entropy


def _row(logits: Tensor) -> NDArray[np.float32]:
    row = _array(logits)
    if not (row < np.inf).all():  # also catches NaN
        raise SsmprovError("the model's numbers overflowed: the context is unchanged")
    return row


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy().copy()
