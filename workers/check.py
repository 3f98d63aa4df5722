"""The child process of `ssmprov models check`: what a model file is, and whether it loads, decodes and restores here.

    python -P -m workers.check PATH RUNTIME [DTYPE [CACHE [KEY=VALUE...]]]

It prints one JSON object: a `Report`, or a `Problem` with exit status 1. If a native library crashes on a file, only
this process dies.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import msgspec
import numpy as np

from ssmprov.errors import BadRequest, SsmprovError, Unsupported, problem_of
from workers.context import Arrays
from workers.described import EMBEDDED, describe
from workers.families import set_of
from workers.model_files import model_file
from workers.runtimes import base
from workers.runtimes.base import Feed, Logits, Plan, Runtime

N_CTX = 4096
"""Tokens of a transformer's context, unless it was trained with fewer."""

TOKENS = 32
"""Tokens that are read at once, and then again one by one."""

MARGIN = 0.9
"""The share of the free memory that may be used."""

SAMPLES = (
    "Plain text, twice  spaced,\ttabbed,\r\nand broken into lines.\n\n",
    "(Turn 1) [USER]: hi\n\n~~~(end)~~~\n\n(Turn 2) [INTERFACE]:",
    "Grüße aus Ålesund: naïve façades, Ελλάδα, Дом, עברית, العربية, हिन्दी, 日本語, 한국, 🙂 👩\u200d👧 e\u0301 \ufeff",
    "<s>a</s><unk>[PAD280]<|endoftext|><|im_start|>user<|im_end|><|sep|><pad>[INST]",
    "\x01\x07\x1b[31m\x7f\x85\u2028\u2029 \x0b\x0c",
    "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": not x}  # 100 %\n",
)
"""Texts that a tokenizer must reproduce exactly; the fourth spells control tokens of several vocabularies."""


class Report(msgspec.Struct, kw_only=True):
    """What was found. Sizes are in bytes, times in seconds; None if it cannot be known here."""

    runtime: str
    architecture: str
    family: str
    settings: str
    name: str
    file_bytes: int
    parameters: int
    quantization: str
    layers: int
    embedding: int
    tokenizer: str
    vocabulary: int
    text_exact: bool
    text_lost: list[str]
    fingerprint: str
    layout: str
    dtype: str
    state_bytes: int
    token_bytes: int
    """How much the state grows with each token; 0 for a recurrent model."""
    context_tokens: int | None
    n_ctx: int | None
    memory_bytes: int | None
    """The most memory that this process had, with one slot."""
    free_bytes: int | None
    slots_that_fit: int | None
    load_s: float
    prefill_per_s: float
    decode_per_s: float
    restores: bool
    """Whether a state that was saved and loaded continued bit for bit."""


def check(runtime_name: str, plan: Plan) -> Report:
    """Describe a model, load it, and try it out. Raises what the runtime raises, or BadRequest that names the file."""
    path = plan.path if plan.path.name in EMBEDDED else model_file(plan.path, runtime_name)
    plan = replace(plan, path=path)
    described = describe(path, runtime_name, plan.dtype)
    free = free_memory()
    if free is not None and described.weight_bytes > free:
        raise BadRequest(
            f"{path} needs {described.weight_bytes >> 20} MiB for its weights, but only {free >> 20} MiB of memory "
            "are free: close other programs, or use a file with smaller weights"
        )
    n_ctx = min(N_CTX, described.trained_context or N_CTX) if runtime_name == "llama" else None
    started = time.perf_counter()
    runtime = base.load(
        runtime_name, plan if n_ctx is None else replace(plan, options={**plan.options, "n_ctx": n_ctx})
    )
    load_s = time.perf_counter() - started
    lost = [sample for sample in SAMPLES if not comes_back(runtime, sample)]
    trial = try_out(runtime, path)
    grows = n_ctx is not None and runtime.context_tokens is not None
    peak = peak_memory()
    return Report(
        runtime=runtime_name,
        architecture=described.architecture,
        family=described.family,
        settings=set_of(described.family, described.name),
        name=described.name,
        file_bytes=described.file_bytes,
        parameters=described.parameters,
        quantization=described.quantization,
        layers=described.layers,
        embedding=described.embedding,
        tokenizer=described.tokenizer,
        vocabulary=runtime.vocabulary,
        text_exact=not lost,
        text_lost=lost,
        fingerprint=runtime.identity.fingerprint,
        layout=runtime.identity.layout,
        dtype=runtime.identity.dtype,
        state_bytes=runtime.state_bytes,
        token_bytes=trial.token_bytes if grows else 0,
        context_tokens=runtime.context_tokens,
        n_ctx=n_ctx if grows else None,
        memory_bytes=peak,
        free_bytes=free,
        slots_that_fit=slots_that_fit(free, peak, runtime.state_bytes * (1 if grows else 2)),
        load_s=load_s,
        prefill_per_s=trial.prefill_per_s,
        decode_per_s=trial.decode_per_s,
        restores=trial.restores,
    )


