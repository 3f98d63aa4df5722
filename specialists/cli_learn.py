"""`ssmprov specialist tune` and `train`: runs with gradients, on the initial state or the weights of a small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from shell.options import connect, json_option
from specialists.cli_base import STAGE, ending, tell_run
from specialists.folder import Specialist, open_specialist
from specialists.ledger import Run, exclusive
from specialists.plan import risks as risky
from specialists.settings import Settings, risks_of, settings_of
from specialists.stages import Kind, Stage
from ssmprov.configuration import home_of
from ssmprov.errors import Unsupported

NEEDED = 'pip install "ssmprov[rwkv]"'


def _learning(command: Any) -> Any:
    for option in (
        json_option,
        click.option("--skip-parity", is_flag=True, help="Skip the parity gate, and note that in the ledger."),
        click.option("--resume", is_flag=True, help="Continue the last unfinished run of this stage."),
        click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="CPU threads."),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of the row order (default: plan's)."),
        click.option("--rate", type=click.FloatRange(0, 10, min_open=True), help="Learning rate (default: plan's)."),
        click.option("--steps", type=click.IntRange(1, 1 << 31), help="Number of steps (default: plan's)."),
        click.option("--from", "start", default="", metavar="RUN",
                     help="The run to start from, or none for the model (default: the last of an earlier stage)."),
        click.option("--stage", type=STAGE, default="stage_a", show_default=True, help="The stage to run."),
        click.argument("name"),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("tune")
@_learning
def tune(**options: Any) -> None:
    """Tune the initial state of an rwkv or asm model with frozen weights. The result is a context of that model."""
    _run("tune", **options)


@click.command("train")
@_learning
def train(**options: Any) -> None:
    """Train the weights of a small rwkv or asm model. The result is a context that carries the weights."""
    _run("train", **options)


def _run(
    kind: Kind,
    *,
    name: str,
    stage: Stage,
    start: str,
    steps: int | None,
    rate: float | None,
    seed: int | None,
    threads: int,
    resume: bool,
    skip_parity: bool,
    as_json: bool,
) -> None:
    bases, learning, session, torch = _loaded()
    one = open_specialist(home_of(), name)
    with exclusive(one.path), connect() as client:
        local = bases.base_of(client, one.plan.model)
        data = one.data(stage)
        if resume:
            if any((steps, rate, start, seed is not None)):
                raise click.UsageError(
                    "--resume continues a run with its original settings, so leave out the other options"
                )
            run = one.ledger.again(stage, kind, learning.CHECKPOINT)
            settings = msgspec.convert(run.settings["fit"], Settings)
            if skip_parity:
                run.options["skip_parity"] = True
            parent = one.ledger.run(run.parent) if run.parent else None
        else:
            settings = settings_of(one.plan, kind, stage, steps=steps, rate=rate)
            parent = bases.parent_of(one.ledger, stage, start, one.plan.model)
            run = one.ledger.begin(
                kind=kind,
                stage=stage,
                seed=one.plan.seed if seed is None else seed,
                model=one.plan.model,
                parent=parent.id if parent else "",
                data=data.summary,
                settings={"fit": msgspec.to_builtins(settings), "roles": list(one.plan.roles)},
                options=_options(one, settings, stage, skip_parity),
            )
        torch.set_num_threads(threads)
        with one.ledger.alive(run.id), ending(one, run), session.stopping() as stopping, _bar(run, settings) as said:
            learner = learning.Learner(
                one=one, client=client, local=local, run=run, settings=settings, data=data, start=parent
            )
            learning.learn(
                learner,
                skip_parity=skip_parity or bool(run.options.get("skip_parity")),
                stopping=stopping,
                said=said,
                told=lambda text: click.echo(text, err=True),
            )
        learning.forget(one.ledger)
    tell_run(run, as_json)


def _options(one: Specialist, settings: Settings, stage: Stage, skip_parity: bool) -> dict[str, Any]:
    found = risky(one.plan, one.contract.temperature) | risks_of(settings, stage)
    return found | ({"skip_parity": True} if skip_parity else {})


class _bar:
    """A progress bar over the steps that shows the loss."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self._bar = tqdm(total=settings.steps, unit="step", desc=f"{run.kind} {run.label}", disable=None)

    def __enter__(self) -> Callable[[int, float], None]:
        return self._said

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _said(self, step: int, loss: float) -> None:
        self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self._bar.update(step - self._bar.n)


def _loaded() -> tuple[Any, Any, Any, Any]:
    """The modules that need torch, which the other commands don't need. Raises Unsupported if it is not installed."""
    try:
        import torch

        from specialists import bases, learning
        from training import session
    except ModuleNotFoundError as error:
        raise Unsupported(f"tuning needs {error.name}, which is not installed: {NEEDED}") from None
    return bases, learning, session, torch
