"""Outputs of the public research code, case by case: the layer, what it tells about itself, and whole models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asm_cases import given, golden, golden_layer, prefixed
from torch import Tensor

from models.asm import load_tensors
from models.asm.configuration import ASMTrainConfig

TOLERANCE = {"atol": 3e-5, "rtol": 0.0}
MANIFEST = golden()[0]
CASES = {case["name"]: case for case in MANIFEST["cases"]}
MODELS = {model["name"]: model for model in MANIFEST["lms"]}


def scans(chunks: list[int]) -> list[tuple[int, str]]:
    """Each chunk size by its scan; the exact scan must give what chunks of one token give."""
    return [(n, f"chunked:{n}") for n in chunks] + [(1, "exact")] * (1 in chunks)


def valid(found: Tensor, mask: Tensor | None) -> Tensor:
    """Padded positions hold nothing that is defined."""
    return found if mask is None else found[mask.bool()]


def test_the_manifest_is_whole() -> None:
    assert len(CASES) == 29
    assert len(MODELS) == 3
    assert sum(len(case["chunks"]) for case in CASES.values()) == 70


@pytest.mark.parametrize(
    ("name", "chunk", "scan"), [(name, *scan) for name, case in CASES.items() for scan in scans(case["chunks"])]
)
@torch.no_grad()
def test_a_layer_gives_the_golden_output(name: str, chunk: int, scan: str) -> None:
    case = CASES[name]
    flags = given(case["forward"])
    y, _ = golden_layer(case, chunk, scan)(golden()[1][case["x"]], **flags)
    mask = flags.get("attention_mask")
    expected = golden()[1][case["y"][str(chunk)]]
    torch.testing.assert_close(valid(y, mask), valid(expected, mask), **TOLERANCE)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["info"]])
@torch.no_grad()
def test_a_layer_tells_the_golden_info(name: str) -> None:
    case = CASES[name]
    for chunk, entries in case["info"].items():
        layer = golden_layer(case, int(chunk), "chunked")  # the size by write_chunk_size alone
        *_, info = layer(golden()[1][case["x"]], return_info=True, **given(case["forward"]))
        for entry, key in entries.items():
            torch.testing.assert_close(info[entry], golden()[1][key], **TOLERANCE, msg=lambda m, e=entry: f"{e}: {m}")


def model_config(entry: dict[str, Any], scan: str) -> ASMTrainConfig:
    names = ("embed_dim", "num_heads", "num_slots", "slotspace_dim", "num_layers", "vocab_size", "max_seq_len")
    sizes = {name: MANIFEST["config"][name] for name in names}
    return ASMTrainConfig.from_mapping({**sizes, **entry["config"], "scan": scan})


@pytest.mark.parametrize(
    ("name", "scan", "chunk"), [(name, scan, n) for name, model in MODELS.items() for n, scan in scans(model["chunks"])]
)
@torch.no_grad()
def test_a_model_gives_the_golden_logits(name: str, scan: str, chunk: int) -> None:
    entry = MODELS[name]
    loaded = load_tensors(prefixed(entry["weights"]), model_config(entry, scan))
    assert (loaded.missing, loaded.unused) == ((), ())
    logits, _ = loaded.model(golden()[1][entry["ids"]])
    torch.testing.assert_close(logits, golden()[1][entry["logits"][str(chunk)]], **TOLERANCE)


@pytest.mark.parametrize("variant", ["baseline", "online", "intervene"])
@torch.no_grad()
def test_a_padded_batch_gives_the_golden_logits_in_every_variant(variant: str) -> None:
    entry, mask = MODELS["canonical"], golden()[1]["mask.right_pad"]
    model = load_tensors(prefixed(entry["weights"]), model_config(entry, "chunked:7"), variant=variant).model
    logits, _ = model(golden()[1][entry["ids"]], attention_mask=mask)
    expected = golden()[1][entry["logits_right_padded"]["7"]]
    torch.testing.assert_close(valid(logits, mask), valid(expected, mask), **TOLERANCE)


@torch.no_grad()
def test_a_legacy_checkpoint_in_a_model_with_biases_gives_its_golden_logits() -> None:
    """The biases that it lacks are zero, not random."""
    entry = MODELS["legacy"]
    config = model_config(entry | {"config": {"mlp_bias": True}}, "exact")
    loaded = load_tensors(prefixed(entry["weights"]), config)
    assert loaded.missing == tuple(f"blocks.{i}.mlp.{j}.bias" for i in (0, 1) for j in (0, 3))
    logits, _ = loaded.model(golden()[1][entry["ids"]])
    torch.testing.assert_close(logits, golden()[1][entry["logits"]["1"]], **TOLERANCE)
