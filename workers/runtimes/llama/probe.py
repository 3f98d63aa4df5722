"""Does this build of llama.cpp run on this machine? A child process finds out, since it may crash.

A library that was built for another processor crashes at the first matrix product with an instruction that this
processor lacks, and takes its process with it. So a child decodes several tokens at once with a tiny model of the types
that matter. Its success is recorded for this library and this processor.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ssmprov import rooms
from ssmprov.errors import SsmprovError, Unavailable, Unsupported

PATIENCE_S = 120.0
TOKENS = 40
WIDTH = 256
HIDDEN = 512
VOCABULARY = 300
NOTE = "llama-probe.json"


def ensure(cache: Path | None, n_gpu_layers: int = 0) -> None:
    """Raise Unsupported, which says how to rebuild, if the library crashes or does not compute."""
    key = _key(n_gpu_layers)
    if cache is not None and _noted(cache / NOTE) == key:
        return
    command = rooms.command("workers.runtimes.llama.probe", str(n_gpu_layers))
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"llama.cpp did not finish a tiny matrix product in {PATIENCE_S:.0f} s: this machine is too busy"
        ) from None
    if done.returncode == -signal.SIGKILL:
        raise Unavailable(verdict(done.returncode, ""))
    if done.returncode:
        raise Unsupported(verdict(done.returncode, done.stderr.decode(errors="replace")))
    if cache is not None:
        _note(cache / NOTE, key)


def verdict(status: int, said: str) -> str:
    """What it means that the child ended with this status, which is not 0."""
    if status == -signal.SIGKILL:
        return "llama.cpp was killed in a first test, most likely because memory ran out: close other programs"
    if status < 0:
        name = signal.Signals(-status).name
        return (
            f"llama.cpp crashed with {name} in a first test: it was built for another processor; rebuild it "
            "for this one with `make llama REBUILD=1`, or for one without AVX2 with "
            "`make llama REBUILD=1 LLAMA_CMAKE='-DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_BMI2=OFF'`"
        )
    last = said.strip().splitlines()[-1:] or ["no word"]
    return f"llama.cpp does not work here: {last[0]}; rebuild it with `make llama REBUILD=1`"


def _key(n_gpu_layers: int) -> str:
    """What the answer depends on: the library's files, the processor, and whether a GPU takes part."""
    digest = hashlib.sha256(f"{platform.machine()} {_processor()} {n_gpu_layers > 0}".encode())
    found = importlib.util.find_spec("llama_cpp")
    folder = Path(
        os.environ.get("LLAMA_CPP_LIB_PATH") or (Path(found.origin).parent / "lib" if found and found.origin else "")
    )
    for path in sorted(folder.glob("*")):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _noted(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(found.get("works", "")) if isinstance(found, dict) else ""


def _note(path: Path, key: str) -> None:
    """Record the success. Best effort: without the record the test just runs again."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps({"works": key}), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_model(path: Path) -> None:
    """A transformer of one layer with random weights, in the types whose products depend on the processor."""
    import gguf

    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCABULARY)
    kinds = gguf.GGMLQuantizationType
    shapes = {
        "attn_q": (kinds.Q8_0, WIDTH, WIDTH),
        "attn_k": (kinds.Q4_0, WIDTH, WIDTH),
        "attn_v": (kinds.Q4_1, WIDTH, WIDTH),
        "attn_output": (kinds.F16, WIDTH, WIDTH),
        "ffn_gate": (kinds.Q5_0, HIDDEN, WIDTH),
        "ffn_up": (kinds.Q5_1, HIDDEN, WIDTH),
        "ffn_down": (kinds.Q8_0, WIDTH, HIDDEN),
    }
    named = {f"blk.0.{name}": shape for name, shape in shapes.items()}
    named |= {"token_embd": (kinds.Q8_0, VOCABULARY, WIDTH), "output": (kinds.Q8_0, VOCABULARY, WIDTH)}
    for name, (kind, rows, columns) in named.items():
        values = random.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(n_gpu_layers: int) -> None:
    """Decode several tokens at once. Raises SsmprovError, or ends the process."""
    from workers.runtimes.llama import native
    from workers.runtimes.llama.batch import Batch

    lib = native.library()
    with tempfile.TemporaryDirectory(prefix="ssmprov-") as folder:
        path = Path(folder) / "probe.gguf"
        write_model(path)
        model = native.Model(path, n_gpu_layers=n_gpu_layers, main_gpu=None)
    context = native.Context(model, sequences=1, n_ctx=TOKENS, n_batch=TOKENS, kv_type=lib.GGML_TYPE_F16)
    batch = Batch(lib, TOKENS, 1)
    batch.fill([(0, 0, list(range(TOKENS - 1)))])
    status = lib.llama_decode(context.pointer, batch.native)
    if status:
        raise SsmprovError(f"a batch failed with status {status}{native.why()}")
    logits = np.ctypeslib.as_array(lib.llama_get_logits(context.pointer), (VOCABULARY,))
    if not np.isfinite(logits).all() or float(np.ptp(logits)) == 0:
        raise SsmprovError("a matrix product gave no usable numbers")
    context.close()
    model.close()


if __name__ == "__main__":
    try:
        run(int(sys.argv[1]))
    except SsmprovError as error:
        sys.exit(error.message)
