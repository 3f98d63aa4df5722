"""llama.cpp with layers on a GPU: run where it finds one, which a build for one does (`make llama GPU=cuda`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from llama_toys import KINDS, copied, open_toy, read, say, words

from workers.runtimes.base import Feed
from workers.runtimes.llama import native

TOLERANCE = 0.05
ALL_LAYERS = 9999
WAYS = [{"device": "gpu:0"}, {"n_gpu_layers": ALL_LAYERS}, {"n_gpu_layers": 1}]
"""As `devices` and `n_gpu_layers` of a model's table come to the runtime: all of it on one GPU, shared out, in part."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not native.library().llama_supports_gpu_offload(),
        reason="llama.cpp finds no GPU here, or was built without one: make llama GPU=cuda",
    ),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_on_a_gpu_say_what_the_cpu_says(
    tmp_path: Path, rng: np.random.Generator, kind: str, way: dict[str, str | int]
) -> None:
    there, here = open_toy(tmp_path, kind, 2, **way), open_toy(tmp_path, kind, 2)
    tokens = words(here, rng, 30)
    assert np.abs(read(there, 0, tokens) - read(here, 0, tokens)).max() < TOLERANCE
    assert there.identity.fingerprint == here.identity.fingerprint
    assert there.identity.dtype != here.identity.dtype, "so that a context that moved is marked as not exact"
    here.load(1, copied(there.save(0)))  # and moves on to the CPU
    assert np.abs(read(there, 0, tokens[:1]) - read(here, 1, tokens[:1])).max() < TOLERANCE
    there.close()
    here.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_restored_on_a_gpu_goes_on_exactly(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    runtime = open_toy(tmp_path, kind, 3, device="gpu:0")
    logits = read(runtime, 0, words(runtime, rng, 30))
    saved = copied(runtime.save(0))
    said = say(runtime, 0, logits, 12)
    runtime.load(2, saved)
    assert say(runtime, 2, logits, 12) == said
    runtime.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_on_a_gpu_says_what_each_context_says_alone(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    runtime = open_toy(tmp_path, kind, 3, device="gpu:0")
    prompts = [words(runtime, rng, count) for count in (5, 17, 1)]
    alone = []
    for prompt in prompts:
        runtime.load(0, {})
        alone.append(read(runtime, 0, prompt))
    runtime.load(0, {})
    together = runtime.forward([Feed(slot, prompt) for slot, prompt in enumerate(prompts)])
    assert np.abs(together - np.stack(alone)).max() < TOLERANCE
    runtime.close()
