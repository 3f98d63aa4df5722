"""The state of contexts. Its size is fixed, however much they have read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.asm.configuration import AttentionConfig
from models.asm.errors import InputError


@dataclass(slots=True)
class Memory:
    """The tensors of one layer [B,...], or of all layers stacked [L,B,...].

    m [..,H,K]       the largest write logit so far, minus the ALiBi decay since then (-inf: nothing read yet)
    den [..,H,K]     sum of exp(logit - m) over the tokens read
    num [..,H,K,d]   the same sum over their values; a slot is num / den
    S [..,H,M,M]     the refinement: sum of phi(key) x value (axis -2 is the key side)
    Z [..,H,M]       the refinement: sum of phi(key)

    The chunked scan also keeps m0, den0 and num0 for the finished write chunks; its den and num cover only the open
    chunk. Tensors that a configuration does not need are empty: K = 0 in m0, den0 and num0 of the exact scan, M = 0
    without refinement.
    """

    m: Tensor
    den: Tensor
    num: Tensor
    S: Tensor
    Z: Tensor
    m0: Tensor
    den0: Tensor
    num0: Tensor

    def items(self) -> list[tuple[str, Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Memory:
        return Memory(*(change(tensor) for _, tensor in self.items()))

    def layer(self, number: int) -> Memory:
        """One layer of stacked tensors, as a view."""
        return self.map(lambda tensor: tensor[number])


def stack(layers: Sequence[Memory]) -> Memory:
    return Memory(*(torch.stack([getattr(layer, field.name) for layer in layers]) for field in fields(Memory)))


@dataclass(slots=True)
class State:
    """The state of B contexts: memory [L,B,...], the number of tokens t [B] that each has read, and the scan's name."""

    memory: Memory
    t: Tensor
    scan: str

    @property
    def batch(self) -> int:
        return len(self.t)

    def clone(self) -> State:
        return State(self.memory.map(Tensor.clone), self.t.clone(), self.scan)

    def detach(self) -> State:
        """The same tensors without their gradient history, not copied. Training uses it between windows."""
        return State(self.memory.map(Tensor.detach), self.t, self.scan)

    def pick(self, rows: Sequence[int]) -> State:
        """A copy of some contexts, in the given order. A row may appear twice (a fork)."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.t.device)
        return State(self.memory.map(lambda x: x.index_select(1, index)), self.t.index_select(0, index), self.scan)

    def put(self, rows: Sequence[int], other: State) -> None:
        """Copies the contexts of `other` into these rows."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.t.device)
        for (_, mine), (_, theirs) in zip(self.memory.items(), other.memory.items(), strict=True):
            mine.index_copy_(1, index, theirs)
        self.t.index_copy_(0, index, other.t)


def memory_shapes(config: AttentionConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor for one context and one layer."""
    heads, size = config.num_heads, config.head_dim
    slots = config.num_slots
    closed = 0 if config.chunk is None else slots
    refined = config.slotspace_dim if config.use_slotspace_refine else 0
    return {
        "m": (heads, slots),
        "den": (heads, slots),
        "num": (heads, slots, size),
        "S": (heads, refined, refined),
        "Z": (heads, refined),
        "m0": (heads, closed),
        "den0": (heads, closed),
        "num0": (heads, closed, size),
    }


def state_dtype(config: AttentionConfig, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a state: fp32 for a model in half precision if `state_fp32` is on, else the model's dtype."""
    half = dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half and config.state_fp32 else dtype


def new_state(
    config: AttentionConfig,
    batch: int,
    layers: int = 1,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> State:
    """The state of `batch` contexts that have not read anything yet, for a model that computes in `dtype`."""
    kept = state_dtype(config, dtype)
    memory = {
        name: torch.full((layers, batch, *shape), -torch.inf if name in ("m", "m0") else 0.0, device=device, dtype=kept)
        for name, shape in memory_shapes(config).items()
    }
    return State(Memory(**memory), torch.zeros(batch, dtype=torch.int64, device=device), config.scan_name)


def check_state(config: AttentionConfig, state: State, batch: int, layers: int, dtype: torch.dtype) -> None:
    """Raises InputError if a state belongs to another configuration, or to a model of another dtype."""
    if state.scan != config.scan_name:
        raise InputError(f"the state was written by scan {state.scan}, but this model uses {config.scan_name}")
    if state.t.shape != (batch,):
        raise InputError(f"the state's t should have shape {[batch]}, found {list(state.t.shape)}")
    shapes, kept = memory_shapes(config), state_dtype(config, dtype)
    for name, tensor in state.memory.items():
        if tensor.dtype != kept:
            raise InputError(f"the state's {name} should be {kept}, found {tensor.dtype}")
        expected = (layers, batch, *shapes[name])
        if tensor.shape != expected:
            raise InputError(f"the state's {name} should have shape {list(expected)}, found {list(tensor.shape)}")
