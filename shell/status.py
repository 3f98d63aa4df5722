"""`ssmprov status` and `ssmprov models`."""

from __future__ import annotations

import click

from shell.options import connect, json_option
from shell.tables import echo_json, echo_table
from ssmprov.formatting import size
from ssmprov.main import LazyGroup
from ssmprov.ops import StatusResult


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the broker, its models and its workers."""
    with connect() as client:
        found = client.status()
    if as_json:
        echo_json(found)
    else:
        _show(found)


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
            (m.name, m.runtime, m.fingerprint[:12], m.settings, size(m.state_bytes), m.workers, m.queued)
            for m in found.models
        ],
    )
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
    lazy={"check": ("workers.cli_models:check", "Try a model file out before it is served.")},
    invoke_without_command=True,
)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models that are served."""
    if ctx.invoked_subcommand is not None:
        return
    with connect() as client:
        found = client.models()
    if as_json:
        echo_json(found)
        return
    echo_table(
        ("MODEL", "RUNTIME", "ARCHITECTURE", "DTYPE", "VOCABULARY", "STATE", "SETTINGS", "WORKERS", "FINGERPRINT"),
        [
            (
                m.name,
                m.runtime,
                m.architecture,
                m.dtype,
                m.vocabulary,
                size(m.state_bytes),
                m.settings,
                m.workers,
                m.fingerprint[:12],
            )
            for m in found
        ],
    )
