"""The objective of a stage on the rows of a specialist: the loss of each step, the validation check, and their sizes.

stage_a, stage_b, sft    cross entropy on the answers of the rows
dpo                      pairs of answers: from a file, or each row's answer against one that the policy gives
grpo, ppo                the policy's own answers, scored by the track's scorer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from specialists.data import Data
from specialists.grammars import Grammar
from specialists.rewards import Reward
from specialists.rows import Row
from specialists.samples import Asked, covering, read_pairs, samples_of
from specialists.settings import Settings
from specialists.stages import BY_PREFERENCE, Stage
from ssmprov.errors import BadRequest
from ssmprov.transcript import FENCE
from training.fit import Check, FitError, Loss
from training.methods import Dpo, Pair, Supervised, validation
from training.packing import Lane, Packed, Sample, pack, reply_budget, stream
from training.policy import Policy
from training.reinforcement import Grpo, Ppo
from training.rollouts import Asking
from training.sampling import Sampling, sample

VALIDATION_TOKENS = 16_384
"""How many tokens of validation rows a check reads at most."""

MOST_ASKED = 256
"""How many training prompts the policy answers at most, to find pairs."""


@dataclass(slots=True, kw_only=True)
class Objective:
    """The loss and the validation check of a stage. `whole` is the number of steps that share a batch of answers.

    `oversize` has the lines of rows that were left out because they have more than `longest` tokens. `fill` is the
    share of the batches that is not padding. `tokens` counts the tokens of an epoch, and `reply_tokens` is the limit
    for an answer.
    """

    loss: Loss
    check: Check | None
    longest: int
    oversize: Sequence[int]
    fill: float
    tokens: int
    reply_tokens: int
    whole: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What to teach a policy, and how. `pairs` is the file of pairs; None means that the policy's answers form them."""

    policy: Policy
    stage: Stage
    data: Data
    asked: Asked
    settings: Settings
    seed: int
    reward: Reward
    grammar: Grammar
    pairs: Path | None
    ascii: bool

    def sampling(self, max_tokens: int) -> Sampling:
        """How to sample answers from the policy."""
        tokenizer = self.policy.base.tokenizer
        stop = tuple(tokenizer.encode(FENCE))
        return Sampling(max_tokens=max_tokens, end=tokenizer.end, stops=(stop,), temperature=self.settings.temperature)


def objective_of(teaching: Teaching) -> Objective:
    """The objective of a stage.

    Raises BadRequest if the tokenizer cannot spell the rows, if all rows are too long, or if there are no pairs.
    """
    policy, settings = teaching.policy, teaching.settings
    longest = min(settings.longest, settings.batch_tokens, *([policy.room] if policy.room else []))
    rows = teaching.data.parts
    train = samples_of(rows["train"], teaching.asked, policy.base.tokenizer)
    try:
        if settings.packing == "stream":
            packed = stream(train, settings.batch_tokens, longest, teaching.seed)
        else:
            packed = pack(train, settings.batch_tokens, longest)
        checked = pack(
            samples_of(rows["validation"], teaching.asked, policy.base.tokenizer), settings.batch_tokens, longest
        )
        left_out = set(packed.oversize)
        fitting = [sample for sample in train if sample.row not in left_out]
        found = Objective(
            loss=Supervised(policy, packed, teaching.seed),
            check=validation(policy, _some(checked)),
            longest=longest,
            oversize=sorted(packed.oversize + checked.oversize),
            fill=round(packed.fill, 4),
            tokens=packed.real_tokens,
            reply_tokens=settings.reply_tokens or reply_budget(fitting, policy.room),
        )
        if teaching.stage in BY_PREFERENCE:
            _by_preference(teaching, found, [row for row in rows["train"] if row.line not in left_out])
    except FitError as error:
        raise BadRequest(str(error)) from None
    except ValueError as error:
        raise BadRequest(f"{error}: shorten the rows, or raise `longest` and `batch_tokens` in the plan") from None
    return found


def _by_preference(teaching: Teaching, found: Objective, rows: Sequence[Row]) -> None:
    """Replace cross entropy with the stage's own loss. Remove the check too, since cross entropy is not optimised."""
    policy, settings, found.check = teaching.policy, teaching.settings, None
    encode = covering(policy.base.tokenizer)
    sampling = teaching.sampling(found.reply_tokens)
    if teaching.stage == "dpo":
        pairs = _read(teaching) if teaching.pairs else _found(teaching, rows, sampling)
        found.loss = Dpo(policy, pairs, beta=settings.beta, pairs_per_step=settings.prompts, seed=teaching.seed)
        return
    spell = _speller(policy)

    def reward(prompt: int, answer: Sequence[int], ended: bool) -> float:
        return teaching.reward(rows[prompt], spell(answer), ended)

    prompts = [encode(teaching.asked.question(row.prompt), row.line) for row in rows]
    asking = Asking(
        prompts=prompts,
        reward=reward,
        sampling=sampling,
        group=settings.group,
        prompts_per_step=settings.prompts,
        whole=settings.reuse,
        seed=teaching.seed,
    )
    kind = Grpo if teaching.stage == "grpo" else Ppo
    found.loss = kind(policy, asking, clip=settings.clip, beta=settings.beta)
    found.whole = settings.reuse


def _read(teaching: Teaching) -> list[Pair]:
    encode, asked = covering(teaching.policy.base.tokenizer), teaching.asked
    assert teaching.pairs is not None
    return [
        Pair(
            encode(asked.question(pair.prompt), pair.line),
            encode(asked.answer(pair.chosen), pair.line),
            encode(asked.answer(pair.rejected), pair.line),
            pair.line,
        )
        for pair in read_pairs(teaching.pairs, teaching.grammar, ascii_only=teaching.ascii)
    ]


def _found(teaching: Teaching, rows: Sequence[Row], sampling: Sampling) -> list[Pair]:
    """Pairs of each row's answer and an answer of the policy that the scorer finds worse."""
    encode, asked, policy = covering(teaching.policy.base.tokenizer), teaching.asked, teaching.policy
    chosen = list(rows)
    Random(teaching.seed).shuffle(chosen)
    chosen = chosen[:MOST_ASKED]
    prompts = [encode(asked.question(row.prompt), row.line) for row in chosen]
    spell, pairs = _speller(policy), []
    for row, prompt, answer in zip(chosen, prompts, sample(policy, prompts, sampling, teaching.seed), strict=True):
        best = teaching.reward(row, f" {row.answer}", True)
        if teaching.reward(row, spell(answer.body), answer.ended) < best:
            pairs.append(Pair(prompt, encode(asked.answer(row.answer), row.line), answer.tokens, row.line))
    if not pairs:
        raise BadRequest(
            f"none of the policy's {len(chosen)} answers was worse than the row's answer, so there are no pairs to "
            "learn from. Name a file of pairs in the plan (`pairs`), or choose another stage"
        )
    return pairs


def _speller(policy: Policy) -> Callable[[Sequence[int]], str]:
    piece = policy.base.tokenizer.piece
    return lambda tokens: b"".join(map(piece, tokens)).decode("utf-8", "replace")


def _some(packed: Packed) -> Packed:
    """At least one batch, and about `VALIDATION_TOKENS` tokens in all, with rows of all lengths."""
    batches = list(packed.batches)
    Random(0).shuffle(batches)
    kept, tokens = list[Sequence[Sample | Lane]](), 0
    for batch in batches:
        if kept and tokens >= VALIDATION_TOKENS:
            break
        kept.append(batch)
        tokens += sum(len(lane.tokens) for lane in batch)
    return Packed(kept, packed.oversize, tokens, packed.padded_tokens)
