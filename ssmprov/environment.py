"""How switches in the environment are read."""

from __future__ import annotations

import os

_YES = ("1", "true", "t", "yes", "y", "on")
"""The values that mean yes, as for options of the command line."""


def is_on(variable: str) -> bool:
    """Whether an environment variable says yes. Without it, or with any other value such as 0, it does not."""
    return os.environ.get(variable, "").lower() in _YES
