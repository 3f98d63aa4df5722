"""A policy computes what its runtime computes: from the state that it exports, and with the weights that it trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_toys import MODELS, stir, toy, toy_file
from safetensors.numpy import load_file, save_file

from models import asm
from training.opening import open_policy
from training.policy import Kind, Policy, PolicyError, Start
from workers.runtimes.asm import open_runtime as open_asm
from workers.runtimes.base import Feed, Plan, Runtime, Tunable
from workers.runtimes.rwkv import open_runtime as open_rwkv

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = [73, 102, 33, 73, 10, 201, 7, 88, 91, 33]
NEAR = 5e-4
"""Logits have a spread of about 5; a scan adds in another order than single steps."""
EVERY = [(model, kind) for model in MODELS for kind in ("tune", "train")]


def runtime_of(path: Path, model: str) -> Runtime:
    return (open_rwkv if model == "rwkv7" else open_asm)(Plan(path=path, slots=2))


def served(policy: Policy, folder: Path, model: str) -> Runtime:
    """The runtime over the policy's weights, its start in slot 0."""
    path = toy_file(folder, model)
    if (weights := policy.weights()) is not None:
        trained, header = folder / f"trained-{model}.safetensors", None
        if model != "rwkv7":
            header = {"cfg": json.dumps(asm.load_checkpoint(path).model.config.to_mapping())}
        save_file(weights, trained, header)
        path = trained
    runtime = runtime_of(path, model)
    arrays = policy.arrays()
    assert isinstance(runtime, Tunable)
    runtime.check(arrays)
    runtime.load(0, arrays)
    return runtime


@pytest.mark.parametrize(("model", "kind"), EVERY)
def test_the_runtime_goes_on_from_what_training_saw(tmp_path: Path, model: str, kind: Kind) -> None:
    policy = toy(tmp_path, model, kind)
    stir(policy, 0.5 if kind == "tune" else 0.05)
    wanted = policy.logits(torch.tensor([TOKENS]))[0].detach().numpy()
    runtime = served(policy, tmp_path, model)
    for token, row in zip(TOKENS, wanted, strict=True):
        assert np.abs(runtime.forward([Feed(0, [token])])[0] - row).max() < NEAR
    runtime.load(1, policy.arrays())
    assert np.abs(runtime.forward([Feed(1, TOKENS)])[0] - wanted[-1]).max() < NEAR
    assert policy.base.fingerprint == runtime_of(toy_file(tmp_path, model), model).identity.fingerprint
    assert policy.base.layout == runtime.identity.layout
    assert policy.base.architecture == runtime.identity.architecture


@pytest.mark.parametrize(("model", "kind"), EVERY)
def test_what_is_trained_changes_the_logits_and_the_rest_stays(tmp_path: Path, model: str, kind: Kind) -> None:
    policy, former = toy(tmp_path, model, kind), toy(tmp_path, model, kind)
    policy.logits(torch.tensor([TOKENS])).square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(tensor.grad is not None for tensor in policy.tensors.values())
    assert sum(bool((t.grad != 0).any()) for t in policy.tensors.values() if t.grad is not None) >= 2
    stir(policy)
    tuned = any(not np.array_equal(array, former.arrays()[name]) for name, array in policy.arrays().items())
    assert tuned == (kind == "tune")
    assert (policy.weights() is None) == (kind == "tune")
    if model != "rwkv7":
        assert policy.arrays()["t"].tolist() == [1 if kind == "tune" else 0]


