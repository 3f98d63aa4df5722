"""`ssmprov status` and `ssmprov models`."""

from __future__ import annotations

import click

from shell.options import connect, json_option
from shell.tables import echo_json, echo_table
from ssmprov.errors import NotFound
from ssmprov.formatting import size
from ssmprov.main import LazyGroup
from ssmprov.ops import StatusResult, Story
from ssmprov.terminal import printable


@click.command()
@json_option
@click.option(
    "--story", metavar="ID", default="", help="Show what happened to requests whose hexadecimal ids begin with ID."
)
def status(as_json: bool, story: str) -> None:
    """Show the broker, its models and its workers.

    With --story, show the last steps of a request that is open or has ended recently.
    """
    with connect() as client:
        found = client.status(story=story)
    if story and not found.story:
        raise NotFound(
            f"the broker knows no request whose id begins with {story!r}: it remembers only open requests and the last "
            "ones that ended"
        )
    if as_json:
        echo_json(found.story if story else found)
    elif story:
        _show_stories(found.story)
    else:
        _show(found)


def _show_stories(stories: list[Story]) -> None:
    for number, story in enumerate(stories):
        if number:
            click.echo()
        click.echo(f"{printable(story.op)} {story.id} of {printable(story.model) or 'no model'}")
        echo_table(
            ("AGO", "STEP", "WORKER"),
            [(f"{step.ago_s:.3f} s", step.what, step.worker) for step in story.steps],
        )


def _show(found: StatusResult) -> None:
    broker = found.broker
    click.echo(
        f"broker {broker.pid}{' (draining)' if broker.draining else ''}: up {broker.uptime_s:.0f} s, "
        f"{broker.clients} clients, {broker.running} running, {broker.queued} queued, {broker.answered} answered, "
        f"{broker.refused} refused, {broker.requests_per_s:.1f} requests/s"
    )
    click.echo()
    echo_table(
        ("MODEL", "RUNTIME", "FINGERPRINT", "SETTINGS", "STATE", "WORKERS", "QUEUED"),
        [
            (
                _shown(m.name, found),
                m.runtime,
                m.fingerprint[:12],
                m.settings,
                size(m.state_bytes),
                m.workers,
                m.queued,
            )
            for m in found.models
        ],
    )
    for model, why in found.not_served.items():
        click.echo(printable(f"{model} is not served: {why}"))
    click.echo()
    echo_table(
        ("WORKER", "STATE", "PID", "EPOCH", "RUNNING", "SLOTS", "HOT", "TOKENS/S", "PREFILL/S", "PINNED"),
        [
            (
                worker.name,
                worker.state,
                worker.pid,
                worker.epoch,
                worker.running,
                worker.slots,
                size(worker.hot_bytes),
                worker.tokens_per_s,
                worker.prefill_per_s,
                ", ".join(sorted(name.partition(":")[2] for name, at in found.pins.items() if at == worker.name)),
            )
            for worker in found.workers
        ],
    )


@click.group(
    cls=LazyGroup,
    lazy={"check": ("workers.cli_models:check", "Check a model file before you serve it.")},
    invoke_without_command=True,
)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models that are served."""
    if ctx.invoked_subcommand is not None:
        return
    with connect() as client:
        found = client.status()
    if as_json:
        echo_json(found.models)
        return
    echo_table(
        ("MODEL", "RUNTIME", "ARCHITECTURE", "DTYPE", "VOCABULARY", "STATE", "SETTINGS", "WORKERS", "FINGERPRINT"),
        [
            (
                _shown(m.name, found),
                m.runtime,
                m.architecture,
                m.dtype,
                m.vocabulary,
                size(m.state_bytes),
                m.settings,
                m.workers,
                m.fingerprint[:12],
            )
            for m in found.models
        ],
    )


def _shown(model: str, status: StatusResult) -> str:
    """A model's name in a table: the default among several is marked."""
    return f"{model} (default)" if model == status.default and len(status.models) > 1 else model
