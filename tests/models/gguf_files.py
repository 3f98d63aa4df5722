"""Small GGUF files, for the tests of what reads them. No program could run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

METADATA: dict[str, Any] = {
    "general.name": "small",
    "mamba.block_count": 2,
    "mamba.embedding_length": 8,
    "mamba.context_length": 4096,
    "mamba.ssm.state_size": 16,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "ä", ""],
    "tokenizer.ggml.scores": [0.0, -1.5, 1.0, 2.0, 3.0],
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS = {
    "token_embd.weight": np.arange(40, dtype=np.float32).reshape(5, 8),
    "output.weight": np.arange(64, dtype=np.float32).reshape(2, 32),
    "output_norm.weight": np.ones(8, np.float32),
}


def write(
    path: Path,
    *,
    metadata: Mapping[str, Any] = METADATA,
    tensors: Mapping[str, NDArray[Any]] = TENSORS,
    split: int = 0,
) -> Path:
    """A small file, output.weight in q8_0; with `split` tensors in each part of it."""
    writer = gguf.GGUFWriter(path, "mamba", split_max_tensors=split)
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_uint32(key, value)
    for name, values in tensors.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if name == "output.weight" else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_parts(folder: Path) -> list[Path]:
    """The same file in three parts."""
    write(folder / "split.gguf", split=1)
    return sorted(folder.glob("split-*.gguf"))
