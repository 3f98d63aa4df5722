"""Answers drawn from a policy as it stands, many side by side, repeatable by their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.packing import PAD
from training.policy import Policy, PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn and what ends one: the token `end`, or any sequence of `stops`, such as a fence's tokens.

    `temperature` 0 takes the likeliest token. `lanes`: answers that are drawn side by side.
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
        """How many of the last tokens end the answer; 0 where it goes on."""
        if tokens[-1] == self.end:
            return 1
        found = (len(stop) for stop in self.stops if tuple(tokens[-len(stop) :]) == stop)
        return max(found, default=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens, what ended it among them, and log p of each [nats] under the distribution that it was drawn from.

    `closing` counts the last tokens that ended it: 0 where it only reached its length. Where the likeliest tokens were
    taken, `logps` are those at temperature 1.
    """

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    closing: int

    @property
    def ended(self) -> bool:
        return self.closing > 0

    @property
    def body(self) -> tuple[int, ...]:
        """Without what ended it."""
        return self.tokens[: len(self.tokens) - self.closing]


def sample(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[Answer]:
    """An answer to each prompt, of a token at least. The same seed and tensors give the same answers.

    Raises PolicyError for a prompt that is empty or leaves no room for a token.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise PolicyError(f"prompt {number} is empty")
        if policy.room is not None and len(prompt) >= policy.room:
            raise PolicyError(
                f"prompt {number} has {len(prompt)} tokens, but this model's contexts end {policy.room} after the start"
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
    # Draws of its own for each prompt, whatever becomes of the others.
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
    """logits [B,V], draws [B] in 0..1, fp64 -> a token of each [B] and its log p [B]."""
    logits = logits.float() / (temperature or 1.0)
    logps = logits.log_softmax(dim=-1)
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        below = logits.double().softmax(dim=-1).cumsum(dim=-1)  # (B, V)
        at = draws * below[:, -1]  # what rounding leaves of 1
        tokens = torch.searchsorted(below, at.unsqueeze(1), right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens.unsqueeze(1)).squeeze(1)
