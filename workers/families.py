"""The default sampling set of each family of models, for a table that names none."""

from __future__ import annotations

DEFAULT_SETS = {
    "rwkv7": "rwkv7",
    "falcon-mamba": "falcon-mamba",
    "mini": "mini",  # the embedded model: an rwkv7 that is too small for the set of its family
}
"""The sets are in `config/`; other families have no default set."""


def default_set(architecture: str) -> str:
    """The name of a family's sampling set, or ''."""
    return DEFAULT_SETS.get(architecture, "")
