"""What every training command does around its run: directory, log, signals and error messages."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
import torch

from ssmprov.process import heard
from training import checkpoint
from training.loop import Trainer, TrainingError, log
from training.trainee import S


def train(make: Callable[[], Trainer[S]], outdir: Path, threads: int) -> Trainer[S]:
    """Makes a trainer and runs it to its end, starting from its last checkpoint if there is one.

    The first interrupt or termination stops the run before its next step. It saves a checkpoint and exits with code
    130. A second one ends it at once. Errors are shown as one line.
    """
    torch.set_num_threads(threads)
    try:
        with _logged(outdir), stopping() as stop:
            trainer = make()
            log.info("%s %s", trainer.trainee.describe(), trainer.settings)
            trainer.resume()
            ended = trainer.run(stop)
    except (TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if not ended:
        click.echo(f"stopped at step {trainer.step}: run the same command to continue from {outdir / checkpoint.NAME}")
        raise click.exceptions.Exit(130)
    return trainer


@contextmanager
def _logged(outdir: Path) -> Iterator[None]:
    """Writes the log of a run to its directory, which it creates. Raises TrainingError."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(outdir / "training.log")
    except OSError as error:
        raise TrainingError(f"--outdir {outdir} cannot be written to ({error.strerror}): choose a directory") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether an interrupt or a termination has come. A second one ends the process."""
    asked = False
    before = {number: signal.getsignal(number) for number in heard(signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        asked = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
