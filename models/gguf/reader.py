"""Reads the description of a GGUF model, from one file or from all parts of a split one. It reads no tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.gguf.header import GgufError, Header, read_header

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


NO_MODELS = {
    "adapter": "this is a LoRA adapter, not a whole model: merge it into its base model and convert the result",
    "mmproj": "this is the image or audio part of a model: use the GGUF of its language model",
    "imatrix": "this is an importance matrix for quantizing a model, not a model",
}
"""What else a GGUF may hold, by its `general.type`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a model's header says about it. Numbers that are not in the file are 0, and texts are empty."""

    paths: tuple[Path, ...]
    architecture: str
    name: str
    parameters: int
    file_bytes: int
    quantization: str
    """The types of its tensors and their counts, most frequent first: "Q4_1 (210), F32 (61), Q8_0 (1)"."""
    label: str
    """The type that holds most of its parameters: "Q4_1"."""
    tokenizer_model: str
    tokenizer_pre: str
    vocabulary: int
    layers: int
    embedding_length: int
    context_length: int
    """The context length that it was trained with. Recurrent models may give any number."""
    hyperparameters: dict[str, Any] = field(repr=False)
    """The values whose keys begin with the architecture's name, without that prefix: "ssm.state_size"."""


def describe(path: Path | str) -> Description:
    """The description of the model in a file. Raises GgufError in the same cases as `read_parts`."""
    headers = read_parts(path)
    first = headers[0]
    architecture = first.get("general.architecture", str, "")
    if not architecture:
        raise GgufError(f"{first.path}: the file does not name the architecture of its model")
    if problem := NO_MODELS.get(first.get("general.type", str, "model")):
        raise GgufError(f"{first.path}: {problem}")
    prefix = f"{architecture}."
    tensors = [tensor for header in headers for tensor in header.tensors]
    kinds = Counter(tensor.kind.name for tensor in tensors)
    held: Counter[str] = Counter()
    for tensor in tensors:
        held[tensor.kind.name] += tensor.numbers
    return Description(
        paths=tuple(header.path for header in headers),
        architecture=architecture,
        name=first.get("general.name", str, ""),
        parameters=sum(held.values()),
        file_bytes=sum(header.file_bytes for header in headers),
        quantization=", ".join(f"{kind} ({count})" for kind, count in kinds.most_common()),
        label=held.most_common(1)[0][0] if held else "",
        tokenizer_model=first.get("tokenizer.ggml.model", str, ""),
        tokenizer_pre=first.get("tokenizer.ggml.pre", str, ""),
        vocabulary=len(first.get("tokenizer.ggml.tokens", list, [])) or first.get(f"{prefix}vocab_size", int, 0),
        layers=first.get(f"{prefix}block_count", int, 0),
        embedding_length=first.get(f"{prefix}embedding_length", int, 0),
        context_length=first.get(f"{prefix}context_length", int, 0),
        hyperparameters={
            key.removeprefix(prefix): value.value for key, value in first.values.items() if key.startswith(prefix)
        },
    )


def family(model: Description | Mapping[str, Any]) -> str:
    """The family of a model, from its description or from all its metadata.

    It is the name of the architecture, except for Falcon-Mamba, which differs from Mamba by the norms of dt, B and C.
    """
    if isinstance(model, Description):
        architecture, normed = model.architecture, model.hyperparameters.get("ssm.dt_b_c_rms")
    else:
        architecture, normed = str(model["general.architecture"]), model.get("mamba.ssm.dt_b_c_rms")
    # Other readers of metadata, such as llama.cpp's own, return every value as text.
    return "falcon-mamba" if architecture == "mamba" and normed in (True, "true", "True") else architecture


def read_parts(path: Path | str) -> tuple[Header, ...]:
    """The headers of a model's files, the first part first.

    Raises GgufError if a file is missing, not GGUF, cut short or inconsistent, or if `path` is not the first part.
    """
    path = Path(path)
    first = read_header(path)
    count = first.get("split.count", int, 1)
    if count <= 1:
        return (first,)
    number = first.get("split.no", int, 0)
    named = PART.fullmatch(path.name)
    if named is None or int(named["count"]) != count or int(named["number"]) != number + 1:
        raise GgufError(
            f"{path}: this is part {number + 1} of {count}, but its name should end in "
            f"-{number + 1:05}-of-{count:05}.gguf"
        )
    if number:
        raise GgufError(
            f"{path}: this is part {number + 1} of {count}: use the first part, {_part(path, named, 1).name}"
        )
    headers = [first]
    for other in range(2, count + 1):
        part = _part(path, named, other)
        if not part.exists():
            raise GgufError(f"{path}: part {other} of {count} is missing: {part.name}")
        header = read_header(part)
        if (header.get("split.count", int, 1), header.get("split.no", int, 0)) != (count, other - 1):
            raise GgufError(f"{part}: the name says part {other} of {count}, but the file's header does not")
        headers.append(header)
    names = Counter(tensor.name for header in headers for tensor in header.tensors)
    if names and names.most_common(1)[0][1] > 1:
        raise GgufError(f"{path}: two of the parts contain the tensor {names.most_common(1)[0][0]}")
    expected = first.get("split.tensors.count", int, len(names))
    if expected != len(names):
        raise GgufError(f"{path}: all parts together should contain {expected} tensors, found {len(names)}")
    return tuple(headers)


def _part(path: Path, named: re.Match[str], number: int) -> Path:
    return path.with_name(f"{named['stem']}-{number:05}-of-{named['count']}.gguf")
