"""What the commands of `ssmprov specialist` share."""

from __future__ import annotations

from typing import get_args

import click

from shell.tables import echo_json
from specialists.folder import Specialist
from specialists.ledger import Run, now
from specialists.stages import Stage
from ssmprov.causes import known
from ssmprov.formatting import short

WIDEST = 72
"""How many characters of the reason a table of runs shows."""

STAGE = click.Choice(get_args(Stage))


class ending:
    """Records at the end of the block whether the run completed, or why it failed. Then updates the other files."""

    def __init__(self, one: Specialist, run: Run) -> None:
        self.one, self.run = one, run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.run.ended = now()
        self.run.status = "failed" if kind else "completed"
        if error is not None:
            self.run.why = _why(error)
        self.one.ledger.append(self.run)
        self.one.materialise()


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    ours = known(error)
    return ours.message if ours else type(error).__name__


def tell_run(run: Run, as_json: bool) -> None:
    if as_json:
        echo_json(run)
    else:
        click.echo(f"{run.id} {run.label}: {short(run.made)}, {run.tokens} tokens")


def shortened(text: str) -> str:
    """The beginning of a text, for a table. The ledger has all of it."""
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
