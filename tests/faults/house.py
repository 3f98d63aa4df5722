"""A whole house for the fault matrix: a broker, two workers of each model and a bridge, as real processes.

Under `ssmprov up` what is killed comes back by itself, as it does for a user, after a pause that doubles with each
loss; otherwise the test starts it again, which takes no pause.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from cluster import PATIENCE_S, TINY, Cluster, Process, busy, rwkv_toml, scripted_toml
from ports import free_port

from clients.blocking import Client, Stream
from models import rwkv7
from ssmprov.errors import SsmprovError

UP = ("-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up", "--ready-file", "ready.json")
GREEDY = {"temp": 0.0}

LOADED = 3.0
"""The bounds of the matrix hold on a machine that has time; on one that is busy with other tests they may triple."""


SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "[LONG]:", "pieces": [f" {i}" for i in range(6000)]},
        {"after": "[SOME]:", "pieces": [f" {i}" for i in range(120)]},
        {"after": "", "pieces": ["hel", "lo", "!"]},
    ],
    "token_delay_s": 0.005,
}
SOME = "".join(f" {i}" for i in range(120))
ENDLESS = {"max_tokens": 10**6, "max_chars": 10**6, "ttl_s": 300.0}


def endless_rwkv_toml(home: Path) -> str:
    """An RWKV-7 with random weights that never ends a turn by itself: the end token's logit is always 0."""
    toml = rwkv_toml(home, workers=2)
    tensors = rwkv7.random_tensors(TINY, 1)
    tensors["head.weight"][0] = 0
    rwkv7.save(tensors, home / "tiny.pth")
    return toml


