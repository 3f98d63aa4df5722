"""Real processes under attack: broker, worker and bridge stay up and within bounds, an honest client is served.

Every attack of `attacks` runs at once. Meanwhile the client takes turns on the broker and on the bridge, and holds
its contexts' texts against what it sent and was told.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import Cluster, scripted_toml
from ports import free_port

from clients.blocking import Client
from fuzz import HERE, zmtp
from fuzz.attacks import ATTACKS, IDLE, Doors
from fuzz.hostile import torment
from ssmprov import keys

SAMPLE_S = 0.25
BACK_S = 30.0
"""How long connections may take to be given back: an unfinished handshake is dropped after 5 s."""

SPARE_FILES = 16
ECHO = "[ECHO]:"
NAMES = tuple(attack.__name__ for attack in ATTACKS)


@dataclass
class Use:
    """Memory (MiB) and open files of one process: before, at most, afterwards."""

    pid: int
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        if "VmRSS:" not in status:  # it has ended
            return
        self.memory.append(int(status.partition("VmRSS:")[2].split()[0]) >> 10)
        self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))

    @property
    def figures(self) -> dict[str, int]:
        return {
            "mib_before": self.memory[0],
            "mib_most": max(self.memory),
            "mib_after": self.memory[-1],
            "files_before": self.files[0],
            "files_most": max(self.files),
            "files_after": self.files[-1],
        }


class House:
    """Broker (ipc and loopback TCP, with keys if asked), one worker of the scripted model, a bridge."""

    def __init__(self, home: Path, *, guarded: bool = False) -> None:
        port = free_port()
        if guarded:
            keys.make(home, keys.BROKER)
        toml = f'[broker]\nlisten = ["ipc://run/broker.sock", "tcp://127.0.0.1:{port}"]\n{scripted_toml(home)}'
        self.cluster = Cluster(home, toml + '[[bridge]]\nport = 0\nmodel = "talk"\nidle_s = 5.0\n').up()
        ready = home / "ready"
        self.cluster.start("bridge", "-m", "bridge_tcp", "--index", "0", "--ready-file", str(ready)).expect(
            "listens on"
        )
        bridge = json.loads(ready.read_text())["port"]
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        ipc = self.cluster.endpoint.removeprefix("ipc://")
        self.doors = Doors(ipc, port, bridge, max(50, min(IDLE, room - 600)), guarded)
        self.uses = {name: Use(process.child.pid) for name, process in self.cluster.processes.items()}

    def look(self) -> None:
        for use in self.uses.values():
            use.look()

    def dead(self) -> list[str]:
        return [f"{n}: {p.lines[-5:]}" for n, p in self.cluster.processes.items() if p.child.poll() is not None]

    def settles(self) -> None:
        """Wait until the strangers' connections are given back."""
        until = time.monotonic() + BACK_S
        while time.monotonic() < until:
            self.look()
            if all(use.files[-1] <= use.files[0] + SPARE_FILES for use in self.uses.values()):
                return
            time.sleep(SAMPLE_S)


