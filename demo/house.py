"""The demo's own installation: a temporary working directory that serves the shipped configuration and more models."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ssmprov.rooms import CONFIG

MINI = "rwkv7-mini"
START_S = 60.0
STOP_S = 45.0


class Trouble(Exception):
    """An error that ends the demo early. Its message is for the person who watches."""


def check(answer: str, expected: str) -> None:
    """Raises Trouble if an answer is not exactly as expected, apart from white space around it."""
    if answer.strip() != expected:
        raise Trouble(f"the answer should be {expected!r}, but it is {answer.strip()!r}")


class House:
    """Runs `ssmprov up` in a `with` block. `environment` is the environment for shell commands.

    `prepare` is called before the start. It returns tables to add to the shipped configuration.
    """

    def __init__(self, prepare: Callable[[House], str] = lambda _house: "") -> None:
        self._prepare = prepare
        self.home = Path(tempfile.mkdtemp(prefix="ssmprov-demo-"))
        programs = Path(sys.executable).parent
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SSMPROV_")}
        self.environment |= {"SSMPROV_HOME": str(self.home), "PATH": f"{programs}:{os.environ.get('PATH', '')}"}
        self.ports: dict[str, int] = {}  # the ports of the bridges, by model
        self.port = 0
        self.endpoint = ""
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> House:
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
        config = (CONFIG / "default.toml").read_text(encoding="utf-8")
        config = re.sub(r"^port = \d+", "port = 0", config + self._prepare(self), flags=re.MULTILINE)  # any free one
        (self.home / "ssmprov.toml").write_text(config, encoding="utf-8")
        ready_file = self.home / "ready.json"
        with (self.home / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                ["ssmprov", "up", "--ready-file", str(ready_file)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not ready_file.exists():
            if self._up.poll() is not None:
                raise Trouble(f"`ssmprov up` ended with status {self._up.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise Trouble(f"`ssmprov up` was not ready after {START_S:.0f} s:\n{self.log()}")
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
        self.endpoint = ready["endpoint"]
        self.ports = {bridge["model"]: bridge["port"] for bridge in ready["bridges"]}
        self.port = self.ports[MINI]

    def log(self) -> str:
        """The last lines of the log."""
        lines = (self.home / "up.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-20:])

    def shell(self, line: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a shell command to its end. Raises Trouble if its exit status is different."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != status:
            raise Trouble(f"`{line}` ended with status {done.returncode}:\n{done.stderr}{self.log()}")
        return done

    def start(self, line: str) -> subprocess.Popen[bytes]:
        """Start a shell command whose output can be read from a pipe."""
        return subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Stop everything and remove the working directory. Raises Trouble if it did not stop cleanly."""
        status = 0
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                status = self._up.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._up.kill()
                status = self._up.wait()
        log = self.log() if status else ""
        shutil.rmtree(self.home, ignore_errors=True)
        if status:
            raise Trouble(f"`ssmprov up` ended with status {status}:\n{log}")


def ask(port: int, request: str, timeout_s: float = 120.0) -> str:
    """Send one request in the old protocol (text and a NUL byte) and return the reply."""
    reply = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(request.encode() + b"\0")
        while not reply.endswith(b"\0"):
            data = connection.recv(65536)
            if not data:
                raise Trouble(f"port {port} closed the connection in the middle of a reply")
            reply += data
    text = reply[:-1].decode()
    if text.startswith(("[error]", "[load error]", "[save error]", "[load_set error]")):
        raise Trouble(f"port {port} answered: {text}")
    return text
