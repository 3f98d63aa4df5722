"""What is done to the system, and when: drawn from a seed, and counted by its kind."""

from __future__ import annotations

import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random

from soak.choices import RWKV, SCRIPTED
from soak.system import System, send

PATIENCE_S = 45.0
PAUSE_S = 0.25
"""Between two strikes in the mean, where the first one's end is not waited for."""

MEASURED = 0.2
"""So many of the strikes find everything serving, and are waited for."""

WEIGHTS = {
    "kill scripted worker": 30,
    "kill rwkv worker": 3,
    "term scripted worker": 6,
    "stop scripted worker": 6,
    "stop rwkv worker": 1,
    "kill broker": 22,
    "term broker": 3,
    "stop broker": 3,
    "kill bridge": 8,
    "kill client": 7,
    "kill broker and worker": 8,
    "kill both scripted workers": 5,
    "stop worker and kill broker": 4,
    "kill everything": 2,
}


class Nemesis:
    """Strikes one after the other. Now and then it waits until everything serves again, and notes how long."""

    def __init__(self, system: System, random: Random) -> None:
        self._system = system
        self._random = random
        self.strikes: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.back_s: dict[str, list[float]] = defaultdict(list)
        self.faults: list[str] = []
        self._pending: list[tuple[float, int]] = []
        self._struck: dict[str, int] = {}  # who has to be another process before everything serves again

    def run(self, until: float, told: Callable[[], None]) -> None:
        """Strike until that time of the monotonic clock."""
        random = self._random
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        while (now := time.monotonic()) < until:
            kind = random.choices(names, weights)[0]
            measured = random.random() < MEASURED
            if measured and not self._await("before a strike"):
                return
            self._struck = {}
            self._strike(kind)
            if measured:
                began = time.monotonic()
                if not self._await(kind):
                    return
                self.back_s[kind].append(time.monotonic() - began)
            else:
                self._sleep(min(random.expovariate(1 / PAUSE_S), 2.0))
            for player in self._system.players:
                self._system.look_after(player)
            told()
            self._sleep(max(0.0, 0.1 - (time.monotonic() - now)))
        self._sleep(0)
        self._awaken(everything=True)

    def _await(self, what: str) -> bool:
        try:
            self._system.wait(self._serving, PATIENCE_S, f"not everything serves again ({what})")
        except TimeoutError as error:
            self.faults.append(str(error))
            return False
        return True

    def _serving(self) -> bool:
        self._awaken()
        if self._pending:
            return False
        pids = self._system.pids()
        return not any(pids.get(name) == pid for name, pid in self._struck.items()) and self._system.serving()

    def _sleep(self, seconds: float) -> None:
        """Wait, waking up meanwhile whom it is time to wake."""
        until = time.monotonic() + seconds
        while True:
            self._awaken()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _awaken(self, *, everything: bool = False) -> None:
        for due, pid in list(self._pending):
            if everything or time.monotonic() >= due:
                self._pending.remove((due, pid))
                send(pid, signal.SIGCONT)

    def _strike(self, kind: str) -> None:
        random, system = self._random, self._system
        pids = system.pids()
        scripted = [f"{SCRIPTED}/0", f"{SCRIPTED}/1"]
        random.shuffle(scripted)
        self.strikes[kind] += 1
        match kind.split(" ", 1):
            case ["kill", "everything"]:
                self._signalled(signal.SIGKILL, len(system.kill_all()))
                system.launch()
            case ["kill", "client"]:
                self._signalled(signal.SIGKILL, 1)
                system.kill_player(random.choice(system.players))
            case ["kill", "broker and worker"]:
                order = ["broker", scripted[0]]
                random.shuffle(order)
                self._signal(signal.SIGKILL, pids, *order)
            case ["stop", "worker and kill broker"]:  # the next broker gives its turns to another before it is back
                whom = random.choice([*scripted, f"{RWKV}/0"])
                self._signal(signal.SIGSTOP, pids, whom, seconds=random.uniform(2.0, 6.0))
                self._signal(signal.SIGKILL, pids, "broker")
            case ["kill", "both scripted workers"]:
                self._signal(signal.SIGKILL, pids, *scripted)
            case [verb, what]:
                number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}[verb]
                whom = {"scripted worker": scripted[0], "rwkv worker": f"{RWKV}/{random.randrange(2)}"}.get(what, what)
                self._signal(number, pids, whom)

    def _signal(self, number: signal.Signals, pids: dict[str, int], *names: str, seconds: float = 0.0) -> None:
        """`seconds` is for how long to stop; a while where it is not told."""
        for name in names:
            if (pid := pids.get(name)) is None or not send(pid, number):
                continue  # it is down already, from a strike before
            self._signalled(number, 1)
            if number == signal.SIGSTOP:
                self._pending.append((time.monotonic() + (seconds or self._random.uniform(0.3, 3.0)), pid))
            else:
                self._struck[name] = pid

    def _signalled(self, number: signal.Signals, count: int) -> None:
        self.signals[number.name] += count
