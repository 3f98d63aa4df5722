"""Opening an Addressed State Model: check the plan, then the file, then whether its vocabulary can be spelt."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: spinning threads starve other programs

import torch

from models import asm, mini
from models.rwkv7 import ByteTokenizer, Tokenizer, WorldTokenizer
from ssmprov.errors import BadRequest, NotFound, Unsupported
from ssmprov.runtimes import decode_options
from workers.model_files import model_file
from workers.runtimes.asm.options import Options
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Plan
from workers.runtimes.devices import device_of

EMBEDDED = "@asm-mini"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPE = "fp32"


def open_runtime(plan: Plan) -> AsmRuntime:
    """Load a model. Raises NotFound, BadRequest or Unsupported that say what is wrong with the file or the plan."""
    options = decode_options(plan.options, Options, "asm")
    dtype = plan.dtype or DTYPE
    if dtype not in DTYPES:
        raise BadRequest(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    device = device_of(plan.device)
    torch.set_num_threads(options.threads)
    try:
        model = asm.load_checkpoint(
            file_of(plan.path), scan=options.scan or None, pos_mode=options.pos_mode or None, variant="baseline"
        ).model
    except asm.ASMError as error:
        raise BadRequest(str(error)) from None
    if dtype != DTYPE and not model.config.state_fp32:
        raise BadRequest(f"{plan.path} keeps its state in the dtype of its weights (state_fp32 = false): write fp32")
    tokenizer, spelling = tokenizer_of(model.config, plan.path)
    fingerprint = asm.fingerprint(model, spelling)
    model = model.to(device, DTYPES[dtype])
    return AsmRuntime(model, tokenizer, fingerprint, dtype, plan.slots, plan.weights)


def file_of(path: Path) -> Path:
    """The file for the path in a table; `@asm-mini` is the model that comes with the package, if one does."""
    if path.name != EMBEDDED:
        return model_file(path, "asm")
    shipped = getattr(mini, "asm_path", None)
    found: Path | None = shipped() if shipped is not None else None
    if found is None or not found.is_file():
        raise NotFound(f"this version of ssmprov comes without an ASM: give the path of a file instead of {EMBEDDED}")
    return found


def tokenizer_of(config: asm.ASMTrainConfig, path: Path) -> tuple[Tokenizer, str]:
    """The tokenizer that fits a model's vocabulary, and its name. Raises BadRequest and Unsupported."""
    spelling = asm.spelling(config)
    if spelling == "bytes":
        return ByteTokenizer(), spelling
    if spelling == "World":
        if importlib.util.find_spec("rwkv") is None:
            raise Unsupported(f"{path}: its vocabulary, RWKV's World, needs another extra: install ssmprov[rwkv]")
        return WorldTokenizer(), spelling
    raise BadRequest(
        f"{path}: ssmprov has no tokenizer for a vocabulary of {config.vocab_size} (tokenizer_name "
        f"{config.tokenizer_name!r}): it serves models with bytes ({ByteTokenizer.size}) or RWKV's World "
        f"({asm.WORLD_VOCABULARY}); others can only be used from Python, with models.asm"
    )
