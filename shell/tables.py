"""How the command line shows things: aligned columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from ssmprov.formatting import columns, plain


def echo_json(value: Any) -> None:
    """Print JSON, which is UTF-8 whatever the terminal's encoding."""
    click.echo(msgspec.json.format(msgspec.json.encode(plain(value)), indent=2))


def echo_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    for line in columns(headers, rows):
        click.echo(line)