# -- the model


def comes_back(runtime: Runtime, text: str) -> bool:
    """Whether the tokens of a text spell it exactly."""
    try:
        tokens = runtime.tokenize(text)
    except BadRequest:
        return False
    return b"".join(map(runtime.piece, tokens)) == text.encode()


@dataclass(frozen=True, slots=True)
class Trial:
    """How the model did: tokens per second, bytes of state for each further token, and whether a state restores."""

    prefill_per_s: float
    decode_per_s: float
    token_bytes: int
    restores: bool


def try_out(runtime: Runtime, path: Path) -> Trial:
    """Let the model read some tokens at once, others one by one. Raises BadRequest if its logits are not numbers."""
    spelt = list(islice((token for token in range(runtime.vocabulary) if runtime.piece(token)), TOKENS))
    if not spelt:
        raise BadRequest(f"{path}: its vocabulary has no token with text")
    end = runtime.context_tokens
    count = TOKENS if end is None else min(TOKENS, max(1, end // 2))  # all of them have to fit twice
    tokens = list(islice(cycle(spelt), count))
    _read(runtime, tokens, path)  # everything is slower the first time
    runtime.load(0, {})
    started = time.perf_counter()
    logits = _read(runtime, tokens, path)
    prefilled = time.perf_counter()
    saved = runtime.save(0)
    mute = sorted(runtime.end_tokens | runtime.control_tokens)
    began = time.perf_counter()
    for _ in range(count):
        logits[mute] = -np.inf
        logits = _read(runtime, [int(logits.argmax())], path)
    decoded = time.perf_counter()
    grown = _bytes(runtime.save(0)) - _bytes(saved)
    runtime.load(0, saved)
    here = _read(runtime, tokens[:1], path)
    runtime.load(0, {name: array.copy() for name, array in saved.items()})  # as if it came from a disk
    there = _read(runtime, tokens[:1], path)
    return Trial(
        count / (prefilled - started), count / (decoded - began), grown // count, bool(np.array_equal(here, there))
    )


def _read(runtime: Runtime, tokens: list[int], path: Path) -> Logits:
    logits: Logits = runtime.forward([Feed(0, tokens)])[0].copy()
    if not (logits < np.inf).all():  # also catches NaN
        raise BadRequest(
            f"{path}: the model computes NaN or infinity: its weights are damaged, or too large for their dtype"
        )
    return logits


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


# -- memory


def slots_that_fit(free: int | None, peak: int | None, slot: int) -> int | None:
    """How many slots one worker has room for, given the memory that it needs with one slot.

    `slot` is the size of one slot. It counts a recurrent state twice: as it is decoded, and as it was saved last.
    """
    if free is None or peak is None:
        return None
    return 1 + max(0, int((MARGIN * free - peak) // max(1, slot)))


def free_memory() -> int | None:
    """Bytes that programs can still use without swapping; None if the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def peak_memory() -> int | None:
    """The most memory that this process has had, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


# -- the process


def main(arguments: list[str]) -> int:
    """Print a report or a problem, and return the exit status."""
    path, runtime_name, dtype, cache, *pairs = (*arguments, "", "")[: max(4, len(arguments))]
    options = dict(pair.split("=", 1) for pair in pairs)
    plan = Plan(path=Path(path), slots=1, dtype=dtype, options=options, cache=Path(cache) if cache else None)
    with os.fdopen(os.dup(1), "wb") as stdout:
        os.dup2(2, 1)  # what a library prints goes to standard error
        try:
            report = check(runtime_name, plan)
        except SsmprovError as error:
            stdout.write(_problem(error))
            return 1
        except ModuleNotFoundError as error:
            missing = Unsupported(
                f"the {runtime_name} runtime needs the Python module {error.name!r}, which is not installed: install "
                f"ssmprov[{runtime_name}]"
            )
            stdout.write(_problem(missing))
            return 1
        stdout.write(msgspec.json.encode(report))
        return 0


def _problem(error: SsmprovError) -> bytes:
    problem = problem_of(error)
    problem.message = problem.message.encode(errors="backslashreplace").decode()  # a path need not be UTF-8
    return msgspec.json.encode(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
