"""What subcommands share: the connection, common options, references, and completion of names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from ssmprov.names import check_name, split_model

if TYPE_CHECKING:
    from clients.blocking import Client

F = TypeVar("F", bound=Callable[..., object])

MODEL = "SSMPROV_MODEL"
REFERENCES = ("context", "contexts", "source", "targets", "name")
"""The arguments of commands that may be written MODEL:NAME."""

COMPLETION_TIMEOUT_S = 0.3
COMPLETION_LIMIT = 100


def connect(timeout_s: float = 3.0, patience_s: float = 10.0) -> Client:
    """A client of the broker that the options or the environment name. ZeroMQ is loaded only now."""
    from clients.blocking import Client

    return Client(os.environ.get("SSMPROV_BROKER") or None, timeout_s=timeout_s, patience_s=patience_s, agent="cli")


def served(client: Client, model: str) -> list[str]:
    """The given model, or all models that are served."""
    return [model] if model else [card.name for card in client.models()]


def new_names(*references: str) -> None:
    """Check names for new contexts. Raises BadRequest if one is invalid or reserved."""
    for reference in references:
        check_name(split_model(reference)[1])


def complete_context(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of contexts that begin with `incomplete`. Silent and quick if no broker answers."""
    found: list[CompletionItem] = []
    with suppress(Exception):
        written, prefix = split_model(incomplete)
        lead = f"{written}:" if written else ""
        with connect(COMPLETION_TIMEOUT_S, patience_s=0) as client:
            for name in served(client, written or ctx.params.get("model") or ""):
                page = client.ls(prefix, model=name, limit=COMPLETION_LIMIT)
                found += [CompletionItem(lead + row.name) for row in page.rows]
    return found


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found: list[CompletionItem] = []
    with suppress(Exception), connect(COMPLETION_TIMEOUT_S, patience_s=0) as client:
        found += [CompletionItem(card.name) for card in client.models() if card.name.startswith(incomplete)]
    return found


def complete_set(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of sampling sets that begin with `incomplete`."""
    found: list[CompletionItem] = []
    with suppress(Exception), connect(COMPLETION_TIMEOUT_S, patience_s=0) as client:
        sets = client.settings_ls(model=ctx.params.get("model") or "").names
        found += [CompletionItem(name) for name in sets if name.startswith(incomplete)]
    return found


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def model_option(command: F) -> F:
    return click.option(
        "--model", default="", metavar="MODEL", shell_complete=complete_model, help="The model to use."
    )(command)


def usual_model(*references: str) -> str:
    """The model in $SSMPROV_MODEL, if no reference says which model it belongs to."""
    return "" if any(":" in reference for reference in references) else os.environ.get(MODEL, "")


def usual_model_option(command: F) -> F:
    """The option --model; without it, and if no argument names a model or a store, $SSMPROV_MODEL counts."""

    @functools.wraps(command)
    def filled(*args: Any, **options: Any) -> object:
        if not options["model"] and not options.get("store"):
            written = [options.get(name) or () for name in REFERENCES]
            options["model"] = usual_model(
                *(ref for refs in written for ref in ([refs] if isinstance(refs, str) else refs))
            )
        return command(*args, **options)

    return model_option(cast("F", filled))


def assignments(pairs: Sequence[str]) -> dict[str, float]:
    """Settings from words such as `temp=0.5`. Raises a usage error for other words and BadRequest for bad values."""
    from ssmprov.settings import parse_value

    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair!r} is not a setting: write KEY=VALUE, such as temp=0.5")
        values[key.strip()] = parse_value(key.strip(), text.strip())
    return values
