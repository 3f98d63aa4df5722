"""Each method optimises what its name says: losses fall, margins and rewards rise, the clip clips, beta holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_toys import BASE, TINY, stir, toy

from models import mini, rwkv7
from training.fit import Fit, FitError, Taken, fit
from training.methods import Dpo, Pair, Supervised, drawn_rows, validation
from training.opening import open_policy
from training.packing import Sample, pack, stream
from training.policy import Architecture, Kind, Policy
from training.reinforcement import Grpo, Ppo, returns_of
from training.rollouts import Asking, Reference, logps_of, roll_out
from training.rwkv7_policy import Rwkv7Policy
from training.sampling import Sampling

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {**{name: getattr(TINY, name) for name in TINY.__slots__}, "vocabulary": 12}
WEIGHTS = {name: 0.6 * tensor for name, tensor in rwkv7.random_tensors(rwkv7.Config(**SMALL), 3).items()}
PAIRS = [Pair([1, 2, 3 + row], [5, 6, 0], [7, 8, 9, 0], row) for row in range(6)]
PROMPTS = [[1, 2], [3, 4, 5], [6], [7, 8]]
WANTED = 5


def policy_of(kind: Kind) -> Rwkv7Policy:
    return Rwkv7Policy(BASE, WEIGHTS, kind)


def reward(_: int, tokens: Sequence[int], ended: bool) -> float:
    """The share of one token in the answer."""
    return sum(token == WANTED for token in tokens) / 5


def asking(**options: Any) -> Asking:
    given: dict[str, Any] = {"group": 8, "prompts_per_step": 4, "seed": 1, **options}
    return Asking(prompts=PROMPTS, reward=given.pop("reward", reward), sampling=Sampling(max_tokens=5, end=0), **given)


METHODS: dict[str, Callable[..., Grpo | Ppo]] = {"grpo": Grpo, "ppo": Ppo}


@pytest.mark.parametrize("packing", [lambda rows: pack(rows, 60, 20), lambda rows: stream(rows, 60, 15, 0)])
def test_supervised_learns_the_answers(tmp_path: Path, packing: Callable[..., Any]) -> None:
    packed = packing([Sample([1 + row, 2, 3, 4 + row, 0], 2, row) for row in range(6)])
    policy = policy_of("train")
    check = validation(policy, packed)
    before = check()
    fitted = fit(policy, Supervised(policy, packed, 1), Fit(steps=25, rate=0.03), tmp_path, identity="x", check=check)
    assert check() < 0.3 * before
    assert fitted.curve.trend > 0


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_dpo_prefers_the_chosen_ever_more(tmp_path: Path, kind: Kind) -> None:
    policy = policy_of(kind)
    loss = Dpo(policy, PAIRS, beta=0.5, pairs_per_step=4)
    first = loss(0)
    assert first.value == pytest.approx(0.6931, abs=1e-3), "the policy is its reference at the start"
    loss = Dpo(policy, PAIRS, beta=0.5, pairs_per_step=4)
    rate = 0.01 if kind == "train" else 0.1
    fitted = fit(policy, loss, Fit(steps=20, rate=rate, warm_up=1), tmp_path, identity="x")
    assert fitted.curve.trend > 0.1
    assert loss.trace["accuracy"][-1] == 1.0
    assert loss.trace["margin"][-1] > 1
    assert len(loss.trace["margin"]) == 20


@pytest.mark.parametrize("method", METHODS)
def test_the_reward_rises_by_the_weights(tmp_path: Path, method: str) -> None:
    loss = METHODS[method](policy := policy_of("train"), asking(whole=2), beta=0.01)
    fitted = fit(policy, loss, Fit(steps=24, rate=0.02, warm_up=1, whole=2), tmp_path, identity="x")
    assert fitted.curve.trend > 0.15
    assert fitted.curve.training[0][1] == -loss.trace["reward"][0]
    assert max(loss.trace["clipped"][1::2]) > 0
    assert max(loss.trace["clipped"][::2]) == 0, "the first of the steps that belong together is at ratio 1"


@pytest.mark.parametrize(("architecture", "path", "method", "rate"), [
    ("rwkv7", mini.path(), "ppo", 0.1), ("asm", mini.asm_path(), "grpo", 0.5),
])  # fmt: skip
def test_the_reward_rises_by_the_state_alone(
    tmp_path: Path, architecture: Architecture, path: Path, method: str, rate: float
) -> None:
    """A model that has learnt to remember is led by what it is made to remember."""
    policy = open_policy(architecture, path, "tune")
    prompts, (wanted,) = (
        [policy.base.tokenizer.encode(text) for text in ("a ", "o ")],
        policy.base.tokenizer.encode("e"),
    )
    given = Asking(
        prompts=prompts,
        reward=lambda _, tokens, __: list(tokens).count(wanted) / 2,
        sampling=Sampling(max_tokens=2, end=0),
        group=16,
        prompts_per_step=2,
        whole=2,
    )
    loss = METHODS[method](policy, given, beta=0.01)
    fit(policy, loss, Fit(steps=8, rate=rate, warm_up=1, whole=2), tmp_path, identity="x")
    assert loss.trace["reward"][-1] > loss.trace["reward"][0] + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_beta_holds_the_policy_near_its_reference(tmp_path: Path, method: str) -> None:
    strayed = {}
    for beta in (0.001, 3.0):
        policy = policy_of("train")
        loss = METHODS[method](policy, asking(), beta=beta)
        (tmp_path / str(beta)).mkdir()
        fit(policy, loss, Fit(steps=6, rate=0.02, warm_up=1), tmp_path / str(beta), identity="x")
        strayed[beta] = sum(loss.trace["divergence"][-2:]) / 2
    assert strayed[3.0] < 0.3 * strayed[0.001]


@pytest.mark.parametrize("method", ["dpo", *METHODS])
@pytest.mark.parametrize("kind", ["tune", "train"])
def test_gradients_are_those_of_finite_differences(method: str, kind: Kind) -> None:
    """At a place where ratios are not 1 and the reference is another."""
    policy = policy_of(kind)
    loss: Callable[[int], Taken]
    if method == "dpo":
        loss = Dpo(policy, PAIRS, beta=0.5)
    else:
        loss = METHODS[method](policy, asking(whole=1000), beta=0.5, clip=0.9)
        loss(0)
    torch.manual_seed(1)
    for tensor in policy.tensors.values():
        tensor.data += 0.02 * torch.randn(tensor.shape)
    taken = loss(1)
    taken.loss.backward()  # type: ignore[no-untyped-call]
    gradient = {name: tensor.grad for name, tensor in policy.tensors.items()}
    norm = torch.stack([grad.norm() for grad in gradient.values() if grad is not None]).norm()
    h = 5e-3
    values = []
    for sign in (1, -1):
        for name, tensor in policy.tensors.items():
            tensor.data += sign * h * gradient[name] / norm
        values.append(float(loss(1).loss.detach()))
        for name, tensor in policy.tensors.items():
            tensor.data -= sign * h * gradient[name] / norm
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(norm), rel=0.02)
    assert norm > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_beyond_the_clip_there_is_no_gradient(method: str) -> None:
    """Where every token of a good answer is likelier than the clip allows, and of a bad one less likely."""
    policy = policy_of("train")
    loss = METHODS[method](policy, asking(whole=1000), beta=0.0, clip=0.1)
    loss(0)
    rollout = loss._rollout
    assert rollout is not None
    rollout.old = rollout.old - 0.5 * rollout.advantage.sign()
    loss(1).loss.backward()  # type: ignore[no-untyped-call]
    assert all(tensor.grad is None or not tensor.grad.any() for tensor in policy.tensors.values())
    assert loss.trace["clipped"][-1] == pytest.approx(float((rollout.advantage != 0).float().expand_as(rollout.old)
                                                            [rollout.batch.weights > 0].mean()))  # fmt: skip
    rollout.old = rollout.old + rollout.advantage.sign()
    loss(2).loss.backward()  # type: ignore[no-untyped-call]
    assert any(tensor.grad is not None and tensor.grad.any() for tensor in policy.tensors.values())


def test_returns_carry_the_reward_and_what_straying_costs() -> None:
    policy = policy_of("train")
    loss = Ppo(policy, asking(group=1, prompts_per_step=1), beta=0.5)
    loss(0)
    rollout = loss._rollout
    assert rollout is not None
    assert rollout.reference is not None
    weights, first = rollout.batch.weights, int(rollout.batch.weights[0].argmax())
    rollout.reference = rollout.old - 0.1 * weights  # each token is 0.1 nats likelier than by the reference
    rollout.rewards = torch.tensor([[2.0]])
    count = int(weights.sum())
    wanted = [2.0 - 0.05 * left for left in range(count, 0, -1)]
    assert returns_of(rollout, 0.5)[0, first:].tolist() == pytest.approx(wanted)
    assert returns_of(rollout, 0.0)[0, first:].tolist() == pytest.approx([2.0] * count)


def test_the_running_baseline_is_of_earlier_batches() -> None:
    worth = iter([1.0] * 4 + [3.0] * 4 + [3.0] * 4)
    loss = Ppo(policy_of("train"), asking(group=1, reward=lambda *_: next(worth)), beta=0.0)
    advantages = []
    for step in range(3):
        loss(step)
        assert loss._rollout is not None
        advantages.append(float(loss._rollout.advantage.max()))
    assert advantages[0] == 0
    assert advantages[1] == pytest.approx(2 / 0.4**0.5)  # over the root of a tenth of 2 squared
    assert loss.trace["baseline"] == pytest.approx([1.0, 1.2, 1.38])


@pytest.mark.parametrize("method", ["dpo", *METHODS])
def test_a_run_that_died_ends_as_one_that_did_not(tmp_path: Path, method: str) -> None:
    def run(policy: Policy, name: str, die_at: int = 0) -> tuple[Any, Any]:
        loss = Dpo(policy, PAIRS, pairs_per_step=4) if method == "dpo" else METHODS[method](policy, asking(whole=2))
        (tmp_path / name).mkdir(exist_ok=True)

        def said(step: int, _: float) -> None:
            if step == die_at:
                raise SystemExit

        whole = 1 if method == "dpo" else 2
        found = fit(
            policy, loss, Fit(steps=6, rate=0.02, save_every_s=0, whole=whole), tmp_path / name, identity="x", said=said
        )
        return found.curve, loss.state()

    one, again = policy_of("train"), policy_of("train")
    undisturbed = run(one, "whole")
    with pytest.raises(SystemExit):
        run(policy_of("train"), "died", 5)
    assert run(again, "died") == undisturbed
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize(("model", "kind"), [("rwkv7", "train"), ("exact", "tune"), ("exact", "train")])
def test_the_reference_stays_and_nothing_of_the_policy_moves(tmp_path: Path, model: str, kind: Kind) -> None:
    policy, given = toy(tmp_path, model, kind), asking()
    reference = Reference(policy)
    batch, _, _ = roll_out(policy, given, 0)
    before = logps_of(policy, batch, 1.0).detach()
    stir(policy, 0.1)
    moved = logps_of(policy, batch, 1.0).detach()
    assert torch.equal(reference.logps(batch, 1.0), before)
    assert torch.equal(logps_of(policy, batch, 1.0).detach(), moved)
    assert not torch.equal(before, moved)


def test_answers_come_again_by_their_number() -> None:
    given = Asking(prompts=[[1, 2]], reward=reward, sampling=Sampling(max_tokens=5), prompts_per_step=1)
    one, again, next_one = (roll_out(policy_of("train"), given, number)[1] for number in (0, 0, 1))
    assert one == again != next_one


def test_every_epoch_draws_every_row() -> None:
    drawn = [drawn_rows(5, 2, 1, number) for number in range(10)]
    flat = [row for rows in drawn for row in rows]
    assert all(sorted(flat[at : at + 5]) == list(range(5)) for at in range(0, 20, 5))
    assert flat[:5] != flat[5:10]
    assert drawn == [drawn_rows(5, 2, 1, number) for number in range(10)]


def test_what_cannot_be_learnt_from_is_told() -> None:
    policy = policy_of("tune")
    with pytest.raises(FitError, match="no pair"):
        Dpo(policy, [])
    with pytest.raises(FitError, match="beta must be more than 0"):
        Dpo(policy, PAIRS, beta=0)
    with pytest.raises(FitError, match="no prompt"):
        Asking(prompts=[], reward=reward, sampling=Sampling(max_tokens=3))
    with pytest.raises(FitError, match="temperature must be more than 0"):
        Asking(prompts=PROMPTS, reward=reward, sampling=Sampling(max_tokens=3, temperature=0))
    with pytest.raises(FitError, match="group must be at least 2"):
        Grpo(policy, asking(group=1))
    with pytest.raises(FitError, match=r"the reward of an answer to prompt \d is nan"):
        Ppo(policy, asking(reward=lambda *_: float("nan")))(0)
    with pytest.raises(FitError, match="2 steps share each batch of answers"):
        Ppo(policy, asking(whole=2))(1)
    with pytest.raises(ValueError, match="a prompt and an answer"):
        Dpo(policy, [Pair([1], [2], [])])
