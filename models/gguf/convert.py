"""Converts an official RWKV-7 file to a GGUF file of the architecture rwkv7, which llama.cpp can load.

It converts one tensor at a time, in slabs of rows, so the memory that it needs does not grow with the model. Letters in
shape comments: C channels, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from models import rwkv7
from models.rwkv7 import Config, WeightsError
from models.rwkv7.config import check_shapes

Precision = Literal["q8_0", "f16", "f32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
KINDS: dict[Precision, Kind] = {"q8_0": Kind.Q8_0, "f16": Kind.F16, "f32": Kind.F32}
FILE_TYPES: dict[Precision, gguf.LlamaFileType] = {
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "f32": gguf.LlamaFileType.ALL_F32,
}
SLAB_NUMBERS = 1 << 24
NORM_EPS = 1e-5
HEAD_NUMBERS = 64
"""The head size of the official models. llama.cpp reads a head in whole steps of its widest vectors, so it would read
past the end of a head of another size."""
CONTEXT_LENGTH = 1 << 20
"""Not a real limit: a recurrent model can read any number of tokens. Other RWKV files give the same number."""

BLOCK_VECTORS = {
    "ln1.weight": "attn_norm.weight",
    "ln1.bias": "attn_norm.bias",
    "ln2.weight": "attn_norm_2.weight",
    "ln2.bias": "attn_norm_2.bias",
    "att.ln_x.weight": "time_mix_ln.weight",
    "att.ln_x.bias": "time_mix_ln.bias",
    "att.k_k": "time_mix_k_k.weight",
    "att.k_a": "time_mix_k_a.weight",
    "att.r_k": "time_mix_r_k.weight",
    "ffn.x_k": "channel_mix_lerp_k.weight",
}
BLOCK_MATRICES = {
    "att.receptance.weight": "time_mix_receptance.weight",
    "att.key.weight": "time_mix_key.weight",
    "att.value.weight": "time_mix_value.weight",
    "att.output.weight": "time_mix_output.weight",
    "ffn.key.weight": "channel_mix_key.weight",
    "ffn.value.weight": "channel_mix_value.weight",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor to write: its values (a view of the source, slowest axis first), and its type in the file."""

    name: str
    tensor: Tensor
    kind: Kind

    @property
    def byte_shape(self) -> tuple[int, ...]:
        shape = tuple(self.tensor.shape)
        return gguf.quant_shape_to_byte_shape(shape, self.kind) if self.kind is Kind.Q8_0 else shape

    @property
    def nbytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return int(self.tensor.numel() // block * block_bytes)


def convert(
    source: Path, target: Path, kind: Precision, *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> None:
    """Write the model in `source` (`.pth` or `.safetensors`) as the GGUF file `target`.

    Matrices get the type `kind`; vectors stay f32, and low-rank matrices are not quantised. The target appears only
    when it is complete. `progress` gets the bytes of tensors written so far, and their total. Raises WeightsError if
    the source is not an RWKV-7 model, and OSError if the target cannot be written.
    """
    tensors = rwkv7.read_tensors(source)
    config = check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, str(source))
    if config.head_size % HEAD_NUMBERS:
        raise WeightsError(
            f"{source}: its heads have size {config.head_size}, but llama.cpp needs RWKV-7 heads of size {HEAD_NUMBERS}"
        )
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.RWKV7])
    _describe(writer, config, source.stem, kind)
    targets = list(_targets(config, tensors, KINDS[kind]))
    for one in targets:
        dtype = {Kind.Q8_0: np.uint8, Kind.F16: np.float16, Kind.F32: np.float32}[one.kind]
        writer.add_tensor_info(one.name, one.byte_shape, np.dtype(dtype), one.nbytes, one.kind)
    begin = os.fsdecode(os.fsencode(target.name)[:200])  # file systems allow 255 bytes
    part = target.with_name(f"{begin}.{os.getpid()}.part")
    try:
        try:
            writer.write_header_to_file(part)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        _append(part, targets, source, writer.data_alignment, progress)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _describe(writer: gguf.GGUFWriter, config: Config, name: str, kind: Precision) -> None:
    """Adds hyperparameters and vocabulary, under the keys that llama.cpp reads."""
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(config.channels)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(0)  # no attention, but the key must be there
    writer.add_layer_norm_eps(NORM_EPS)
    writer.add_wkv_head_size(config.head_size)
    writer.add_decay_lora_rank(config.rank_w)
    writer.add_iclr_lora_rank(config.rank_a)
    writer.add_value_residual_mix_lora_rank(config.rank_v)
    writer.add_gate_lora_rank(config.rank_g)
    texts, types = vocabulary(config)
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def vocabulary(config: Config) -> tuple[list[str], list[gguf.TokenType]]:
    """The text of each token, with bytes escaped as in Python source code, and its type.

    llama.cpp looks for every text of an RWKV vocabulary in its input, even for those of control tokens. So a token that
    has no text gets one that begins with the byte 0xff. UTF-8 never contains this byte, so no user can write the token.
    """
    tokenizer = rwkv7.tokenizer_for(config)
    texts, types = [], []
    for token in range(config.vocabulary):
        piece = tokenizer.piece(token)
        if piece:
            texts.append(repr(piece)[2:-1])
            types.append(gguf.TokenType.NORMAL)
        elif token == tokenizer.end:
            texts.append(r"\xff<s>")
            types.append(gguf.TokenType.CONTROL)
        else:
            texts.append(rf"\xff[PAD{token}]")
            types.append(gguf.TokenType.UNUSED)
    return texts, types


