"""How a test says which model to load: the keys of a table, those of its runtime among them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from workers.runtimes.base import Plan

SHARED = {field.name for field in fields(Plan)}


def plan_of(path: Path, slots: int = 1, **keys: Any) -> Plan:
    """The plan of a table with these keys."""
    shared = {key: value for key, value in keys.items() if key in SHARED}
    options = {key: value for key, value in keys.items() if key not in SHARED}
    return Plan(path=path, slots=slots, options=options, **shared)
