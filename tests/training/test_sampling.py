"""Answers are drawn from what the policy says, end where they are to end, and come again by their seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy_toys import stir, toy

from training.objectives import token_logps
from training.policy import PolicyError
from training.sampling import Answer, Sampling, drawn, sample

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[73, 102, 33], [9], [10, 201, 7, 88, 91, 33], [9]]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("model", "kind"), [("rwkv7", "tune"), ("rwkv7", "train"), ("exact", "tune"),
                                             ("exact", "train"), ("chunked", "tune")])  # fmt: skip
def test_each_token_has_the_probability_that_training_sees(
    tmp_path: Path, model: str, kind: str, temperature: float
) -> None:
    policy = toy(tmp_path, model, kind)  # type: ignore[arg-type]
    stir(policy, 0.02)
    answers = sample(
        policy, PROMPTS, Sampling(max_tokens=12, end=0, stops=((5,), (60, 61)), temperature=temperature), seed=3
    )
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        row = torch.tensor([[*prompt, *answer.tokens]])
        wanted = token_logps(policy.logits(row[:, :-1]) / temperature, row[:, 1:])[0, len(prompt) - 1 :]
        assert torch.tensor(answer.logps).tolist() == pytest.approx(wanted.tolist(), abs=2e-3)


def test_the_same_seed_gives_the_same_answers_and_another_does_not(tmp_path: Path) -> None:
    policy = toy(tmp_path, "rwkv7", "train")
    first, again, other = (sample(policy, PROMPTS, Sampling(max_tokens=9), seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first[1] != first[3], "the same prompt is answered by draws of its own"
    stir(policy, 0.5)
    assert sample(policy, PROMPTS, Sampling(max_tokens=9), 1) != first


def test_an_answer_ends_by_end_stop_or_length(tmp_path: Path) -> None:
    policy = toy(tmp_path, "rwkv7", "train")
    plain = sample(policy, [[9]], Sampling(max_tokens=9), 4)[0]
    assert (len(plain.tokens), plain.ended, plain.body) == (9, False, plain.tokens)
    ended = sample(policy, [[9]], Sampling(max_tokens=9, end=plain.tokens[3]), 4)[0]
    assert ended == Answer(plain.tokens[:4], plain.logps[:4], 1)
    assert ended.body == plain.tokens[:3]
    stopped = sample(policy, [[9]], Sampling(max_tokens=9, stops=(plain.tokens[3:6], (256, 256))), 4)[0]
    assert (stopped.tokens, stopped.closing, stopped.body) == (plain.tokens[:6], 3, plain.tokens[:3])
    together = sample(policy, [[9], [9, 8]], Sampling(max_tokens=9, end=plain.tokens[3]), 4)
    assert together[0].tokens == ended.tokens
    assert len(together[1].tokens) == 9, "the other goes on"


def test_what_is_drawn_follows_the_probabilities() -> None:
    logits = torch.tensor([2.0, 0.0, -torch.inf, 1.0])
    count = 4000
    draws = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for temperature in (1.0, 0.5):
        tokens, logps = drawn(logits.expand(count, 4), draws, temperature)
        wanted = (logits / temperature).softmax(dim=0)
        assert (tokens.bincount(minlength=4) / count).tolist() == pytest.approx(wanted.tolist(), abs=0.03)
        assert logps.exp().tolist() == pytest.approx(wanted[tokens].tolist())
    assert drawn(logits.expand(2, 4), draws[:2], 0.0)[0].tolist() == [0, 0]
    edges = torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64)
    assert drawn(logits.expand(2, 4), edges, 1.0)[0].tolist() == [0, 3]


def test_a_prompt_that_cannot_be_answered_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="prompt 1 is empty"):
        sample(toy(tmp_path, "rwkv7", "tune"), [[1], []], Sampling(max_tokens=3), 0)
    with pytest.raises(PolicyError, match="prompt 0 has 2047 tokens, but this model can read at most 2047 after"):
        sample(toy(tmp_path, "exact", "tune"), [[1] * 2047], Sampling(max_tokens=3), 0)
    assert len(sample(toy(tmp_path, "exact", "tune"), [[1] * 2044], Sampling(max_tokens=9), 0)[0].tokens) == 3
    for wrong in ({"max_tokens": 0}, {"max_tokens": 1, "temperature": -1.0}, {"max_tokens": 1, "stops": ((),)}):
        with pytest.raises(ValueError):
            Sampling(**wrong)  # type: ignore[arg-type]
