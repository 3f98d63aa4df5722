"""A broker for one call: `ssmprov up` as a child process that serves one model, on a socket of its own.

It reads the model's table from the configuration that `ssmprov up` would serve. It uses the model's store only if the
call saves something; otherwise its store is temporary, too.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from ssmprov import logs, rooms
from ssmprov.configuration import CONFIG_FILE, Configuration, ModelTable
from ssmprov.errors import Unavailable
from ssmprov.process import SUPERVISED

LOOK_S = 0.02
GONE_S = 5.0
TOLD_LINES = 6


@contextmanager
def embedded(configured: Configuration, model: str, stop: Event, *, saves: bool) -> Iterator[str]:
    """Serve a model with one worker, and yield the broker's endpoint. Nothing of it is left afterwards.

    Raises KeyboardInterrupt if `stop` is set before it serves, NotFound if the model is not configured, and
    Unavailable, with the last lines of the log, if it cannot start.
    """
    table = configured.model(model)
    with tempfile.TemporaryDirectory(prefix="ssmprov-say-") as folder:
        place = Path(folder)
        store = configured.store(table)
        if not saves:
            with suppress(FileNotFoundError):
                shutil.copytree(store / "settings", place / "store" / "settings")
            store = place / "store"
        table = msgspec.structs.replace(table, workers=1, checkpoints=str(store))
        endpoint = f"ipc://{place}/broker.sock"
        (place / CONFIG_FILE).write_text(_toml({"listen": [endpoint]}, table), encoding="utf-8")
        with (place / "log").open("wb") as log:
            process = _start(configured.home, place, log.fileno())
        try:
            _await(process, place, stop)
            yield endpoint
            if not saves:
                _kill(process, place)
        finally:
            _stop(process)


def _start(home: Path, place: Path, log: int) -> subprocess.Popen[bytes]:
    """Start it in its own session, so that Ctrl-C reaches only this process. It ends with this process."""
    environment = {name: value for name, value in os.environ.items() if name not in ("SSMPROV_BROKER", "SSMPROV_LOG")}
    return subprocess.Popen(
        rooms.command(
            "ssmprov",
            "up",
            "--at-once",
            "--config",
            str(place / CONFIG_FILE),
            "--ready-file",
            str(place / "ready.json"),
        ),
        env=environment | {"SSMPROV_HOME": str(home), SUPERVISED: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _await(process: subprocess.Popen[bytes], place: Path, stop: Event) -> None:
    while not (place / "ready.json").exists():
        if stop.is_set():
            raise KeyboardInterrupt
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
            lines = (place / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:]
            told = [logs.text_of(line) or line for line in lines]
            raise Unavailable("\n".join(["the broker for this call did not start:", *told]))


def _kill(process: subprocess.Popen[bytes], place: Path) -> None:
    """End it at once, which is quicker: there is nothing to keep. Its children die with it, and we wait for them."""
    handles: list[int] = []
    with suppress(OSError):  # one of them has ended by itself
        for pid in json.loads((place / "ready.json").read_bytes())["pids"].values():
            handles.append(os.pidfd_open(pid))
    process.kill()
    process.wait()
    for handle in handles:
        select.select([handle], [], [], GONE_S)
        os.close(handle)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and wait. A second Ctrl-C makes it hurry."""
    while process.poll() is None:
        with suppress(KeyboardInterrupt):
            process.send_signal(signal.SIGTERM)
            process.wait()


def _toml(broker: Mapping[str, Any], table: ModelTable) -> str:
    keys = msgspec.to_builtins(table)
    keys |= keys.pop("options")
    return "".join(
        f"{head}\n" + "".join(f"{key} = {_value(value)}\n" for key, value in pairs.items())
        for head, pairs in (("[broker]", broker), ("[[model]]", keys))
    )


def _value(value: Any) -> str:
    """A value in TOML, which writes strings, numbers and lists as JSON does."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
