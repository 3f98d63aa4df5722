"""The default sampling set of each family of models, for a table that names none."""

from __future__ import annotations

GENERAL = "general"
"""For every family without a set of its own: llama.cpp's defaults. No model is left at temperature 1 without a cut."""

DEFAULT_SETS = {
    "rwkv7": "rwkv7",
    "falcon-mamba": "falcon-mamba",
    "mini": "mini",  # the embedded models: too small for the sets of their families
    "asm": "greedy",  # small research models
    "qwen2": "qwen",
    "qwen2moe": "qwen",
    "qwen3": "qwen",
    "qwen3moe": "qwen",
    "smollm2": "smollm2",
    "scripted": "",  # a script has nothing to sample
}
"""The sets are in `config/`; what their makers recommend, as far as they do."""

NAMED = ("smollm2",)
"""Families that their name tells, and not their architecture."""


def default_set(architecture: str) -> str:
    """The name of a family's sampling set."""
    return DEFAULT_SETS.get(architecture, GENERAL)


def set_of(family: str, name: str) -> str:
    """The sampling set for a model of this family with this name."""
    plain = name.lower().replace(" ", "").replace("-", "")
    return default_set(next((named for named in NAMED if plain.startswith(named)), family))
