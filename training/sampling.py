"""Samples many answers from a policy in parallel. The same seed gives the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.packing import PAD
from training.policy import Policy, PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample answers. The token `end`, or any sequence in `stops` (such as a fence's tokens), ends an answer.

    `temperature` 0 takes the most likely token. `lanes`: how many answers to sample in parallel.
    """

    max_tokens: int
    end: int | None = None
    stops: tuple[tuple[int, ...], ...] = ()
    temperature: float = 1.0
    lanes: int = 64

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.lanes < 1:
            raise ValueError(f"max_tokens and lanes must each be at least 1, not {self.max_tokens} and {self.lanes}")
        if self.temperature < 0:
            raise ValueError(f"the temperature must be 0 or more, not {self.temperature}")
        if not all(self.stops):
            raise ValueError("a stop sequence must have at least one token")

    def closing(self, tokens: Sequence[int]) -> int:
        """How many of the last tokens end the answer; 0 if it has not ended."""
        if tokens[-1] == self.end:
            return 1
        found = (len(stop) for stop in self.stops if tuple(tokens[-len(stop) :]) == stop)
        return max(found, default=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens, including the end, and log p of each (nats) in the distribution that it was sampled from.

    `closing` counts the tokens that ended it; 0 if it stopped at the maximum length. If sampling took the most likely
    tokens, `logps` are those at temperature 1.
    """

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    closing: int

    @property
    def ended(self) -> bool:
        return self.closing > 0

    @property
    def body(self) -> tuple[int, ...]:
        """The tokens without the end."""
        return self.tokens[: len(self.tokens) - self.closing]


def sample(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[Answer]:
    """An answer of at least one token to each prompt. The same seed and tensors give the same answers.

    Raises PolicyError if a prompt is empty or leaves no room for an answer.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise PolicyError(f"prompt {number} is empty")
        if policy.room is not None and len(prompt) >= policy.room:
            raise PolicyError(
                f"prompt {number} has {len(prompt)} tokens, but this model can read at most {policy.room} after the "
                "start"
            )
    generator = torch.Generator().manual_seed(seed)
    answers: list[Answer] = []
    for first in range(0, len(prompts), sampling.lanes):
        answers += _side_by_side(policy, prompts[first : first + sampling.lanes], sampling, generator)
    return answers


@torch.no_grad()
def _side_by_side(
    policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling, generator: torch.Generator
) -> list[Answer]:
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    width = int(lengths.max())
    tokens = torch.tensor([[*prompt, *[PAD] * (width - len(prompt))] for prompt in prompts])
    logits, state = policy.read(tokens, lengths, policy.begin(len(prompts)))
    most = [sampling.max_tokens if policy.room is None else min(sampling.max_tokens, policy.room - len(prompt))
            for prompt in prompts]  # fmt: skip
    said = [list[int]() for _ in prompts]
    logps = [list[float]() for _ in prompts]
    closings = [0] * len(prompts)
    live = list(range(len(prompts)))  # the prompt of each lane
    # Each prompt has its own random draws, so it does not depend on the others.
    draws = torch.rand(len(prompts), max(most), generator=generator, dtype=torch.float64)
    for step in range(max(most)):
        chosen, found = drawn(logits, draws[live, step], sampling.temperature)
        going = []
        for lane, (prompt, token, logp) in enumerate(zip(live, chosen.tolist(), found.tolist(), strict=True)):
            said[prompt].append(token)
            logps[prompt].append(logp)
            closings[prompt] = sampling.closing(said[prompt])
            if not closings[prompt] and len(said[prompt]) < most[prompt]:
                going.append(lane)
        if not going:
            break
        if len(going) < len(live):
            state, live = policy.pick(state, going), [live[lane] for lane in going]
        logits, state = policy.read(chosen[going].unsqueeze(1), None, state)
    return [Answer(tuple(s), tuple(p), c) for s, p, c in zip(said, logps, closings, strict=True)]


def drawn(logits: Tensor, draws: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """logits [B,V], draws [B] in 0..1, fp64 -> one sampled token per row [B], and its log p [B]."""
    logits = logits.float() / (temperature or 1.0)
    logps = logits.log_softmax(dim=-1)
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        below = logits.double().softmax(dim=-1).cumsum(dim=-1)  # (B, V)
        at = draws * below[:, -1]  # the last sum may differ from 1 by rounding
        tokens = torch.searchsorted(below, at.unsqueeze(1), right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens.unsqueeze(1)).squeeze(1)
