"""Opening a GGUF: check the plan, then the file, then the library, then both together."""

from __future__ import annotations

from dataclasses import replace

from models import gguf
from ssmprov.errors import BadRequest
from ssmprov.runtimes import decode_options
from workers.model_files import model_file
from workers.runtimes.base import Plan
from workers.runtimes.llama import native, probe
from workers.runtimes.llama.files import Files
from workers.runtimes.llama.options import Options
from workers.runtimes.llama.runtime import LlamaRuntime


def open_runtime(plan: Plan) -> LlamaRuntime:
    """Load a GGUF. Raises BadRequest that says what is wrong with file or plan, Unsupported without the library."""
    lib = native.library()
    options = decode_options(plan.options, Options, "llama")
    kv_types = {"": lib.GGML_TYPE_F16, "fp16": lib.GGML_TYPE_F16, "fp32": lib.GGML_TYPE_F32}
    if plan.dtype not in kv_types:
        raise BadRequest(f'dtype must be "fp16" or "fp32" for the llama runtime, not {plan.dtype!r}')
    main_gpu, n_gpu_layers = _devices(plan, options)
    plan = replace(plan, path=model_file(plan.path, "llama"))
    try:
        described = gguf.describe(plan.path)
    except gguf.GgufError as error:
        raise BadRequest(str(error)) from None
    files = Files(described.paths)
    model = None
    try:
        fingerprint = gguf.cached_fingerprint(plan.path, plan.cache) if plan.cache else gguf.fingerprint(plan.path)
        probe.ensure(plan.cache, n_gpu_layers)
        model = native.Model(plan.path, n_gpu_layers=n_gpu_layers, main_gpu=main_gpu)
        files.check_names()
        family = gguf.family(described)
        return LlamaRuntime(
            model=model,
            plan=plan,
            options=options,
            family=family,
            fingerprint=fingerprint,
            kv_type=kv_types[plan.dtype],
            files=files,
            gpu=n_gpu_layers > 0,
        )
    except BaseException as error:
        if model is not None:
            model.close()
        files.close()
        if isinstance(error, gguf.GgufError):
            raise BadRequest(str(error)) from None
        raise


def _devices(plan: Plan, options: Options) -> tuple[int | None, int]:
    """The GPU that takes the whole model (None: the library distributes it), and the number of layers to offload."""
    kind, _, index = plan.device.partition(":")
    if kind not in ("cpu", "cuda", "gpu") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise BadRequest(f'device {plan.device!r} is unknown: write "cpu" or "gpu:0"')
    layers = options.n_gpu_layers if options.n_gpu_layers is not None else (0 if kind == "cpu" else 9999)
    if layers and not native.library().llama_supports_gpu_offload():
        raise BadRequest(
            "llama.cpp finds no GPU here: build it for one with `make llama GPU=cuda` (or metal, vulkan), "
            f"or leave {'devices' if kind != 'cpu' else 'n_gpu_layers'} out"
        )
    return (None if kind == "cpu" else int(index or 0)), layers
