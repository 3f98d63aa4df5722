"""Contexts of an RWKV-7 model, decoded together: the states of all slots are one `models.rwkv7.State`.

State arrays of a context, fp32: `shifts` [L,2,C] and `wkv` [L,H,N,N] (see `models.rwkv7.model.State`). Weights that a
state names have the official names, in fp32 or fp16.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from models import rwkv7
from models.rwkv7.config import expected_shapes, without_ones
from ssmprov.errors import BadRequest, Corrupt
from workers.context import Arrays, Identity
from workers.runtimes.base import Feed, Logits, Plan
from workers.runtimes.rwkv.options import DTYPES, Dtype, Options
from workers.runtimes.tensors import check_tensors, read_tensors
from workers.variants import Variants, without_weights

MAX_BATCH_TOKENS = 4096
"""Padded tokens of one prefill call; this limits its activations."""
UNUSED = re.compile(r"blocks\.0\.att\.v[012]")
"""Tensors in official files that no formula reads."""


@dataclass(frozen=True, slots=True)
class Model:
    """One set of weights in the forms for decode and prefill; often they are the same."""

    decode: rwkv7.Weights
    prefill: rwkv7.Weights


def dtype_of(text: str) -> Dtype:
    """The dtype of that name; '' means fp32. Raises BadRequest."""
    name = text or "fp32"
    if name not in DTYPES:
        raise BadRequest(f"dtype must be one of {', '.join(DTYPES)}, not {text!r}")
    return name


def model_of(tensors: Mapping[str, torch.Tensor], plan: Plan, options: Options, source: str) -> Model:
    """Tensors with the official names in the form that the plan asks for. Raises WeightsError that begins with
    `source`.
    """
    dtype = dtype_of(plan.dtype)
    prefill_dtype = dtype_of(options.prefill_dtype or dtype)
    assemble = partial(rwkv7.assemble, tensors, device=plan.device, source=source, inference=True)
    decode = assemble(dtype=dtype, quantize="int8" if options.quantize else None)
    if prefill_dtype == dtype and not options.quantize:
        return Model(decode, decode)
    return Model(decode, assemble(dtype=prefill_dtype))  # int8 is for decode: it is coarse, and prompts do not need it


class RwkvRuntime:
    """A `Runtime` over one set of weights, and over those that its contexts name."""

    def __init__(self, model: Model, fingerprint: str, plan: Plan, options: Options) -> None:
        config = model.decode.config
        self._config = config
        self._plan = plan
        self._options = options
        self._variants = Variants(model, plan.slots, plan.weights, self._build)
        self._tokenizer = rwkv7.tokenizer_for(config)
        self._state = rwkv7.new_state(config, plan.slots, torch.device(plan.device))
        self._slots = [_Slot(self._state, slot) for slot in range(plan.slots)]
        cuda = self._state.wkv.is_cuda
        self._pinned = torch.empty(plan.slots, config.vocabulary, pin_memory=True) if cuda else None
        dtype = "+".join(filter(None, (dtype_of(plan.dtype), options.prefill_dtype, options.quantize)))
        self.identity = Identity(fingerprint, "rwkv7", config.layout, dtype)
        self.slots = plan.slots
        self.vocabulary = config.vocabulary
        self.end_tokens = frozenset({self._tokenizer.end})
        self.control_tokens = frozenset(range(self._tokenizer.size, config.vocabulary))  # ids without text
        self.context_tokens = None
        self.state_bytes = self._slots[0].bytes

    def tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def piece(self, token: int) -> bytes:
        return self._tokenizer.piece(token)

    def check(self, arrays: Arrays) -> None:
        self._slots[0].check(arrays)

    def check_weights(self, weights: Arrays) -> None:
        used = {name: array for name, array in weights.items() if not UNUSED.fullmatch(name)}
        check_tensors(used, expected_shapes(self._config), without_ones)

    def load(self, slot: int, arrays: Arrays) -> None:
        variant = self._variants.find(arrays)
        self._slots[slot].put(without_weights(arrays))
        self._variants.hold(slot, variant)

    def save(self, slot: int) -> Arrays:
        return self._variants.named(slot, self._slots[slot].take())

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        return self._variants.forward(feeds, self._read)

    def _build(self, data: bytes, source: str) -> Model:
        return model_of(read_tensors(data, self.check_weights, source), self._plan, self._options, source)

    def _read(self, model: Model, feeds: Sequence[Feed]) -> Logits:
        single = [i for i, feed in enumerate(feeds) if len(feed.tokens) == 1]
        if len(single) == len(feeds):
            return self._call(model.decode, feeds, single)
        logits = np.empty((len(feeds), self.vocabulary), np.float32)
        if single:
            logits[single] = self._call(model.decode, feeds, single)
        longer = sorted((i for i, feed in enumerate(feeds) if len(feed.tokens) > 1), key=lambda i: len(feeds[i].tokens))
        while longer:
            width = len(feeds[longer[-1]].tokens)
            count = max(1, MAX_BATCH_TOKENS // width)
            logits[longer[-count:]] = self._call(model.prefill, feeds, longer[-count:])
            del longer[-count:]
        return logits

    def _call(self, weights: rwkv7.Weights, feeds: Sequence[Feed], rows: list[int]) -> Logits:
        """One batched forward of some feeds; returns their logits in the order of `rows`."""
        lengths = [len(feeds[i].tokens) for i in rows]
        slots = [feeds[i].slot for i in rows]
        tokens = np.zeros((len(rows), max(lengths)), np.int64)
        for row, i in enumerate(rows):
            tokens[row, : lengths[row]] = feeds[i].tokens
        ragged = torch.tensor(lengths) if min(lengths) < max(lengths) else None
        out, _ = rwkv7.forward(weights, torch.from_numpy(tokens), ragged, self._state, slots)
        if self._pinned is None:
            return out.numpy()
        host = self._pinned[: len(rows)].copy_(out)  # waits for the device: the only time in a step
        return host.numpy().copy()


class _Slot:
    """Where the state of one context is in the state of all slots."""

    def __init__(self, state: rwkv7.State, slot: int) -> None:
        self._tensors = {"shifts": state.shifts[:, :, slot], "wkv": state.wkv[:, slot]}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.bytes = sum(4 * tensor.numel() for tensor in self._tensors.values())
        # On a CPU, numpy copies with a fifth of the fixed cost.
        self._views = {name: tensor.numpy() for name, tensor in self._tensors.items() if tensor.device.type == "cpu"}

    def check(self, arrays: Arrays) -> None:
        """Raise Corrupt if names, shapes or types do not fit."""
        found = {name: array.shape for name, array in arrays.items()}
        if found != self._shapes or any(array.dtype != np.float32 for array in arrays.values()):
            raise Corrupt(f"this checkpoint holds {found}, but this model's state is {self._shapes} in fp32")

    def put(self, arrays: Arrays) -> None:
        """Load arrays; {} empties the slot. Raises Corrupt if names, shapes or types do not fit."""
        if not arrays:
            for tensor in self._tensors.values():
                tensor.zero_()
            return
        self.check(arrays)
        for name, view in self._views.items():
            np.copyto(view, arrays[name])
        if not self._views:
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.tensor(arrays[name]))

    def take(self) -> Arrays:
        """A copy of the arrays."""
        if self._views:
            return {name: view.copy() for name, view in self._views.items()}
        return {name: tensor.contiguous().cpu().numpy() for name, tensor in self._tensors.items()}
