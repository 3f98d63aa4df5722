"""The system under test: a working directory, `up` and its children, and the client processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
from cluster import rwkv_toml
from ports import free_port

from clients.blocking import Client
from soak.choices import RWKV, SCRIPT, SCRIPTED
from ssmprov.errors import SsmprovError

KINDS = ["blocking", "aio", "blocking", "aio", "blocking", "aio", "bridge", "blocking"]
"""Of the eight client processes. One talks to the bridge, so that its live context has one writer."""

KEYS = 'slots = 4\nkeep_steps = 4\nhot_bytes = "48 KiB"\nslice_tokens = 32\n'
SERVES_S = 60.0
TESTS = str(Path(__file__).parents[1])
ROOT = str(Path(TESTS).parent)  # before the tests, one of whose folders has the name of the package that it tests
"""Where the children find this package."""


@dataclass(slots=True)
class Player:
    """One client process and how many it has had before."""

    kind: str
    index: int
    life: int = 0
    process: subprocess.Popen[bytes] | None = None
    failed: list[str] = field(default_factory=list)


class System:
    """Everything that runs. `pids` are found among the children of `up`: what was not started here is never touched."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home = home
        self.seed = seed
        self.folder = home / "history"
        self.scratch = home / "tmp"
        for folder in (home, self.folder, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.endpoint = f"ipc://{home}/run/broker.sock"
        self.config = home / "ssmprov.toml"
        self.ready = home / "ready.json"
        self._write_configuration()
        self._log = (home / "up.log").open("ab")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SSMPROV_")} | {
            "SSMPROV_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([ROOT, TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        self.up: subprocess.Popen[bytes] | None = None
        self.players = [Player(kind, index) for index, kind in enumerate(KINDS)]

    def _write_configuration(self) -> None:
        script = self.home / "script.json"
        script.write_text(json.dumps(SCRIPT))
        tables = f'[broker]\nlisten = ["{self.endpoint}"]\nanswers_bytes = "4 MiB"\n'
        tables += f'[[model]]\nname = "{SCRIPTED}"\nruntime = "scripted"\npath = "{script}"\nworkers = 2\n' + KEYS
        tables += rwkv_toml(self.home, RWKV, workers=2) + KEYS
        tables += f'[[bridge]]\nport = {self.port}\nmodel = "{SCRIPTED}"\n'
        self.config.write_text(tables)

    def store(self, model: str) -> Path:
        return self.home / ".checkpoints" / model

    # -- the served processes

    def start(self) -> None:
        """Start `up`, and wait until everything serves."""
        self.launch()
        self.wait(self.serving, SERVES_S, "the system does not serve")

    def launch(self) -> None:
        self.ready.unlink(missing_ok=True)
        arguments = [sys.executable, "-P", "-m", "soak.up", "up", "--ready-file", str(self.ready)]
        self.up = subprocess.Popen(
            arguments, env=self.environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def pids(self) -> dict[str, int]:
        """The children of `up` by their names: broker, bridge, MODEL/0."""
        found = {}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._up.pid).children():
                with contextlib.suppress(psutil.Error):
                    if name := _name_of(child.cmdline()):
                        found[name] = child.pid
        return found

    @property
    def _up(self) -> subprocess.Popen[bytes]:
        assert self.up is not None, "it was started"
        return self.up

    def serving(self) -> bool:
        """Whether every configured process is there and every worker has its lease, by the broker's word."""
        pids = self.pids()
        if set(pids) != {"broker", "bridge", *self.workers()}:
            return False
        leased = self.leased()
        return all(leased.get(worker) == pids[worker] for worker in self.workers()) and self.bridge_answers()

    def workers(self) -> list[str]:
        return [f"{model}/{index}" for model in (SCRIPTED, RWKV) for index in range(2)]

    def leased(self) -> dict[str, int]:
        """The process of each worker that the broker gives work to; none where no broker answers."""
        try:
            with Client(self.endpoint, timeout_s=0.3) as client:
                return {worker.name: worker.pid for worker in client.status().workers if worker.state == "ready"}
        except SsmprovError:
            return {}

    def bridge_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"/t\0")
                return connection.recv(1) != b""
        except OSError:
            return False

    def wait(self, true: Callable[[], bool], patience_s: float, why: str) -> float:
        """Seconds until it is true. Raises TimeoutError."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > patience_s:
                raise TimeoutError(f"{why} after {patience_s:g} s")
            time.sleep(0.02)
        return time.monotonic() - began

    def kill_all(self) -> list[int]:
        """SIGKILL to `up` and all its children at once; their process ids."""
        pids = [*self.pids().values(), self._up.pid]
        for pid in reversed(pids):
            send(pid, signal.SIGKILL)
        self._up.wait()
        return pids

    def stop(self) -> int:
        """The orderly end of `up`: its exit status."""
        self._up.send_signal(signal.SIGTERM)
        return self._up.wait(40)

    # -- the clients

    def start_players(self) -> None:
        for player in self.players:
            self.start_player(player)

    def start_player(self, player: Player) -> None:
        with (self.home / f"client-{player.index}.log").open("ab") as log:
            words = [player.kind, player.index, player.life, self.seed, self.endpoint, self.port, self.folder]
            player.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "soak.client", *map(str, words)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_player(self, player: Player) -> None:
        """SIGKILL, and another life."""
        assert player.process is not None
        player.process.kill()
        self.look_after(player, killed=True)

    def look_after(self, player: Player, *, killed: bool = False) -> None:
        """Start a client again that has ended; one that ended by itself is noted as a fault of ours."""
        assert player.process is not None
        if killed:
            player.process.wait()
        elif player.process.poll() is None:
            return
        else:
            player.failed.append(f"client {player.index} ended by itself with status {player.process.returncode}")
        player.life += 1
        self.start_player(player)

    def end_players(self, patience_s: float) -> list[str]:
        """Have every client end what it has under way; what is wrong with their ends."""
        faults = [fault for player in self.players for fault in player.failed]
        until = time.monotonic() + patience_s
        for process in self._processes():
            process.send_signal(signal.SIGTERM)
        for player, process in zip(self.players, self._processes(), strict=True):
            try:
                if status := process.wait(max(0.1, until - time.monotonic())):
                    faults.append(f"client {player.index} ended with status {status}")
            except subprocess.TimeoutExpired:
                faults.append(f"client {player.index} ({player.kind}) still waits for an answer after {patience_s:g} s")
                process.kill()
                process.wait()
        return faults

    def _processes(self) -> Iterator[subprocess.Popen[bytes]]:
        for player in self.players:
            assert player.process is not None
            yield player.process

    def destroy(self) -> None:
        """End whatever still runs, without ceremony."""
        if self.up is not None and self.up.poll() is None:
            self.kill_all()
        for player in self.players:
            if player.process is not None and player.process.poll() is None:
                player.process.kill()
                player.process.wait()
        self._log.close()


def send(pid: int, number: signal.Signals) -> bool:
    """Signal a process; whether it was still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _name_of(command: list[str]) -> str:
    """Which child a command line is, such as `python -P -m workers --config F --model talk --index 0`; '' for none."""
    words: Mapping[str, str] = dict(pairwise(command))
    match words.get("-m"):
        case "workers":
            return f"{words.get('--model')}/{words.get('--index')}"
        case "bridge_tcp":
            return "bridge"
        case "broker":
            return "broker"
    return ""