class Moment:
    """The moment of a fault, on the monotonic clock: every bound of the matrix counts from here."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def within(self, bound_s: float, what: str, then: float | None = None) -> float:
        """Assert that `what` has happened in time, now or at `then`; the seconds that it took."""
        took = (time.monotonic() if then is None else then) - self.at
        print(f"{what}: {took:.3f} s of {bound_s:g} s")
        assert took < bound_s * LOADED * busy(), f"{what} took {took:.3f} s, where {bound_s:g} s are allowed"
        return took


class Listener(threading.Thread):
    """Reads a stream to its end on a thread of its own: its pieces, when each came, and how it ended."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self.stream = stream
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.error: SsmprovError | None = None
        self.ended_at = 0.0
        self._news = threading.Condition()
        self.start()

    def run(self) -> None:
        try:
            for piece in self.stream:
                with self._news:
                    self.pieces.append(piece)
                    self.times.append(time.monotonic())
                    self._news.notify_all()
        except SsmprovError as error:
            self.error = error
        with self._news:
            self.ended_at = time.monotonic()
            self._news.notify_all()

    def has(self, pieces: int) -> Listener:
        """Wait for that many pieces."""
        with self._news:
            came = self._news.wait_for(lambda: len(self.pieces) >= pieces or self.ended_at, PATIENCE_S)
        assert came, f"only {len(self.pieces)} pieces came"
        assert not self.ended_at or len(self.pieces) >= pieces, f"it ended first: {self.error}"
        return self

    def more(self, pieces: int = 3) -> Listener:
        """Wait for more than there are now: the stream goes on."""
        return self.has(len(self.pieces) + pieces)

    def end(self) -> Listener:
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the stream did not end"
        return self

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def longest_gap(self, since: float) -> float:
        """The longest time without a piece since then."""
        times = [since, *(at for at in self.times if at >= since)]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def until(holds: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Look again and again, as only the other process knows when; what it gave when it held."""
    end = time.monotonic() + patience_s
    while not (found := holds()):
        assert time.monotonic() < end, f"it never came to be that {what}"
        time.sleep(0.002)
    return found


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


class House:
    """Two workers of each model, and a bridge for the first one."""

    def __init__(
        self,
        home: Path,
        *,
        models: tuple[str, ...] = ("talk", "tiny"),
        broker: str = "",
        bridge: str = "",
        supervised: bool = False,
        environment: dict[str, str] | None = None,
        **keys: Any,
    ) -> None:
        """`broker` and `bridge` are further lines of those tables, `keys` those of the scripted model."""
        self.home = home
        self.supervised = supervised
        self.port = free_port()
        keys = {"workers": 2, "script": SCRIPT} | keys
        tables = {"talk": lambda: scripted_toml(home, **keys), "tiny": lambda: endless_rwkv_toml(home)}
        toml = f'[broker]\nlisten = ["ipc://run/broker.sock", "tcp://127.0.0.1:{self.port}"]\n{broker}\n'
        toml += "".join(tables[model]() for model in models)
        self.cluster = Cluster(home, f'{toml}\n[[bridge]]\nport = 0\nmodel = "{models[0]}"\n{bridge}')
        if supervised:
            self.cluster.environment.pop("SSMPROV_SUPERVISED")
        self.cluster.environment |= environment or {}
        self.models = models
        self.tcp = f"tcp://127.0.0.1:{self.port}"
        self.acknowledged: dict[str, str] = {}
        self.up: Process
        self.ready: dict[str, Any] = {}

    def open(self) -> House:
        if self.supervised:
            self.up = self.cluster.start("up", *UP)
            return self.serving()
        self.ready = {"pids": {}, "bridges": [{}]}
        self.start("broker")
        for process in [self.start(f"{model}/{index}") for model in self.models for index in (0, 1)]:
            process.expect(" serves ")
        self.start("bridge/0").expect("listens on")
        self.read_bridge()
        return self

    def start(self, name: str) -> Process:
        """Start one process by hand."""
        kind, _, index = name.partition("/")
        if name == "broker":
            process = self.cluster.broker()
        elif kind == "bridge":
            words = ("-m", "bridge_tcp", "--index", index, "--ready-file", str(self.home / "bridge.json"))
            process = self.cluster.start(name, *words)
        else:
            process = self.cluster.worker(kind, int(index), wait=False)
        self.ready["pids"][name] = process.child.pid
        return process

    def serving(self) -> House:
        """Wait until the supervisor says that everything serves (again)."""
        self.up.expect(r" up \| serving ")
        self.ready = json.loads((self.home / "ready.json").read_text())
        return self

    def read_bridge(self) -> None:
        self.ready["bridges"] = [json.loads((self.home / "bridge.json").read_text())]

    def warm(self) -> House:
        """Let every worker do a turn that saves, so that what is opened once is open."""
        with self.client() as client:
            for model in self.models:
                for index in (0, 1):
                    name = f"warm/{index}"
                    if f"{model}:{name}" not in self.acknowledged:
                        self.turn(client, "warm", name, model=model, max_tokens=0)
                        client.move(f"{model}:{name}", f"{model}/{index}")
                    self.turn(client, "er", name, model=model, max_tokens=0)
        return self

    # -- who is there

    def pid(self, name: str) -> int:
        return int(self.ready["pids"][name])

    def kill(self, name: str, number: int = signal.SIGKILL) -> Moment:
        """A signal to one of its processes, and the moment of it."""
        moment = Moment()
        os.kill(self.pid(name), number)
        return moment

    def lost(self, name: str) -> House:
        """It was killed, or is about to be: wait for that, and until it serves again."""
        before = self.pid(name)
        if self.supervised:
            self.up.expect(rf" up \| {name} was killed")
            self.serving()
            assert self.pid(name) != before
            return self
        assert self.cluster.processes[name].wait() == -signal.SIGKILL
        process = self.start(name)
        if name.startswith("bridge"):
            process.expect("listens on")
            self.read_bridge()
        elif name != "broker":
            process.expect(" serves ")
        return self

    def mend(self) -> None:
        """Start again what was killed beside: on a busy machine a heartbeat may come too late for a worker."""
        for name in [name for name in self.ready["pids"] if self.cluster.processes[name].child.poll() is not None]:
            print(f"{name} has ended and is started again")
            self.lost(name)

    def processes(self) -> set[int]:
        """Whatever runs in this house, known or not; `up` itself left out."""
        found = set()
        for process in psutil.process_iter():
            try:
                if process.environ().get("SSMPROV_HOME") == str(self.home):
                    found.add(process.pid)
            except psutil.Error:
                continue
        return found - ({self.up.child.pid} if self.supervised else set())

    @property
    def bridge_port(self) -> int:
        return int(self.ready["bridges"][0]["port"])

    def open_files(self) -> dict[int, int]:
        """How many each process of the house has open."""
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in self.ready["pids"].values()}

    # -- turns whose answers are kept

    def client(self, endpoint: str = "", **options: Any) -> Client:
        options.setdefault("timeout_s", PATIENCE_S)
        return Client(endpoint or self.cluster.endpoint, **options)

    def turn(self, client: Client, prompt: str, name: str, **options: Any) -> Any:
        """A turn that saves; what was acknowledged is noted for the aftermath."""
        model = options.setdefault("model", self.models[0])
        key = f"{model}:{name}"
        known = self.acknowledged.get(key)
        if known is not None:
            options.setdefault("context", name)
        reply = client.turn(prompt, save=name, **options)
        self.acknowledged[key] = (known or "") + prompt + reply.text
        return reply

    def acknowledge(self, name: str, text: str, model: str = "") -> None:
        """A text that was acknowledged by other means."""
        self.acknowledged[f"{model or self.models[0]}:{name}"] = text

    def close(self) -> None:
        children = [psutil.Process(pid) for pid in self.processes()]
        if self.supervised:
            self.up.kill()  # the children die with it
        self.cluster.close()
        _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
        assert alive == [], "a process has outlived its house"


@contextmanager
def opened(home: Path, **options: Any) -> Iterator[House]:
    house = House(home, **options)
    try:
        yield house.open().warm()
    finally:
        house.close()
