"""The served side of the measurements: `ssmprov up` in a separate working directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ssmprov import rooms
from ssmprov.process import SUPERVISED

START_S = 180.0
STOP_S = 45.0

Model = Mapping[str, object]
"""The keys of one `[[model]]` table."""


class Ready(msgspec.Struct):
    """The ready file of `ssmprov up`: process ids by name, such as `broker` and `mini/0`."""

    endpoint: str
    pids: dict[str, int]


class Serving:
    """Serves models in a `with` block."""

    def __init__(self, home: Path, *models: Model) -> None:
        self._home = home
        self._toml = "\n".join(_table(model) for model in models)
        self._up: subprocess.Popen[bytes] | None = None
        self.endpoint = ""
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._home.mkdir(parents=True)
        (self._home / "ssmprov.toml").write_text(self._toml, encoding="utf-8")
        ready = self._home / "ready.json"
        with (self._home / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                [str(Path(sys.executable).with_name("ssmprov")), "up", "--ready-file", str(ready)],
                env=environment() | {"SSMPROV_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if self._up.poll() is not None or time.monotonic() > deadline:
                log_text = (self._home / "up.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"`ssmprov up` did not start:\n{log_text}")
            time.sleep(0.05)
        found = msgspec.json.decode(ready.read_bytes(), type=Ready)
        self.endpoint, self.pids = found.endpoint, found.pids

    def close(self) -> None:
        if self._up is None:
            return
        self._up.terminate()
        try:
            self._up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.wait()


class Companion:
    """A second Python process of this package: `benchmarks.MODULE ARGUMENTS`."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            rooms.command(f"benchmarks.{module}", *arguments),
            env=environment() | {SUPERVISED: str(os.getpid()), "OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> Any:
        """Read the next line that it prints, as JSON. The first line means that it is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")
        return json.loads(line)

    def tell(self, **command: Any) -> Any:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.hear()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def obey(commands: Mapping[str, Callable[..., object]]) -> None:
    """The other end of a `Companion`: report that it is ready, then answer each command until input ends."""
    print("true", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(commands[command.pop("do")](**command)), flush=True)


def environment() -> dict[str, str]:
    """The environment of a child: this shell's without the variables of ssmprov."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SSMPROV_")}


def _table(model: Model) -> str:
    return "\n".join(["[[model]]", *(f"{key} = {json.dumps(value)}" for key, value in model.items()), ""])
