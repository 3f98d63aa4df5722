"""Which sampling set a family of models is served with where its table names none."""

from __future__ import annotations

DEFAULT_SETS = {
    "rwkv7": "rwkv7",
    "falcon-mamba": "falcon-mamba",
    "mini": "mini",  # the embedded model: an rwkv7 that is too small for its family's set
}
"""The sets lie in `config/`; a family that is not listed has none of its own."""


def default_set(architecture: str) -> str:
    """The name of a family's sampling set, '' where it has none."""
    return DEFAULT_SETS.get(architecture, "")