class Honest(threading.Thread):
    """Takes turns on a context of its own, by the broker and by the bridge, and checks every answer."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self._doors = house.doors
        self._client = house.cluster.client(patience_s=60.0)
        self._enough = threading.Event()
        self._names = [f"honest-{secrets.token_hex(4)}" for _ in range(2)]
        self._texts = ["", ""]
        self.turns = 0
        self.slowest_s = 0.0
        self.faults: list[str] = []

    def run(self) -> None:
        try:
            for name in self._names:
                self._client.turn("", model="talk", save=name, create=True, max_tokens=0)
            while not self._enough.is_set():
                self.turn()
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def end(self) -> None:
        self._enough.set()
        self.join(60.0)
        if self.is_alive():
            self.faults.append("it was not answered")

    def turn(self) -> None:
        which, began = self.turns % 2, time.monotonic()
        prompt = f"(Turn {self.turns}) {ECHO}"
        name = self._names[which]
        reply = (self._of_broker if which == 0 else self._of_bridge)(self._client, prompt, name)
        if reply != " as you say.\n\n~~~(end)~~~\n\n":
            self.faults.append(f"{prompt!r} was answered with {reply!r}")
            self._enough.set()
        self._texts[which] += prompt + reply
        if self.turns % 16 < 2 and self._client.text(name, model="talk") != self._texts[which]:
            self.faults.append(f"the text of {name} is not what was said")
            self._enough.set()
        self.turns += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _of_broker(self, client: Client, prompt: str, name: str) -> str:
        return client.turn(prompt, model="talk", context=name, save=name, settings="greedy").text

    def _of_bridge(self, client: Client, prompt: str, name: str) -> str:
        """Asked again where the bridge had no room: it says so, and has changed nothing."""
        until = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(OSError):
                reply = _ask(self._doors.bridge, f"!{name} greedy {name}\n{prompt}")
                if reply and not reply.startswith("[error] busy"):
                    return reply
            if time.monotonic() > until:
                return "[nothing in a minute]"


def _ask(port: int, request: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        connection.sendall(request.encode() + b"\0")
        data = b""
        while part := connection.recv(65536):
            data += part
    return data.rstrip(b"\0").decode()


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process and its children open enough files for thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def besiege(
    home: Path, seconds: float, seed: int, attacks: Sequence[str] = NAMES, *, guarded: bool = False
) -> dict[str, object]:
    """Attack a house for so long; the figures, with `faults` where a promise was broken."""
    with many_files():
        house = House(home, guarded=guarded)
        try:
            return _besieged(house, seconds, seed, attacks)
        finally:
            house.cluster.close()


def _besieged(house: House, seconds: float, seed: int, attacks: Sequence[str]) -> dict[str, object]:
    honest = Honest(house)
    house.look()
    struck: Counter[str] = Counter()
    strangers = threading.Thread(target=_strike, args=(house.doors, attacks, seconds, seed, struck), daemon=True)
    for thread in (honest, strangers):
        thread.start()
    while strangers.is_alive():
        house.look()
        strangers.join(SAMPLE_S)
    honest.end()
    house.settles()
    return {
        "seconds": seconds,
        "struck": dict(struck),
        "turns": honest.turns,
        "slowest_turn_s": round(honest.slowest_s, 2),
        "uses": {name: use.figures for name, use in house.uses.items()},
        "faults": [*honest.faults, *house.dead()],
    }


def _strike(doors: Doors, attacks: Sequence[str], seconds: float, seed: int, struck: Counter[str]) -> None:
    """Let strangers in a process of their own attack; where it ends before its time, the next ones come."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        order = {"doors": asdict(doors), "attacks": list(attacks), "seconds": left, "seed": seed}
        command = [sys.executable, "-P", "-m", "fuzz.attacks", json.dumps(order)]
        path = os.pathsep.join((str(HERE.parents[1]), str(HERE.parent)))
        with subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                name, _, count = line.strip().partition(" ")
                struck[name] += int(count or 0)
        struck["ended"] += child.returncode == -signal.SIGABRT
        seed += 1


def endless(home: Path, mebibytes: int) -> dict[str, int]:
    """What one message that never ends costs the broker: its memory before, at most, and when the sender has gone."""
    house = House(home)
    try:
        use = house.uses["broker"]
        use.look()
        piece = zmtp.frame(bytes(60_000), more=True) * 17
        with zmtp.shake(("127.0.0.1", house.doors.tcp)) as connection:
            connection.settimeout(10.0)
            for _ in range(mebibytes):
                connection.sendall(piece)
                use.look()
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            use.look()
            time.sleep(SAMPLE_S)
        return {"sent_mib": mebibytes, **use.figures, "alive": int(not house.dead())}
    finally:
        house.cluster.close()


def run(seconds: float, seed: int, only: str, out: Path | None) -> int:
    """`make fuzz TARGET=live`; with `only` the attacks of these names, with commas between."""
    chosen = only.split(",") if only else NAMES
    figures: dict[str, Any] = {}
    steps: dict[str, Callable[[Path], object]] = {"siege": lambda home: besiege(home, seconds, seed, chosen)}
    if not only:
        steps["guarded"] = lambda home: besiege(home, seconds / 5, seed, guarded=True)
        steps["hostile"] = lambda home: torment(home, seconds / 5, seed)
        steps["endless"] = lambda home: endless(home, 256)
    for name, step in steps.items():
        with tempfile.TemporaryDirectory(prefix="ssmprov-live-") as folder:
            figures[name] = step(Path(folder) / "home")
    print(json.dumps(figures, indent=1))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    faults = [fault for row in figures.values() for fault in row.get("faults", [])]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0