def _targets(config: Config, tensors: Mapping[str, Tensor], kind: Kind) -> Iterator[Target]:
    """Every tensor of the target, in the order of the file."""
    low_rank = Kind.F32 if kind is Kind.F32 else Kind.F16

    def vector(source: str, name: str) -> Target:
        return Target(name, tensors[source].reshape(-1), Kind.F32)

    def matrix(source: str, name: str) -> Target:
        tensor = tensors[source].reshape(tensors[source].shape[-2:])
        whole = kind is not Kind.Q8_0 or tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        return Target(name, tensor, kind if whole else Kind.F16)

    yield matrix("emb.weight", "token_embd.weight")
    for end in ("weight", "bias"):
        yield vector(f"blocks.0.ln0.{end}", f"token_embd_norm.{end}")
        yield vector(f"ln_out.{end}", f"output_norm.{end}")
    yield matrix("head.weight", "output.weight")
    for layer in range(config.layers):
        block, blk = f"blocks.{layer}.", f"blk.{layer}."
        for source, name in BLOCK_VECTORS.items():
            yield vector(block + source, blk + name)
        for source, name in BLOCK_MATRICES.items():
            yield matrix(block + source, blk + name)
        mix = torch.stack([tensors[f"{block}att.x_{letter}"].reshape(1, 1, -1) for letter in "rwkvag"])
        yield Target(f"{blk}time_mix_lerp_fused.weight", mix, Kind.F32)  # (6, 1, 1, C)
        for letter in "wavg":
            # The first layer has no value residual. There, llama.cpp loads tensors of a's shapes, but ignores them.
            source = "a" if letter == "v" and layer == 0 else letter
            if letter != "g":
                yield vector(f"{block}att.{source}0", f"{blk}time_mix_{letter}0.weight")
            for half in "12":
                tensor = tensors[f"{block}att.{source}{half}"]
                tensor = tensor.reshape(tensor.shape[-2:]).t()  # (rank, C), then (C, rank)
                # The decay acts on every later token, so its low-rank matrices keep full precision.
                yield Target(f"{blk}time_mix_{letter}{half}.weight", tensor, Kind.F32 if letter == "w" else low_rank)


def _append(
    path: Path, targets: list[Target], source: Path, alignment: int, progress: Callable[[int, int], None]
) -> None:
    """Add the data of the tensors to a file that ends after the list of tensors.

    The writer of the `gguf` package would need a whole tensor in memory, and could not report that a disk is full.
    """
    total, done = sum(target.nbytes for target in targets), 0
    with path.open("ab") as file:
        for target in targets:
            _pad(file, alignment)
            tensor = target.tensor
            rows = max(1, SLAB_NUMBERS // max(1, tensor[0].numel()))
            for first in range(0, len(tensor), rows):
                data = _encoded(tensor[first : first + rows], target, source)
                file.write(data)
                done += len(data)
                progress(done, total)
        _pad(file, alignment)
        file.flush()
        os.fsync(file.fileno())


def _encoded(slab: Tensor, target: Target, source: Path) -> bytes:
    values = slab.detach().to(torch.float32).contiguous().numpy()
    with np.errstate(over="ignore"):
        data = gguf.quants.quantize(values, target.kind)
    if not np.isfinite(values).all() or (target.kind is Kind.F16 and not np.isfinite(data).all()):
        raise WeightsError(f"{source}: {target.name} holds numbers that are NaN or infinite in {target.kind.name}")
    return bytes(data.tobytes())


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))
