"""Training on rows: each objective is what it says, only what is tuned changes, and a killed run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_toys import BASE
from torch import Tensor

from models import rwkv7
from training.checkpoint import NAME as CHECKPOINT
from training.fit import Curve, Fit, FitError, Taken, fit
from training.objectives import advantages, answer_logps, clipped, cross_entropy, divergence, dpo, token_logps
from training.packing import Packed, Sample, batch_at, pack, tensors
from training.policy import Arrays, Kind, Policy, Start
from training.rwkv7_policy import Rwkv7Policy

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = rwkv7.Config(layers=2, channels=16, head_size=8, vocabulary=20, ffn=32, rank_w=4, rank_a=4, rank_v=4, rank_g=4)


WEIGHTS = {name: tensor.float() for name, tensor in rwkv7.random_tensors(TINY, 3).items()}


def drawn(scale: float) -> Arrays:
    shapes = {"shifts": (2, 2, 16), "wkv": (2, 2, 8, 8)}
    return {name: (torch.randn(shape) * scale).numpy() for name, shape in shapes.items()}


def policy_of(kind: Kind, arrays: Arrays | None = None) -> Rwkv7Policy:
    return Rwkv7Policy(BASE, WEIGHTS, kind, Start(arrays or {}))


def rows(count: int = 12) -> Packed:
    return pack([Sample([1 + row % 5, 2, 3 + row % 5, 4 + row % 7, 0], 2, row) for row in range(count)], 30, 16)


def loss_on(policy: Policy, packed: Packed) -> float:
    return float(cross_entropy(policy.logits(batch_at(packed, 0, 0).tokens), batch_at(packed, 0, 0)).detach())


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_an_overfit_reaches_its_loss(tmp_path: Path, kind: Kind) -> None:
    """A few rows are learnt by heart (by the weights; by the state alone some of them)."""
    policy, packed = policy_of(kind), rows(5)
    before = loss_on(policy, packed)
    rate = 0.04 if kind == "train" else 0.3
    fitted = fit(policy, _ce(policy, packed), Fit(steps=40, rate=rate), tmp_path, identity="x")
    after = loss_on(policy, packed)
    assert fitted.step == 40
    assert fitted.curve.trend > 0
    assert after < (0.05 if kind == "train" else 0.85 * before)


def _ce(policy: Policy, packed: Packed) -> Callable[[int], Taken]:
    def loss(step: int) -> Taken:
        batch = batch_at(packed, 1, step)
        found = cross_entropy(policy.logits(batch.tokens), batch)
        return Taken(found, float(found.detach()))

    return loss


def test_only_what_is_tuned_changes() -> None:
    policy = policy_of("tune")
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    cross_entropy(policy.logits(batch_at(rows(), 0, 0).tokens), batch_at(rows(), 0, 0)).backward()  # type: ignore[no-untyped-call]
    assert {name: tensor.shape for name, tensor in policy.tensors.items()} == {
        "shifts": (2, 2, 16),
        "wkv": (2, 2, 8, 8),
    }
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in policy.tensors.values())
    assert all(torch.equal(WEIGHTS[name], weights[name]) for name in weights)


def test_a_tuned_state_is_where_the_served_model_begins() -> None:
    """What training reads from its start, the runtime reads from the checkpoint."""
    policy = policy_of("tune", drawn(1.0))
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    state = rwkv7.State(policy.tensors["shifts"].detach().unsqueeze(2), policy.tensors["wkv"].detach().unsqueeze(1))
    served = rwkv7.assemble(WEIGHTS, inference=True)
    logits, _ = rwkv7.forward(served, tokens, None, rwkv7.State(state.shifts.clone(), state.wkv.clone()))
    assert torch.allclose(policy.logits(tokens)[:, -1], logits, atol=1e-4)


def test_the_gradient_of_the_tuner_is_that_of_finite_differences() -> None:
    policy = policy_of("tune", drawn(0.3))
    batch = batch_at(rows(), 0, 0)

    def loss() -> Tensor:
        return cross_entropy(policy.logits(batch.tokens), batch)

    loss().backward()  # type: ignore[no-untyped-call]
    for tensor in policy.tensors.values():
        assert tensor.grad is not None
        direction = torch.nn.functional.normalize(torch.randn(tensor.shape), dim=None)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                tensor += sign * 0.01 * direction
                values.append(float(loss()))
                tensor -= sign * 0.01 * direction
        measured = (values[0] - values[1]) / 0.02
        assert measured == pytest.approx(float((tensor.grad * direction).sum()), rel=0.05, abs=1e-4)


@pytest.mark.parametrize("stop_at", [1, 4, 11])
def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not(tmp_path: Path, stop_at: int) -> None:
    whole, broken = policy_of("train"), policy_of("train")
    settings, packed = Fit(steps=12, rate=0.01, check_every=4), rows()
    (tmp_path / "whole").mkdir()
    one = fit(
        whole, _ce(whole, packed), settings, tmp_path / "whole", identity="x", check=lambda: loss_on(whole, packed)
    )
    (tmp_path / "broken").mkdir()
    steps = [0]

    def asked() -> bool:
        steps[0] += 1
        return steps[0] == stop_at + 1

    first = fit(
        broken, _ce(broken, packed), settings, tmp_path / "broken", identity="x",
        check=lambda: loss_on(broken, packed), asked_to_stop=asked,
    )  # fmt: skip
    assert (first.stopped, first.step) == ("asked", stop_at)
    again = policy_of("train")
    two = fit(
        again, _ce(again, packed), settings, tmp_path / "broken", identity="x", check=lambda: loss_on(again, packed)
    )
    assert two.curve == one.curve
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_it_stops_early_with_the_best(tmp_path: Path) -> None:
    policy, packed = policy_of("train"), rows()
    losses = iter([3.0, 2.0, 2.5, 2.6, 1.0])
    kept: list[Tensor] = []

    def check() -> float:
        kept.append(policy.tensors["head.weight"].detach().clone())
        return next(losses)

    fitted = fit(
        policy,
        _ce(policy, packed),
        Fit(steps=100, rate=0.01, check_every=2, patience=2),
        tmp_path,
        identity="x",
        check=check,
    )
    assert (fitted.stopped, fitted.step) == ("early", 8)
    assert torch.equal(policy.tensors["head.weight"], kept[1])


def test_a_checkpoint_of_another_run_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    policy, packed = policy_of("train"), rows()
    fit(policy, _ce(policy, packed), Fit(steps=2, rate=0.01), tmp_path, identity="x")
    with pytest.raises(FitError, match="belongs to another run"):
        fit(policy, _ce(policy, packed), Fit(steps=3, rate=0.01), tmp_path, identity="y")
    torch.save({"identity": "x", "step": 2}, tmp_path / CHECKPOINT)
    with pytest.raises(FitError, match="written by another version of this program: remove it"):
        fit(policy, _ce(policy, packed), Fit(steps=3, rate=0.01), tmp_path, identity="x")
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(FitError, match="cannot be read"):
        fit(policy, _ce(policy, packed), Fit(steps=3, rate=0.01), tmp_path, identity="x")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    policy = policy_of("train")
    with pytest.raises(FitError, match="step 1 is nan"):
        fit(
            policy,
            lambda _: Taken(policy.tensors["head.weight"].sum() * math.nan, 0.0),
            Fit(steps=3, rate=0.01),
            tmp_path,
            identity="x",
        )


def test_a_gradient_that_is_no_number_ends_the_run_with_no_tensor_changed(tmp_path: Path) -> None:
    policy = policy_of("train")
    before = policy.tensors["head.weight"].detach().clone()

    def loss(_: int) -> Taken:
        zero = policy.tensors["head.weight"] - before
        return Taken(zero.square().sum().sqrt(), 0.0)  # 0, and its slope is infinite

    with pytest.raises(FitError, match="the gradient of step 1 is NaN or infinite"):
        fit(policy, loss, Fit(steps=3, rate=0.01), tmp_path, identity="x")
    assert torch.equal(policy.tensors["head.weight"], before)


class Counting:
    """Cross entropy, weighted by how often it was asked before: exact only with its memory."""

    def __init__(self, policy: Policy, packed: Packed) -> None:
        self.loss, self.count = _ce(policy, packed), 0

    def __call__(self, step: int) -> Taken:
        self.count += 1
        taken = self.loss(step)
        return Taken(taken.loss * self.count, taken.value)

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, saved: dict[str, Any]) -> None:
        self.count = saved["count"]


@pytest.mark.parametrize("died_at", [1, 5, 8])
def test_a_run_that_died_within_steps_that_belong_together_goes_on_before_them(tmp_path: Path, died_at: int) -> None:
    settings, packed = Fit(steps=9, rate=0.01, check_every=4, save_every_s=0, whole=3), rows()
    whole, died, again = policy_of("train"), policy_of("train"), policy_of("train")
    for name in ("whole", "died"):
        (tmp_path / name).mkdir()
    one = fit(whole, Counting(whole, packed), settings, tmp_path / "whole", identity="x", check=lambda: 1.0)

    def die(step: int, _: float) -> None:
        if step == died_at:
            raise SystemExit

    with pytest.raises(SystemExit):
        fit(died, Counting(died, packed), settings, tmp_path / "died", identity="x", check=lambda: 1.0, said=die)
    if died_at > 3:
        found = torch.load(tmp_path / "died" / CHECKPOINT, weights_only=True)
        assert (found["step"], found["more"]["memory"]) == (3 * (died_at // 3), {"count": 3 * (died_at // 3)})
    two = fit(again, Counting(again, packed), settings, tmp_path / "died", identity="x", check=lambda: 1.0)
    assert two.curve == one.curve
    assert [step for step, _ in one.curve.validation] == [6, 9]
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_a_run_that_stopped_early_has_ended(tmp_path: Path) -> None:
    policy, packed = policy_of("train"), rows()
    settings, losses = Fit(steps=20, rate=0.01, check_every=1, patience=1), iter([2.0, 3.0])
    first = fit(policy, _ce(policy, packed), settings, tmp_path, identity="x", check=lambda: next(losses))
    again = policy_of("train")
    second = fit(again, _ce(again, packed), settings, tmp_path, identity="x", check=lambda: next(losses))
    assert (first.stopped, first.step) == (second.stopped, second.step) == ("early", 2)
    assert all(torch.equal(policy.tensors[name], again.tensors[name]) for name in policy.tensors)


def test_a_full_disk_is_told_and_the_former_checkpoint_stands(tmp_path: Path) -> None:
    policy, packed = policy_of("train"), rows()
    fit(policy, _ce(policy, packed), Fit(steps=2, rate=0.01), tmp_path, identity="x")
    before = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).with_suffix(".part").symlink_to("/dev/full")
    with pytest.raises(
        FitError, match=r"step 3 cannot be written \(No space left on device\); the previous one is intact"
    ):
        fit(policy, _ce(policy, packed), Fit(steps=3, rate=0.01), tmp_path, identity="x")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_steps_that_belong_together_are_whole() -> None:
    with pytest.raises(FitError, match="7 steps is not a multiple of 2"):
        Fit(steps=7, rate=0.1, whole=2)


def test_the_rate_rises_and_falls() -> None:
    settings = Fit(steps=100, rate=1.0, warm_up=10)
    factors = [settings.factor(step) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == pytest.approx(1.0)
    assert Curve([(1, 3.0), (2, 1.0)]).trend == 2.0


def test_cross_entropy_counts_the_answer_alone() -> None:
    batch = tensors([Sample([1, 2, 3, 4], 2), Sample([5, 6, 7], 1)])
    logits = torch.randn(2, 3, 20)
    logps = torch.log_softmax(logits, dim=-1)
    by_hand = [logps[0, 1, 3], logps[0, 2, 4], logps[1, 0, 6], logps[1, 1, 7]]
    assert float(cross_entropy(logits, batch)) == pytest.approx(-float(torch.stack(by_hand).mean()), rel=1e-5)
    assert answer_logps(logits, batch).tolist() == pytest.approx(
        [float(by_hand[0] + by_hand[1]), float(by_hand[2] + by_hand[3])], rel=1e-5
    )


def test_dpo_prefers_the_chosen_against_the_reference() -> None:
    zero = torch.zeros(2)
    even = dpo(torch.tensor([-3.0, -5.0]), torch.tensor([-3.0, -5.0]), zero - 3, zero - 3, beta=0.1)
    assert float(even.loss) == pytest.approx(math.log(2))
    better = dpo(torch.tensor([-1.0]), torch.tensor([-3.0]), torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.5)
    assert float(better.loss) == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * 2))))
    assert (better.accuracy, better.margin) == (1.0, 2.0)


def test_advantages_compare_within_a_group() -> None:
    found = advantages(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5]]))
    assert found[0].tolist() == pytest.approx([1, -1, 1, -1])
    assert found[1].tolist() == [0, 0, 0, 0]


def test_a_clipped_ratio_gives_no_gradient_beyond_the_clip() -> None:
    logps = torch.tensor([[0.5, 0.0]], requires_grad=True)  # ratios 1.65 and 1
    weights = torch.ones(1, 2)
    loss = clipped(logps, torch.zeros(1, 2), torch.tensor([[1.0]]), weights, clip=0.2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(-(1.2 + 1.0) / 2)
    assert logps.grad is not None
    assert logps.grad[0].tolist() == pytest.approx([0.0, -0.5])
    worse = torch.tensor([[0.5, 0.0]], requires_grad=True)
    clipped(worse, torch.zeros(1, 2), torch.tensor([[-1.0]]), weights, clip=0.2).backward()  # type: ignore[no-untyped-call]
    assert worse.grad is not None
    assert worse.grad[0, 0] > 0, "what made a bad answer likelier is always undone"


def test_the_divergence_is_never_negative_and_zero_of_itself() -> None:
    logps = torch.log_softmax(torch.randn(3, 4, 20), dim=-1)
    picked = token_logps(logps, torch.zeros(3, 4, dtype=torch.int64))
    weights = torch.ones(3, 4)
    assert float(divergence(picked, picked, weights)) == 0.0
    assert float(divergence(picked, picked - 0.3, weights)) > 0
    assert float(divergence(picked, picked + 0.3, weights)) > 0
