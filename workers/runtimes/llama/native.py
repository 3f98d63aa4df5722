"""llama.cpp itself: the library, its messages, and a model with its context, freed at the end."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

# Before the library is loaded: its threads wait for each other hundreds of times per token. Spinning for long starves
# other programs on busy cores; sleeping at once costs more than a second thread gains (0.1B shape, two idle cores:
# 34 ms a token, 21 with one thread, 12 with a short spin first, which is a tenth of a millisecond).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # otherwise an abort would start a debugger

from ssmprov.environment import is_on
from ssmprov.errors import BadRequest, Unsupported

Library = Any
"""The module `llama_cpp.llama_cpp`, which has no types."""

LEVEL_WARN, LEVEL_ERROR, LEVEL_CONTINUED = 3, 4, 5
DEBUG = "SSMPROV_DEBUG"


class Said:
    """The last lines that the library logged: only they say why something failed."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=40)
        self._loud = is_on(DEBUG)
        self._level = 0

    def __call__(self, level: int, text: bytes, _data: int | None) -> None:
        self._level = self._level if level == LEVEL_CONTINUED else level
        if self._loud:
            sys.stderr.write(text.decode(errors="replace"))
        if self._level >= LEVEL_WARN and (line := text.decode(errors="replace").strip()):
            self.lines.append(line)

    def why(self) -> str:
        """The last errors, as the end of a sentence."""
        errors = [line for line in self.lines if not line.startswith("~")]
        tail = "; ".join(errors[-2:])
        return f": {tail}" if tail else ""


_said = Said()
_loaded: list[Library] = []
_callbacks: list[Any] = []  # the library keeps the pointer, so the object must live as long


def library() -> Library:
    """The library, loaded once. Raises Unsupported if it is not installed or cannot be loaded."""
    if not _loaded:
        try:
            import gguf  # noqa: F401  (the other half of the extra)
            from llama_cpp import llama_cpp as module
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"the llama runtime needs the Python module {error.name!r}, which is not installed: run `make llama`, "
                "or install ssmprov[llama]"
            ) from None
        except (OSError, RuntimeError) as error:
            raise Unsupported(f"llama.cpp cannot be loaded: {error}: rebuild it with `make llama REBUILD=1`") from None
        assert isinstance(module, ModuleType)
        callback = module.llama_log_callback(_said)
        module.llama_log_set(callback, ctypes.c_void_p(0))
        _callbacks.append(callback)
        module.llama_backend_init()
        _loaded.append(module)
    return _loaded[0]


class Model:
    """A GGUF in memory."""

    def __init__(self, path: Path, *, n_gpu_layers: int, main_gpu: int | None) -> None:
        """Raises BadRequest that names the file, with what the library says."""
        lib = library()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        if main_gpu is not None:
            params.main_gpu = main_gpu
            params.split_mode = lib.LLAMA_SPLIT_MODE_NONE
        # A tokenizer that adds a space could not reproduce a text exactly.
        overrides = (lib.llama_model_kv_override * 2)()
        overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
        overrides[0].key = b"tokenizer.ggml.add_space_prefix"
        overrides[0].value.val_bool = False
        params.kv_overrides = overrides
        _said.lines.clear()
        self._lib = lib
        self.pointer = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise BadRequest(f"{path} cannot be served{_said.why()}")

    def close(self) -> None:
        if self.pointer:
            self._lib.llama_model_free(self.pointer)
            self.pointer = None


class Context:
    """A model's context with room for `sequences` states."""

    def __init__(
        self,
        model: Model,
        *,
        sequences: int,
        n_ctx: int,
        n_batch: int,
        kv_type: int,
    ) -> None:
        """`n_ctx` tokens for each sequence; it computes with one thread until `use` says otherwise.

        Raises BadRequest, mostly because memory is short.
        """
        lib = library()
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx * sequences
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = sequences
        params.n_outputs_max = min(sequences, n_batch)
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = kv_type
        if kv_type == lib.GGML_TYPE_F32:  # flash attention would compute a prompt in half precision anyway
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.swa_full = True  # otherwise a window's cells form a ring, and a context depends on its history
        params.kv_unified = False  # a context's numbers must not depend on where the cells of others are
        params.no_perf = True
        _said.lines.clear()
        self._lib = lib
        self.pointer = lib.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise BadRequest(f"llama.cpp cannot create a context with {sequences} sequences{_said.why()}")
        self.memory = lib.llama_get_memory(self.pointer)
        """None for an encoder: decoding with it would end the process."""

        self.n_ctx = int(lib.llama_n_ctx_seq(self.pointer))
        self.n_batch = int(lib.llama_n_batch(self.pointer))

    def use(self, n_threads: int) -> None:
        """Compute with this many threads, always from the same thread of ours.

        Each thread of ours that decodes with several threads gets permanent helpers. If there are more of these than
        processors, the library's OpenMP considers the machine overcommitted and stops spinning, which doubles the time
        per token.
        """
        self._lib.llama_set_n_threads(self.pointer, n_threads, n_threads)

    def close(self) -> None:
        if self.pointer:
            self._lib.llama_free(self.pointer)
            self.pointer = None


def why() -> str:
    """The library's last complaint, as the end of a sentence."""
    return _said.why()
