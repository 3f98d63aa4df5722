"""Our forward against the reference implementation, the `rwkv` package, on the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import rwkv7
from models.rwkv7 import Config

# Prefill and decode, mixed: the lengths of the pieces in which the text is read.
PIECES = (1, 1, 37, 1, 1, 1, 2, 16, 1, 50, 1)

REFERENCE = """
import sys, torch
from rwkv.model import RWKV
torch.set_num_threads(1)
path, out = sys.argv[1:]
tokens = torch.load(path + ".tokens.pth", weights_only=True)["tokens"].tolist()
model, state, found = RWKV(model=path, strategy="cpu fp32"), None, []
for piece in map(int, "@PIECES@".split()):
    logits, state = model.forward(tokens[:piece], state)
    del tokens[:piece]
    found.append(logits.clone())
layers = len(state) // 3
torch.save({
    "logits": torch.stack(found),
    "shifts": torch.stack([torch.stack([state[3 * i], state[3 * i + 2]]) for i in range(layers)]),
    "wkv": torch.stack([state[3 * i + 1] for i in range(layers)]),
}, out)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, config: Config) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("reference")
    path = folder / "tiny.pth"
    rwkv7.save(rwkv7.random_tensors(config, seed=3), path)
    tokens = torch.randint(config.vocabulary, (sum(PIECES),), generator=torch.Generator().manual_seed(0))
    torch.save({"tokens": tokens}, folder / "tiny.tokens.pth")
    script = REFERENCE.replace("@PIECES@", " ".join(map(str, PIECES)))
    environment = os.environ | {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}
    subprocess.run(
        [sys.executable, "-c", script, str(path.with_suffix("")), str(folder / "found.pth")],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        timeout=200,
    )
    found = torch.load(folder / "found.pth", weights_only=True)
    return path, found | {"tokens": tokens}


def test_logits_and_state_agree_with_the_rwkv_package(reference: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, found = reference
    weights = rwkv7.load(path)
    state = rwkv7.new_state(weights.config, batch=1)
    for tokens, expected in zip(found["tokens"].split(PIECES), found["logits"], strict=True):
        logits, state = rwkv7.forward(weights, tokens.unsqueeze(0), None, state)
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(state.shifts[:, :, 0], found["shifts"], atol=1e-4, rtol=0)
    torch.testing.assert_close(state.wkv[:, 0], found["wkv"], atol=1e-4, rtol=1e-5)
