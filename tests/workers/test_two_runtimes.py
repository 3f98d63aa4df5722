"""One model, two runtimes: the embedded model's file in torch, and converted to GGUF in llama.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plans import plan_of

pytest.importorskip("llama_cpp")

from llama_toys import read, say

from models import mini
from models.gguf.convert import convert
from workers.runtimes import base
from workers.runtimes.base import Plan, Runtime

PROMPTS = [
    "(Turn 1) [USER]: the small cat sleeps in the garden\n\n~~~(end)~~~\n\n(Turn 2) [INTERFACE]: ",
    "Once upon a time",
    "(Turn 7) [CONTEXT]: You are a shouter. Answer in capitals.\n\n~~~(end)~~~\n\n",
    "é ü 漢字 🦀",
]
TOKENS = 200


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Runtime]:
    folder = tmp_path_factory.mktemp("two")
    path = folder / "rwkv7-mini.gguf"
    convert(Path(mini.path()), path, "f32")
    torch = base.load("rwkv", Plan(path=Path("@mini"), slots=1, dtype="fp32"))
    llama = base.load("llama", plan_of(path, dtype="fp32", n_threads=1, cache=folder / "cache"))
    return torch, llama


@pytest.mark.parametrize("prompt", PROMPTS)
def test_they_say_the_same(both: tuple[Runtime, Runtime], prompt: str) -> None:
    said = []
    for runtime in both:
        runtime.load(0, {})
        tokens = runtime.tokenize(prompt)
        said.append(say(runtime, 0, read(runtime, 0, tokens), TOKENS))
    assert said[0] == said[1]
    assert len(said[0]) == TOKENS


@pytest.mark.parametrize("prompt", PROMPTS)
def test_their_logits_agree(both: tuple[Runtime, Runtime], prompt: str) -> None:
    logits = []
    for runtime in both:
        runtime.load(0, {})
        tokens = runtime.tokenize(prompt)
        logits.append(np.stack([read(runtime, 0, [token]) for token in tokens]))
    assert np.abs(logits[0] - logits[1]).max() < 1e-3


def test_they_share_a_vocabulary_and_no_identity(both: tuple[Runtime, Runtime]) -> None:
    torch, llama = both
    assert [torch.piece(token) for token in range(torch.vocabulary)] == [
        llama.piece(token) for token in range(llama.vocabulary)
    ]
    assert torch.end_tokens == llama.end_tokens
    assert torch.identity.fingerprint != llama.identity.fingerprint
    assert torch.identity.layout != llama.identity.layout
