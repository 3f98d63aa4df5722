"""The asm runtime on a CUDA device keeps what it promises on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from asm_toys import KINDS, asm_runtime

from workers.runtimes.base import Feed, Logits, Reading

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device"),
]

DEVICE = "cuda:0"
TEXTS = ("(Turn 1) [USER]: hello", "x", "something that is longer than the others, by far", "two words")


def error(found: Logits, wanted: Logits) -> float:
    """The largest, relative to the spread of the logits."""
    return float(np.abs(found - wanted).max() / wanted.std())


@pytest.mark.parametrize("kind", list(KINDS))
def test_prompts_and_steps_give_what_they_give_on_a_cpu(tmp_path: Path, kind: str) -> None:
    device, cpu = asm_runtime(tmp_path, 6, kind, device=DEVICE), asm_runtime(tmp_path, 6, kind)
    slots = [4, 0, 5, 2]
    feeds = [Feed(slot, cpu.tokenize(text)) for slot, text in zip(slots, TEXTS, strict=True)]
    found, wanted = device.forward(feeds), cpu.forward(feeds)
    for _ in range(20):
        assert error(found, wanted) <= 1e-3
        feeds = [Feed(slot, [int(row.argmax())]) for slot, row in zip(slots, wanted, strict=True)]
        found, wanted = device.forward(feeds), cpu.forward(feeds)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_state_goes_to_the_device_and_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    device, cpu = asm_runtime(tmp_path, 3, kind, device=DEVICE), asm_runtime(tmp_path, 3, kind)
    cpu.forward([Feed(1, cpu.tokenize(TEXTS[0]))])
    state, empty = cpu.save(1), cpu.save(0)
    for array in state.values():
        array.flags.writeable = False  # as a snapshot's may be
    device.load(2, state)
    for slot, wanted in ((2, state), (1, empty)):
        assert all(np.array_equal(device.save(slot)[name], wanted[name]) for name in wanted)
    device.load(2, {})
    assert all(np.array_equal(device.save(2)[name], empty[name]) for name in empty)


def test_a_probe_sees_what_it_sees_on_a_cpu(tmp_path: Path) -> None:
    device, cpu = asm_runtime(tmp_path, 1, device=DEVICE), asm_runtime(tmp_path, 1)
    found, wanted = (r.probe({}, r.tokenize(TEXTS[2]), Reading(masked=(1,)), 5) for r in (device, cpu))
    assert error(found.logits, wanted.logits) <= 1e-3
    for here, there in zip(found.layers, wanted.layers, strict=True):
        assert np.allclose(here.weights, there.weights, atol=1e-3)
