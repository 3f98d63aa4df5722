"""One soak, from the first start to the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from clients.blocking import Client
from soak import blocking, catalogues, effects, lineages, registers, resources, wires
from soak.choices import RWKV, SCRIPTED, SHARED
from soak.history import Call, History, Order, Recorder, load
from soak.nemesis import Nemesis
from soak.player import Ending, Scribe, saves
from soak.system import System
from ssmprov.errors import SsmprovError, problem_of

MODELS = (SCRIPTED, RWKV)
WARM_S = 4.0
END_S = 60.0
REPLAYED = 4
FAULTS = frozenset({"internal", "corrupt", "refused", "wrong_model"})
"""Codes that no fault of the soak's explains."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Verdict:
    """What a run came to; it was good when there are no `findings`."""

    home: Path
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    back_s: dict[str, list[float]] = field(default_factory=dict)
    figures: Counter[str] = field(default_factory=Counter)
    warm: dict[str, resources.Use] = field(default_factory=dict)
    last: dict[str, resources.Use] = field(default_factory=dict)


def run(home: Path, seconds: float, seed: int, say: Say = print) -> Verdict:
    """Serve, load, strike for so many seconds, let everything end, and check. The working directory is kept."""
    verdict = Verdict(home)
    began = time.monotonic()
    system = System(home, seed)
    try:
        _serve_and_strike(system, seconds, seed, verdict, say)
    finally:
        system.destroy()
    history = load(sorted(system.folder.glob("*.jsonl")))
    say(f"checking {len(history.calls)} calls")
    verdict.findings += check(history, {model: catalogues.read(system.store(model)) for model in MODELS})
    verdict.figures += _figures(history)
    verdict.seconds = time.monotonic() - began
    return verdict


def _serve_and_strike(system: System, seconds: float, seed: int, verdict: Verdict, say: Say) -> None:
    system.start()
    system.start_players()
    say(f"serving in {system.home}; {len(system.players)} clients")
    time.sleep(WARM_S)  # a warm start: every worker has loaded, saved and collected something by then
    verdict.warm = resources.measure(system.pids())
    nemesis = Nemesis(system, Random(f"{seed}.nemesis"))
    last = began = time.monotonic()

    def told() -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            say(f"{last - began:5.0f} s: {sum(nemesis.strikes.values())} strikes, {dict(nemesis.signals)}")

    nemesis.run(began + seconds, told)
    verdict.findings += nemesis.faults
    verdict.strikes, verdict.signals, verdict.back_s = nemesis.strikes, nemesis.signals, dict(nemesis.back_s)
    say("quiet")
    system.wait(system.serving, END_S, "the system does not serve after the last strike")
    verdict.findings += system.end_players(END_S)
    verdict.findings += _look(system)
    verdict.last = resources.measure(system.pids())
    verdict.findings += resources.grown(verdict.warm, verdict.last)
    if (status := system.stop()) != 0:
        verdict.findings.append(f"`up` ended with status {status}")
    verdict.findings += resources.orphans(system.home)
    verdict.findings += resources.left_files(
        system.home, system.ready, system.scratch, [system.store(model) for model in MODELS]
    )


def _look(system: System) -> list[str]:
    """The last reads, which are part of the history; then collection, verification and replays."""
    faults: list[str] = []
    scribe = Scribe(Recorder(system.folder / "last.jsonl"), "last")
    client, link = blocking.connect(system.endpoint, scribe)

    def ask(op: str, model: str, context: str = "", **args: object) -> Ending:
        order = Order(Random().randbytes(16).hex(), op, model, context, dict(args))
        n = scribe.begin(link, order)
        try:
            ending = blocking.perform(client, order)
        except SsmprovError as error:
            ending = Ending({}, error=problem_of(error))
            faults.append(f"at the end {op} of {model} {context} failed: {error}")
        scribe.end(n, ending)
        return ending

    for model in MODELS:
        rows = ask("ckpt.ls", model, limit=1000).result.get("rows", [])
        for row in rows:
            ask("ckpt.show", model, row["name"], text=True)
        faults += _pinned(client, model, {row["name"]: row["pinned"] for row in rows if row.get("pinned")})
        ask("ckpt.gc", model)
        verified = ask("ckpt.verify", model).result
        faults += [f"verify: {fault}" for fault in verified.get("faults", [])]
        heads = [row["name"] for row in rows if row["name"] not in SHARED]
        for name in heads[:REPLAYED]:
            replayed = ask("ckpt.replay", model, name).result
            if replayed and not replayed.get("text_equal", True):
                faults.append(f"{model}:{name} reads otherwise when it is replayed")
            if (difference := replayed.get("largest_difference") or 0) > 1e-3:
                faults.append(f"{model}:{name} differs by {difference} from its replay")
    client.close()
    return faults


def _pinned(client: Client, model: str, stored: dict[str, str]) -> list[str]:
    """What the broker believes of pins is what the store holds."""
    known = client.status().pins
    known = {name.removeprefix(f"{model}:"): worker for name, worker in known.items() if name.startswith(f"{model}:")}
    wrong = {name for name in known.keys() | stored.keys() if known.get(name) != stored.get(name)}
    return [f"{model}:{name} is pinned to {stored.get(name)}, the broker says {known.get(name)}" for name in wrong]


def check(history: History, stores: dict[str, catalogues.Catalogue]) -> list[str]:
    """Every broken promise that the history shows, one sentence each."""
    findings = wires.check(history) + wires.unanswered(history)
    names = effects.operations(history, stores)
    findings += lineages.check(history, stores, names)
    for (model, name), operations in sorted(names.items()):
        verdict = registers.check(operations)
        if verdict.why:
            findings.append(f"{model}:{name} is no register: {verdict.why}")
        elif not verdict.decided:
            findings.append(f"{model}:{name}: whether it is a register was not found out")
    for call in history.calls:
        if call.error is not None and (call.error.code in FAULTS or _out_of_touch(call)):
            findings.append(f"call {call.n} ({call.order.op}) failed: {call.error.code}: {call.error.message}")
    return findings


def _out_of_touch(call: Call) -> bool:
    """Whether a client gave the broker up, which was never away for as long as a client waits for it."""
    return call.error is not None and call.error.code == "unreachable" and not call.order.op.startswith("bridge.")


def _figures(history: History) -> Counter[str]:
    figures: Counter[str] = Counter()
    for call in history.calls:
        figures["calls"] += 1
        turn = call.order.op in ("turn", "bridge.say", "bridge.bang")
        figures["answered turns"] += turn and call.ok
        figures["acknowledged saves"] += call.ok and saves(call.order)
        figures["asked again under the same id"] += call.again
        figures["never answered (client killed or gone)"] += not call.answered
        if call.error is not None:
            figures[f"error {call.error.code}"] += 1
            if call.error.code == "worker_lost":
                committed = call.error.details.get("committed", "not saved")
                figures[f"worker_lost, committed {committed}"] += 1
    figures["PARTIALs"] = sum(frame.kind == "partial" for frames in history.frames.values() for frame in frames)
    figures["lines lost by killed clients"] = history.torn
    return figures


def save(verdict: Verdict) -> Path:
    """Write the verdict beside the history."""
    path = verdict.home / "verdict.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(verdict, enc_hook=str), indent=1))
    return path
