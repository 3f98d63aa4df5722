"""The fuzzer: mutates seeds, runs a target, counts how each run ended, and keeps what should not have happened."""

from __future__ import annotations

import contextlib
import hashlib
import re
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from types import FrameType

from fuzz import CORPUS
from fuzz.mutate import Mutator, mutate
from ssmprov.errors import SsmprovError

TAKEN = "taken"
MAX_POOL = 400
MAX_KEPT = 8192
"""Bytes of an input that is kept to be mutated further: with large ones a run would soon do little else than copy."""

MAX_OUTCOMES = 3000
HANG_S = 20
"""CPU seconds after which a run is ended."""

MEMORY = 2 << 30
"""A run may take that much address space beyond what the process has."""

_VARIES = re.compile(r"0x[0-9a-f]+|#?[0-9a-f]{12,}|\d+|'[^']*'|\"[^\"]*\"|`[^`]*`|\S*/\S*")


@dataclass(frozen=True)
class Target:
    """A decoder: `run` raises nothing but the `documented` errors, in less than `slow_s`, whatever it is given.

    It may return what a run came to, so that inputs that come to something new are followed. `runs` is its share of the
    default tests.
    """

    name: str
    run: Callable[[bytes], str | None]
    seeds: Callable[[], list[bytes]]
    documented: tuple[type[Exception], ...]
    mutate: Mutator = mutate
    slow_s: float = 2.0
    runs: int = 2000


@dataclass(frozen=True)
class Finding:
    """An input after which something was wrong: `what` says where, once for each fault."""

    what: str
    data: bytes
    trace: str = ""


@dataclass
class Tally:
    """What a series of runs came to."""

    runs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Count another series as well; its runs are counted as they are made."""
        self.seconds += other.seconds
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.outcomes += other.outcomes
        self.findings = other.findings | self.findings


class Hang(BaseException):
    """Raised into a run that does not end."""


def outcome_of(target: Target, data: bytes) -> tuple[str, Finding | None]:
    """How one run ends, where each branch that refuses counts once; and what is wrong with that."""
    try:
        what = target.run(data)
        return f"{TAKEN}: {what}" if what else TAKEN, None
    except target.documented as error:
        return _branch(error), None
    except (Exception, Hang) as error:
        return "FAULT", Finding(_where(error), data, "".join(traceback.format_exception(error))[-4000:])


def _branch(error: Exception) -> str:
    """Where an error was raised first; of one that a library raised, also what it said, but for numbers and names."""
    inner = error.__context__
    if inner is not None and not isinstance(inner, SsmprovError):
        return f"{type(error).__name__}: {_VARIES.sub('_', str(error)[:2000])[:90]!r}"
    place = (inner or error).__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place is not None else "nowhere"
    return f"{type(error).__name__} in {where}"


def _where(error: BaseException) -> str:
    """The fault's name: the error's type, and the deepest line of the project that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} in {last.name}: {last.line}"


class Fuzzer:
    """Runs one target. The same seed and count give the same inputs."""

    def __init__(self, target: Target, seed: int, extra: Sequence[bytes] = ()) -> None:
        self.target = target
        self.tally = Tally()
        self._random = Random(f"{target.name} {seed}")
        self._seeds = [*target.seeds(), *extra]
        self._pool = list(self._seeds)

    def run(self, count: int, until: float = float("inf")) -> None:
        """That many runs, or as many as fit before the monotonic time `until`."""
        tally, target, random = self.tally, self.target, self._random
        outcomes, clock = tally.outcomes, time.perf_counter
        begun = clock()
        with watched(lambda: tally.runs):
            for _ in range(count):
                pool = self._pool if random.random() < 0.4 else self._seeds
                data = target.mutate(random, pool[int(random.random() * len(pool))], pool)
                started = clock()
                outcome, finding = outcome_of(target, data)
                took = clock() - started
                tally.runs += 1
                if took > tally.slowest_s:
                    tally.slowest_s = took
                    finding = finding or self._slow(data, took)
                if outcome not in outcomes:
                    if len(outcomes) >= MAX_OUTCOMES:
                        outcome = "others"
                    self._keep(data)
                outcomes[outcome] += 1
                if finding is not None:
                    tally.findings.setdefault(finding.what, finding)
                if tally.runs % 256 == 0 and time.monotonic() >= until:
                    break
        tally.seconds += clock() - begun

    def _slow(self, data: bytes, took: float) -> Finding | None:
        """A run that took long does so by its own work, and again; else the machine was busy."""
        if took < self.target.slow_s:
            return None
        began = time.process_time()
        outcome_of(self.target, data)
        took = time.process_time() - began
        return Finding(f"slow: {took:.1f} s for {len(data)} bytes", data) if took >= self.target.slow_s else None

    def _keep(self, data: bytes) -> None:
        """An input that ended in a new way is worth mutating further."""
        if len(data) > MAX_KEPT:
            return
        if len(self._pool) < MAX_POOL + len(self._seeds):
            self._pool.append(data)
        else:
            self._pool[len(self._seeds) + int(self._random.random() * MAX_POOL)] = data


@contextlib.contextmanager
def watched(runs: Callable[[], int]) -> Iterator[None]:
    """Bound the address space meanwhile, and end a run that uses CPU without end. For the main thread."""
    last, ticks = -1, 0

    def tick(_number: int, _frame: FrameType | None) -> None:
        nonlocal last, ticks
        ticks = ticks + 1 if runs() == last else 0
        last = runs()
        if ticks >= HANG_S:
            ticks = 0
            raise Hang(f"no end after {HANG_S} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    bound = _address_space() + MEMORY
    former = signal.signal(signal.SIGVTALRM, tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.0, 1.0)
    resource.setrlimit(resource.RLIMIT_AS, (bound if limits[1] < 0 else min(bound, limits[1]), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def smaller(target: Target, finding: Finding, patience: int = 400) -> Finding:
    """The same fault with fewer bytes, by leaving out pieces of it."""
    if finding.what.startswith(("slow", "Hang")):
        return finding
    data, tries = finding.data, 0
    size = len(data) // 2
    while size and tries < patience:
        at = 0
        while at < len(data) and tries < patience:
            shorter = data[:at] + data[at + size :]
            tries += 1
            found = outcome_of(target, shorter)[1]
            if found is not None and found.what == finding.what:
                data = shorter
            else:
                at += size
        size //= 2
    return Finding(finding.what, data, finding.trace)


def kept(name: str) -> list[bytes]:
    """What the corpus holds for a target."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


def keep(name: str, data: bytes) -> str:
    """Put a finding's input into the corpus; its file's name."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.name
