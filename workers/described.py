"""What a model file says about itself; the model is not loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.foreign import INDEX, shards
from ssmprov.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDED = {"@mini": "rwkv", "@asm-mini": "asm"}
"""The models that come with the package, and their runtimes."""

WORLD = "World (rwkv_vocab_v20230424)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a file says about itself."""

    family: str
    architecture: str
    name: str
    file_bytes: int
    weight_bytes: int  # in memory
    parameters: int
    quantization: str
    layers: int
    embedding: int
    tokenizer: str
    trained_context: int


def describe(path: Path, runtime_name: str, dtype: str) -> Described:
    """Describe a file. Raises BadRequest that says what is wrong with it."""
    kinds = {"llama": lambda: _describe_gguf(path), "asm": lambda: _describe_asm(path, dtype)}
    return kinds.get(runtime_name, lambda: _describe_rwkv(path, dtype))()


def _describe_gguf(path: Path) -> Described:
    from models import gguf

    try:
        found = gguf.describe(path)
        family = gguf.family(found)
    except gguf.GgufError as error:
        raise BadRequest(str(error)) from None
    return Described(
        family=family,
        architecture=found.architecture,
        name=found.name or _printable(path.stem),
        file_bytes=found.file_bytes,
        weight_bytes=found.file_bytes,
        parameters=found.parameters,
        quantization=found.quantization,
        layers=found.layers,
        embedding=found.embedding_length,
        tokenizer=" ".join(filter(None, (found.tokenizer_model, found.tokenizer_pre))),
        trained_context=found.context_length,
    )


def _describe_rwkv(path: Path, dtype: str) -> Described:
    from models import mini, rwkv7
    from models.rwkv7.config import check_shapes

    path = mini.path() if path.name == "@mini" else path
    try:
        tensors = rwkv7.read_tensors(path)
        config = check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, str(path))
        small = isinstance(rwkv7.tokenizer_for(config), rwkv7.ByteTokenizer)
        is_mini = small and rwkv7.fingerprint(path) == rwkv7.fingerprint(mini.path())
    except rwkv7.WeightsError as error:
        raise BadRequest(str(error)) from None
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Described(
        family="mini" if is_mini else "rwkv7",
        architecture="rwkv7",
        name=_name(path),
        file_bytes=sum(shard.stat().st_size for shard in shards(path)),
        weight_bytes=parameters * (2 if dtype in ("bf16", "fp16") else 4),
        parameters=parameters,
        quantization=_kinds(tensors),
        layers=config.layers,
        embedding=config.channels,
        tokenizer="bytes" if small else WORLD,
        trained_context=0,
    )


def _describe_asm(path: Path, dtype: str) -> Described:
    from models import asm
    from workers.runtimes.asm.opening import file_of, tokenizer_of

    found = file_of(path)
    try:
        tensors, given = asm.read_checkpoint(found)
    except asm.ASMError as error:
        raise BadRequest(str(error)) from None
    try:
        config = asm.ASMTrainConfig.from_mapping(given or {}, strict=False)
    except asm.ASMError as error:  # this error does not name the file
        raise BadRequest(f"{found}: {error}") from None
    _, spelling = tokenizer_of(config, found)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Described(
        family="mini" if path.name in EMBEDDED else "asm",
        architecture="asm",
        name=_name(found),
        file_bytes=found.stat().st_size,
        weight_bytes=parameters * (2 if dtype in ("bf16", "fp16") else 4),
        parameters=parameters,
        quantization=_kinds(tensors),
        layers=config.num_layers,
        embedding=config.embed_dim,
        tokenizer=WORLD if spelling == "World" else spelling,
        trained_context=0,
    )


def _kinds(tensors: Mapping[str, Tensor]) -> str:
    """The number types of a file, the most frequent first."""
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())


def _name(path: Path) -> str:
    """A model's name from its path: in Hugging Face's layout, that of the directory."""
    whole = path.is_dir() or path.name.endswith(INDEX) or path.stem in ("model", "pytorch_model")
    return _printable((path if path.is_dir() else path.parent).name if whole else path.stem)


def _printable(stem: str) -> str:
    return stem.encode(errors="backslashreplace").decode()
