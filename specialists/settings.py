"""How to tune or train a stage. Options override the plan's stage, which overrides the defaults of kind and stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from specialists.plan import HOTTEST, Packing, Plan
from specialists.stages import BY_PREFERENCE, Kind, Stage
from ssmprov.errors import BadRequest


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one run with gradients.

    `longest` is the limit for the tokens of a row, prompt and answer; longer rows are left out and reported. Every
    `keep_every` steps, the current result is saved as a context, which `--step` selects.

    `beta` keeps dpo, grpo and ppo close to their start. `clip` limits the ratio of grpo and ppo. Those sample `group`
    answers, of at most `reply_tokens` tokens, to each of `prompts` prompts, and use them for `reuse` steps. A run that
    is killed loses at most `save_every_s` seconds of work.
    """

    steps: int
    rate: float
    batch_tokens: int = 2048
    longest: int = 2048
    check_every: int = 25
    keep_every: int = 0
    patience: int = 8
    packing: Packing = "rows"
    pairs: str = ""
    beta: float = 0.1
    clip: float = 0.2
    group: int = 8
    prompts: int = 4
    reuse: int = 2
    temperature: float = HOTTEST
    reply_tokens: int | None = None
    save_every_s: float = 30.0


USUAL: Mapping[Kind, Mapping[Stage, tuple[int, float]]] = {
    "train": {
        "stage_a": (600, 2e-3),
        "stage_b": (600, 1e-3),
        "sft": (300, 5e-4),
        "dpo": (60, 2e-5),
        "grpo": (40, 5e-5),
        "ppo": (40, 5e-5),
    },
    "tune": {
        "stage_a": (600, 0.1),
        "stage_b": (400, 0.05),
        "sft": (300, 0.02),
        "dpo": (60, 1e-3),
        "grpo": (40, 2e-3),
        "ppo": (40, 2e-3),
    },
}
"""Default steps and learning rate. A state needs a much larger rate than weights, because its numbers are larger."""


GENTLE = 0.04
"""The default `beta` of grpo and ppo, where it is the weight of a divergence. In dpo it is a scale."""


def settings_of(plan: Plan, kind: Kind, stage: Stage, *, steps: int | None, rate: float | None) -> Settings:
    """The settings of a run. Raises BadRequest if values contradict each other."""
    usual: dict[str, Any] = dict(zip(("steps", "rate"), USUAL[kind][stage], strict=True))
    if stage in ("grpo", "ppo"):
        usual["beta"] = GENTLE
    told: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(plan.stage(stage)).items()
        if name in Settings.__struct_fields__ and value not in (None, "")
    }
    asked = {name: value for name, value in (("steps", steps), ("rate", rate)) if value is not None}
    found = Settings(**{**usual, **told, **asked})
    if math.isnan(found.rate):
        raise BadRequest(f"stage {stage}: the rate must be a number, such as {usual['rate']:g}")
    if stage in ("grpo", "ppo") and found.steps % found.reuse:
        raise BadRequest(
            f"stage {stage}: steps must be a multiple of reuse ({found.reuse}, the steps that share one batch of "
            f"answers), not {found.steps}"
        )
    if found.longest > found.batch_tokens:
        raise BadRequest(
            f"stage {stage}: a row may have {found.longest} tokens (`longest`), but a batch only {found.batch_tokens} "
            "(`batch_tokens`): lower `longest`, or raise `batch_tokens`"
        )
    return found


def risks_of(settings: Settings, stage: Stage) -> dict[str, Any]:
    """The risky choices in the settings, in the form that the ledger records."""
    found: dict[str, Any] = {}
    if settings.packing == "stream":
        found["packing"] = settings.packing
    if settings.reply_tokens is not None:
        found["reply_tokens"] = settings.reply_tokens
    if stage in BY_PREFERENCE and settings.temperature > HOTTEST:
        found["temperature"] = settings.temperature
    return found
