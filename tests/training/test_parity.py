"""The checks before a run pass on what is sound, fail on what is not, and leave the policy as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy_toys import toy
from torch import Tensor

from models import mini
from training.opening import open_policy
from training.packing import Sample
from training.parity import OVERFIT_STEPS, gradient, overfit, scan_and_steps
from training.policy import Architecture, Kind, Policy

pytestmark = pytest.mark.usefixtures("one_thread")

MINIS: dict[Architecture, Path] = {"rwkv7": mini.path(), "asm": mini.asm_path()}


@pytest.mark.parametrize("architecture", MINIS)
@pytest.mark.parametrize("kind", ["tune", "train"])
def test_the_models_that_ship_pass(architecture: Architecture, kind: Kind) -> None:
    policy = open_policy(architecture, MINIS[architecture], kind)
    before = {name: tensor.detach().clone() for name, tensor in policy.tensors.items()}
    for check in (scan_and_steps, gradient, overfit):
        found = check(policy)
        assert found.passed, (check, found)
        assert found.seconds > 0
    assert all(torch.equal(before[name], tensor.detach()) for name, tensor in policy.tensors.items())
    assert all(tensor.grad is None for tensor in policy.tensors.values())


@pytest.fixture(params=["rwkv7", "exact"])
def policy(tmp_path: Path, request: pytest.FixtureRequest) -> Policy:
    return toy(tmp_path, request.param, "train")


def test_steps_that_say_something_else_are_found(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scan_and_steps(policy).passed
    read = policy.read

    def wrong(tokens: Tensor, lengths: Tensor | None, state: object) -> tuple[Tensor, object]:
        logits, state = read(tokens, lengths, state)
        return logits * 1.01, state

    monkeypatch.setattr(policy, "read", wrong)
    found = scan_and_steps(policy)
    assert not found.passed
    assert found.metrics["difference"] > 0.02


def test_a_wrong_gradient_is_found(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gradient(policy).passed
    logits = policy.logits

    def steeper(tokens: Tensor) -> Tensor:
        found = logits(tokens)
        return found + 0.2 * (found - found.detach())

    monkeypatch.setattr(policy, "logits", steeper)
    assert gradient(policy).metrics["error"] == pytest.approx(0.2 / 1.2, abs=0.02)
    assert not gradient(policy).passed
    monkeypatch.setattr(policy, "logits", lambda tokens: logits(tokens).detach().requires_grad_())
    found = gradient(policy)
    assert (found.passed, found.metrics["entries"]) == (False, 0)


def test_what_cannot_be_led_is_found(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Sample([5, 6, 7, 8, 0], 2)]
    assert overfit(policy, rows).passed
    fixed = policy.logits(torch.tensor([[5, 6, 7, 8]])).detach()
    monkeypatch.setattr(policy, "logits", lambda _: fixed + 0 * sum(t.sum() for t in policy.tensors.values()))
    found = overfit(policy, rows)
    assert not found.passed
    assert found.metrics["steps"] == OVERFIT_STEPS
