"""Real processes for tests: a broker, its workers and bridges in a working directory of their own."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewording.reworded import original

from clients.blocking import Client
from models import rwkv7
from ssmprov import configuration, rooms

PATIENCE_S = 100.0
"""How long a test waits for what must come: on a busy machine a process takes long to begin."""


def busy() -> float:
    """How many processes want each processor, and at least 1: bounds on what takes time grow by it."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "[ECHO]: ", "pieces": ["never", " asked"]},
        {"after": "[ECHO]:", "pieces": [" as", " you", " say", ".", "\n\n", "~~~", "(end", ")~~~\n\n"]},
        {"after": "[ON]:", "pieces": [" yes", "\n\n", "(", "Turn 3", ") [USER]", ":", " and", " more"]},
        {"after": "[LONG]:", "pieces": [f" w{i}" for i in range(400)]},
        {"after": "", "pieces": ["hel", "lo", "!"]},
    ]
}


def command_line(arguments: Sequence[str]) -> list[str]:
    """How to start a module of ours (`-m MODULE`), a piece of Python (`-c TEXT`), or any other program."""
    match arguments:
        case ["-m", module, *words]:
            return rooms.command(module, *words)
        case ["-c", *_]:
            return [sys.executable, "-P", *arguments]
    return list(arguments)


class Process:
    """One child process, its stderr read line by line, so that a test waits for what it says and never sleeps."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self.lines: list[str] = []
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.child = subprocess.Popen(
            command_line(arguments),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for line in map(original, self.child.stderr):
            self.lines.append(line.rstrip("\n"))
            self._news.put(line)
        self._news.put(None)

    def expect(self, pattern: str, patience_s: float = PATIENCE_S) -> str:
        """Wait for a line that matches, among those not yet waited past."""
        until = time.monotonic() + patience_s
        while True:
            try:
                line = self._news.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name} did not say {pattern!r}; it said {self.lines}") from None
            if line is None:
                raise AssertionError(f"{self.name} ended before it said {pattern!r}; it said {self.lines}")
            if re.search(pattern, line):
                return line

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        status = self.child.wait(patience_s)
        self._reader.join(patience_s)
        assert self.child.stderr is not None
        self.child.stderr.close()
        return status

    def stop(self) -> int:
        """SIGTERM and its exit status."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        if not self.closed:
            self.wait()

    @property
    def closed(self) -> bool:
        return self.child.stderr is None or self.child.stderr.closed


class Cluster:
    """A working directory with its configuration and the processes that serve it."""

    def __init__(self, home: Path, toml: str) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.config = home / configuration.CONFIG_FILE
        self.config.write_text(toml)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SSMPROV_")} | {
            "SSMPROV_HOME": str(home),
            "SSMPROV_SUPERVISED": str(os.getpid()),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        self.processes: dict[str, Process] = {}
        self._clients: list[Client] = []

    @property
    def endpoint(self) -> str:
        return configuration.load(self.config, self.home).endpoints()[0]

    def start(self, name: str, *arguments: str) -> Process:
        if former := self.processes.get(name):
            former.kill()
        process = self.processes[name] = Process(name, arguments, self.environment, self.home)
        return process

    def broker(self) -> Process:
        return self.start("broker", "-m", "broker")

    def worker(self, model: str, index: int = 0, *, wait: bool = True) -> Process:
        process = self.start(f"{model}/{index}", "-m", "workers", "--model", model, "--index", str(index))
        if wait:
            process.expect(r" serves ")
        return process

    def up(self) -> Cluster:
        """The broker and every configured worker, all of them registered."""
        self.broker()
        tables = configuration.load(self.config, self.home).tables
        started = [
            self.worker(model.name, index, wait=False) for model in tables.model for index in range(model.workers)
        ]
        for process in started:
            process.expect(r" serves ")
        return self

    def client(self, **options: Any) -> Client:
        options.setdefault("timeout_s", PATIENCE_S)
        client = Client(self.endpoint, **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for process in reversed(self.processes.values()):
            process.kill()


def scripted_toml(directory: Path, *, workers: int = 1, script: Mapping[str, Any] | None = None, **keys: Any) -> str:
    """A configuration of one scripted model `talk`; its script is written into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "talk-script.json"
    path.write_text(json.dumps(SCRIPT if script is None else script))
    lines = ["[[model]]", 'name = "talk"', 'runtime = "scripted"', f"path = {json.dumps(str(path))}"]
    lines += [f"workers = {workers}", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


TINY = rwkv7.Config(
    layers=2, channels=64, head_size=32, vocabulary=257, ffn=128, rank_w=8, rank_a=8, rank_v=8, rank_g=8
)


def rwkv_toml(directory: Path, name: str = "tiny", *, seed: int = 1, workers: int = 1) -> str:
    """A configuration of an RWKV-7 model with random weights, written into the directory as an official `.pth`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.pth"
    rwkv7.save(rwkv7.random_tensors(TINY, seed), path)
    return f'[[model]]\nname = "{name}"\nruntime = "rwkv"\npath = {json.dumps(str(path))}\nworkers = {workers}\n'


def llama_toml(directory: Path, name: str, *, kind: str = "", seed: int = 0, **keys: Any) -> str:
    """A configuration of a tiny GGUF model of that kind (its name where none is given), written into the directory."""
    import gguf_toys  # only where the extra is installed

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{seed}.gguf"
    gguf_toys.write(kind or name, path, seed=seed)
    lines = ["[[model]]", f'name = "{name}"', 'runtime = "llama"', f"path = {json.dumps(str(path))}"]
    keys = {"slots": 4, "n_threads": 1, "dtype": "fp32"} | keys
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"


def asm_toml(directory: Path, name: str = "asm", *, kind: str = "exact", **keys: Any) -> str:
    """A configuration of a tiny Addressed State Model of that kind (`asm_toys.KINDS`), written into the directory."""
    import asm_toys

    directory.mkdir(parents=True, exist_ok=True)
    path = asm_toys.asm_file(directory, f"{name}.safetensors", **asm_toys.KINDS[kind])
    lines = ["[[model]]", f'name = "{name}"', 'runtime = "asm"', f"path = {json.dumps(str(path))}"]
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"