@pytest.mark.parametrize(("model", "kind"), EVERY)
def test_reading_in_steps_is_what_the_scan_reads(tmp_path: Path, model: str, kind: Kind) -> None:
    policy = toy(tmp_path, model, kind)
    policy.begin(1)  # what is begun later is read with the tensors as they are then
    stir(policy, 0.1)
    rows = [TOKENS, TOKENS[3:], TOKENS[:1]]
    width = len(TOKENS)
    tokens = torch.tensor([[*row, *[5] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    wanted = policy.logits(tokens).detach()
    logits, state = policy.read(tokens, lengths, policy.begin(3))
    for lane, row in enumerate(rows):
        assert torch.allclose(logits[lane], wanted[lane, len(row) - 1], atol=NEAR)
    state = policy.pick(state, [2, 0])
    logits, state = policy.read(torch.tensor([[9], [11]]), None, state)
    for lane, row in enumerate(([*rows[2], 9], [*rows[0], 11])):
        assert torch.allclose(logits[lane], policy.logits(torch.tensor([row]))[0, -1].detach(), atol=NEAR)
    with torch.no_grad():
        short = policy.logits(torch.tensor([[TOKENS[0]]]))
    assert torch.allclose(short[0, 0], wanted[0, 0], atol=NEAR)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("first", ["tune", "train"])
@pytest.mark.parametrize("second", ["tune", "train"])
def test_a_policy_begins_where_an_earlier_one_ended(tmp_path: Path, model: str, first: Kind, second: Kind) -> None:
    earlier = toy(tmp_path, model, first)
    stir(earlier, 0.1)
    later = toy(tmp_path, model, second, Start(earlier.arrays(), earlier.weights() or {}))
    if model != "rwkv7" and first == "train" and second == "tune":
        tokens = torch.tensor([[11, *TOKENS]])  # it has read a line break, from where nothing was read
        wanted = earlier.logits(tokens)[:, 1:]
    else:
        wanted = earlier.logits(torch.tensor([TOKENS]))
    assert torch.allclose(later.logits(torch.tensor([TOKENS])), wanted, atol=NEAR)
    assert (later.weights() is None) == (first == second == "tune")


@pytest.mark.parametrize("model", MODELS)
def test_a_tuned_start_is_what_a_context_has_read(tmp_path: Path, model: str) -> None:
    """The state of a runtime, whatever it has read, begins a run and comes out as it was, but for what counts alike."""
    runtime = runtime_of(toy_file(tmp_path, model), model)
    runtime.forward([Feed(0, [*TOKENS, *TOKENS][:19])])
    policy = toy(tmp_path, model, "tune", Start(runtime.save(0)))
    found = policy.logits(torch.tensor([TOKENS]))[0].detach().numpy()
    runtime.load(1, policy.arrays())
    for token, row in zip(TOKENS, found, strict=True):
        rows = runtime.forward([Feed(0, [token]), Feed(1, [token])])
        assert np.abs(rows - row).max() < NEAR


def test_a_start_of_another_model_is_refused(tmp_path: Path) -> None:
    arrays = toy(tmp_path, "rwkv7", "tune").arrays()
    with pytest.raises(PolicyError, match=r"wkv of shape .* is missing"):
        toy(tmp_path, "rwkv7", "tune", Start({"shifts": arrays["shifts"]}))
    with pytest.raises(PolicyError, match=r"wkv should have shape \[2, 2, 8, 8\], found \[1, 2, 8, 8\]"):
        toy(tmp_path, "rwkv7", "tune", Start(arrays | {"wkv": arrays["wkv"][:1]}))
    with pytest.raises(PolicyError, match="shifts should hold numbers"):
        toy(tmp_path, "rwkv7", "train", Start(arrays | {"shifts": arrays["shifts"] * np.nan}))
    weights = load_file(toy_file(tmp_path, "rwkv7"))
    with pytest.raises(PolicyError, match="the start's weights: this model has no x"):
        toy(tmp_path, "rwkv7", "train", Start(weights=weights | {"x": weights["head.weight"]}))
    with pytest.raises(PolicyError, match="this model has no shifts"):
        toy(tmp_path, "exact", "tune", Start({**toy(tmp_path, "exact", "tune").arrays(), "shifts": arrays["shifts"]}))


def test_what_cannot_be_trained_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="there is no such file"):
        open_policy("rwkv7", tmp_path / "none.pth", "tune")
    with pytest.raises(PolicyError, match="there is no such file"):
        open_policy("asm", tmp_path / "none.safetensors", "tune")
    with pytest.raises(PolicyError, match="'mamba' cannot be trained"):
        open_policy("mamba", tmp_path, "tune")  # type: ignore[arg-type]
    other = asm.build_model_from_cfg(
        replace(asm.load_checkpoint(toy_file(tmp_path, "exact")).model.config, vocab_size=9)
    )
    asm.save_checkpoint(other, tmp_path / "nine.safetensors")
    with pytest.raises(PolicyError, match="no tokenizer has this model's vocabulary of 9 tokens"):
        open_policy("asm", tmp_path / "nine.safetensors", "tune")


def test_room_ends_where_positions_do(tmp_path: Path) -> None:
    assert toy(tmp_path, "exact", "tune").room == 2047
    assert toy(tmp_path, "cyclic", "tune").room is None
    assert toy(tmp_path, "rwkv7", "tune").room is None
