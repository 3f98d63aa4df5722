"""The rwkv runtime on a CUDA device keeps what it promises on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plans import plan_of
from rwkv_toys import rwkv_file

from ssmprov.errors import BadRequest
from workers.runtimes import rwkv
from workers.runtimes.base import Feed, Logits
from workers.runtimes.rwkv.runtime import RwkvRuntime

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device"),
]

DEVICE = "cuda:0"
TEXTS = ("(Turn 1) [USER]: hello", "x", "something that is longer than the others, by far", "two words")


def pair(folder: Path, slots: int, **options: str) -> tuple[RwkvRuntime, RwkvRuntime]:
    """The same model on the device and on the CPU, there in fp32."""
    path = rwkv_file(folder)
    return rwkv.open_runtime(plan_of(path, slots, device=DEVICE, **options)), rwkv.open_runtime(plan_of(path, slots))


def error(found: Logits, wanted: Logits) -> float:
    """The largest, relative to the spread of the logits."""
    return float(np.abs(found - wanted).max() / wanted.std())


def greedy(runtime: RwkvRuntime, slots: list[int], logits: Logits, count: int) -> list[list[int]]:
    written = []
    for _ in range(count):
        chosen = logits.argmax(axis=1).tolist()
        written.append(chosen)
        logits = runtime.forward([Feed(slot, [token]) for slot, token in zip(slots, chosen, strict=True)])
    return written


def test_prompts_of_any_lengths_and_slots_give_what_they_give_on_a_cpu(tmp_path: Path) -> None:
    device, cpu = pair(tmp_path, 6)
    slots = [4, 0, 5, 2]
    feeds = [Feed(slot, cpu.tokenize(text)) for slot, text in zip(slots, TEXTS, strict=True)]
    found, wanted = device.forward(feeds), cpu.forward(feeds)
    assert error(found, wanted) <= 1e-3
    assert greedy(device, slots, found, 40) == greedy(cpu, slots, wanted, 40)


def test_a_state_goes_to_the_device_and_back_bit_for_bit(tmp_path: Path) -> None:
    device, cpu = pair(tmp_path, 3)
    cpu.forward([Feed(1, cpu.tokenize(TEXTS[0]))])
    state = cpu.save(1)
    for array in state.values():
        array.flags.writeable = False  # as a snapshot's may be
    device.load(2, state)
    assert all(np.array_equal(device.save(2)[name], state[name]) for name in state)
    assert all(array.flags.c_contiguous for array in device.save(2).values())
    assert not any(array.any() for array in device.save(1).values()), "a neighbour was touched"
    device.load(2, {})
    assert not any(array.any() for array in device.save(2).values())


def test_logits_at_hand_are_not_overwritten_by_the_next_step(tmp_path: Path) -> None:
    device, _ = pair(tmp_path, 1)
    first = device.forward([Feed(0, [5])])
    before = first.copy()
    device.forward([Feed(0, [6])])
    assert np.array_equal(first, before)


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.2), ("fp16", 0.05)])
def test_coarser_numbers_stay_near(tmp_path: Path, dtype: str, bound: float) -> None:
    device, cpu = pair(tmp_path, 1, dtype=dtype)
    tokens = cpu.tokenize(TEXTS[2])
    for piece in (tokens[:-3], *([token] for token in tokens[-3:])):
        assert 0 < error(device.forward([Feed(0, piece)]), cpu.forward([Feed(0, piece)])) <= bound


def test_every_device_of_the_machine_serves(tmp_path: Path) -> None:
    path = rwkv_file(tmp_path)
    found = []
    for index in range(torch.cuda.device_count()):
        runtime = rwkv.open_runtime(plan_of(path, device=f"cuda:{index}"))
        found.append(runtime.forward([Feed(0, runtime.tokenize(TEXTS[0]))]))
    assert all(error(logits, found[0]) <= 1e-3 for logits in found)


def test_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="int8 matrices run on the CPU"):
        rwkv.open_runtime(plan_of(rwkv_file(tmp_path), device=DEVICE, quantize="int8"))
