"""Tiny GGUF models with random weights, one for each architecture that is served, which llama.cpp loads and decodes.

Their text is noise, but everything is there that a runtime meets: recurrent states of each shape and a cache of keys
and values, control and unused tokens whose text a user may type, tokens that are a part of a UTF-8 character.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from numpy.typing import NDArray

KINDS = ("rwkv7", "mamba", "mamba2", "falcon-mamba", "llama", "gemma2", "jamba")
"""The last three keep keys and values: of all tokens, of a sliding window beside that, and beside a recurrent state."""

LAYERS = 2
CHANNELS = 64
VOCABULARY = 288
INNER = 2 * CHANNELS  # what llama.cpp asks of a mamba
CONV = 4
WINDOW = 64
STATE = 16
GAIN = 6.0
"""Spread of the logits: wide enough that the text wanders, instead of repeating one token."""
SHYNESS = 0.4
"""How far the output turns from the token just read, so that none follows itself for ever."""

RWKV_PIECES = [
    b"\n\n",
    b" the",
    b"he",
    b"in",
    b"er",
    b"  ",
    b"\xc3\xa4",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\x80\x81",
    b"'\\",
]
MERGES = ["h e", "i n", "Ġ t", "Ġt he", "e r", "r e", "o n", "Ġ a", "a n", "an d", "Ġ Ġ", "Ċ Ċ", "Ã ¤", "â Ĥ"]
SEPARATOR = "<|sep|>"
"""A user-defined token of the BPE vocabulary."""


def write(kind: str, path: Path, *, seed: int = 0, quantize: str = "f32") -> Path:
    """Write the toy of that kind; `quantize` is f32, or q8_0 for the matrices that llama.cpp would quantise."""
    architecture = "mamba" if kind == "falcon-mamba" else kind
    toy = _Toy(architecture, np.random.default_rng([seed, KINDS.index(kind)]), Kind[quantize.upper()])
    writer = toy.writer
    writer.add_name(f"toy {kind} {seed}")
    writer.add_context_length(4096 if kind in KINDS[-3:] else 1 << 20)
    writer.add_embedding_length(CHANNELS)
    writer.add_block_count(LAYERS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if quantize == "f32" else gguf.LlamaFileType.MOSTLY_Q8_0)
    embedding = toy.normal(VOCABULARY, CHANNELS)
    toy.add("token_embd.weight", embedding)
    if kind != "gemma2":  # whose output is its embedding
        toy.add("output.weight", toy.matrix(VOCABULARY, CHANNELS, GAIN) - SHYNESS * embedding)
    toy.norm("output_norm")
    parts = {"rwkv7": _rwkv7, "mamba": _mamba, "mamba2": _mamba2, "llama": _llama, "gemma2": _gemma2, "jamba": _jamba}
    if kind == "rwkv7":
        _rwkv_vocabulary(writer)
    else:
        _bpe_vocabulary(writer)
    if architecture == "mamba":
        writer.add_ssm_dt_b_c_rms(kind == "falcon-mamba")
    parts[architecture](toy)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class _Toy:
    """The file in the making. Shapes have the slowest axis first."""

    def __init__(self, architecture: str, random: np.random.Generator, kind: Kind) -> None:
        self.writer = gguf.GGUFWriter(None, architecture)
        self.random = random
        self.kind = kind

    def normal(self, *shape: int, scale: float = 1.0) -> NDArray[Any]:
        return self.random.normal(0, scale, shape)

    def matrix(self, out: int, fan_in: int, gain: float = 1.0) -> NDArray[Any]:
        return self.normal(out, fan_in, scale=gain * fan_in**-0.5)

    def norm(self, name: str, size: int = CHANNELS, *, bias: bool = False) -> None:
        self.add(f"{name}.weight", 1 + self.normal(size, scale=0.1))
        if bias:
            self.add(f"{name}.bias", self.normal(size, scale=0.1))

    def add(self, name: str, values: NDArray[Any], *, exact: bool = False) -> None:
        """Add a tensor; an exact one stays f32, as vectors and rows that make no whole blocks do."""
        exact = exact or values.ndim != 2 or values.shape[-1] % 32 > 0
        kind = Kind.F32 if exact else self.kind
        self.writer.add_tensor(name, gguf.quants.quantize(values.astype(np.float32), kind), raw_dtype=kind)


def _rwkv7(toy: _Toy) -> None:
    head, rank, ffn = 64, 16, 128
    writer = toy.writer
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(head)
    writer.add_decay_lora_rank(rank)
    writer.add_iclr_lora_rank(rank)
    writer.add_value_residual_mix_lora_rank(rank)
    writer.add_gate_lora_rank(rank)
    toy.norm("token_embd_norm", bias=True)
    toy.add("output_norm.bias", toy.normal(CHANNELS, scale=0.1))
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        toy.norm(f"{blk}attn_norm", bias=True)
        toy.norm(f"{blk}attn_norm_2", bias=True)
        toy.norm(f"{blk}time_mix_ln", bias=True)
        toy.add(f"{blk}time_mix_lerp_fused.weight", toy.random.random((6, 1, 1, CHANNELS)))
        for letter in "wavg":
            if letter != "g":
                slow = 3 if letter == "w" else 0  # states forget over tens of tokens
                toy.add(f"{blk}time_mix_{letter}0.weight", toy.normal(CHANNELS) - slow)
            toy.add(f"{blk}time_mix_{letter}1.weight", toy.matrix(rank, CHANNELS), exact=True)
            toy.add(f"{blk}time_mix_{letter}2.weight", toy.matrix(CHANNELS, rank), exact=True)
        for name in ("k_k", "k_a", "r_k"):
            toy.add(f"{blk}time_mix_{name}.weight", toy.normal(CHANNELS, scale=0.5))
        for name in ("key", "value", "receptance", "output"):
            toy.add(f"{blk}time_mix_{name}.weight", toy.matrix(CHANNELS, CHANNELS))
        toy.add(f"{blk}channel_mix_lerp_k.weight", toy.random.random(CHANNELS))
        toy.add(f"{blk}channel_mix_key.weight", toy.matrix(ffn, CHANNELS))
        toy.add(f"{blk}channel_mix_value.weight", toy.matrix(CHANNELS, ffn))


def _ssm(toy: _Toy, rank: int, *, hybrid: bool = False) -> None:
    writer = toy.writer
    if not hybrid:
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(rank)


def _steps(toy: _Toy, count: int) -> NDArray[Any]:
    """Biases whose softplus, the step of the recurrence, lies between 0.01 and 0.5."""
    return np.log(np.expm1(np.exp(toy.random.uniform(np.log(0.01), np.log(0.5), count))))


def _mamba(toy: _Toy) -> None:
    rank = CHANNELS // 16
    _ssm(toy, rank)
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        _mamba_layer(toy, blk, rank)


def _mamba_layer(toy: _Toy, blk: str, rank: int) -> None:
    toy.norm(f"{blk}attn_norm")
    toy.add(f"{blk}ssm_in.weight", toy.matrix(2 * INNER, CHANNELS))
    toy.add(f"{blk}ssm_conv1d.weight", toy.matrix(INNER, CONV), exact=True)
    toy.add(f"{blk}ssm_conv1d.bias", toy.normal(INNER, scale=0.1))
    toy.add(f"{blk}ssm_x.weight", toy.matrix(rank + 2 * STATE, INNER, 2.0))
    toy.add(f"{blk}ssm_dt.weight", toy.matrix(INNER, rank))
    toy.add(f"{blk}ssm_dt.bias", _steps(toy, INNER))
    toy.add(f"{blk}ssm_a", -toy.random.uniform(0.02, 2, (INNER, STATE)), exact=True)  # some forget slowly
    toy.add(f"{blk}ssm_d", 1 + toy.normal(INNER, scale=0.1))
    toy.add(f"{blk}ssm_out.weight", toy.matrix(CHANNELS, INNER))


def _mamba2(toy: _Toy) -> None:
    heads = 4
    mixed = INNER + 2 * STATE  # x, B and C of the one group
    _ssm(toy, heads)
    toy.writer.add_ssm_group_count(1)
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        toy.norm(f"{blk}attn_norm")
        toy.add(f"{blk}ssm_in.weight", toy.matrix(INNER + mixed + heads, CHANNELS))
        toy.add(f"{blk}ssm_conv1d.weight", toy.matrix(mixed, CONV), exact=True)
        toy.add(f"{blk}ssm_conv1d.bias", toy.normal(mixed, scale=0.1))
        toy.add(f"{blk}ssm_dt.bias", _steps(toy, heads))
        toy.add(f"{blk}ssm_a", -toy.random.uniform(0.5, 4, (heads, 1)), exact=True)
        toy.add(f"{blk}ssm_d", 1 + toy.normal(heads, 1, scale=0.1), exact=True)
        toy.add(f"{blk}ssm_norm.weight", 1 + toy.normal(1, INNER, scale=0.1), exact=True)
        toy.add(f"{blk}ssm_out.weight", toy.matrix(CHANNELS, INNER))


def _attention(toy: _Toy, blk: str, heads: int, shared: int) -> None:
    toy.add(f"{blk}attn_q.weight", toy.matrix(CHANNELS, CHANNELS, 2.0))
    toy.add(f"{blk}attn_k.weight", toy.matrix(CHANNELS * shared // heads, CHANNELS, 2.0))
    toy.add(f"{blk}attn_v.weight", toy.matrix(CHANNELS * shared // heads, CHANNELS))
    toy.add(f"{blk}attn_output.weight", toy.matrix(CHANNELS, CHANNELS))


def _gated(toy: _Toy, blk: str, ffn: int) -> None:
    toy.norm(f"{blk}ffn_norm")
    toy.add(f"{blk}ffn_gate.weight", toy.matrix(ffn, CHANNELS))
    toy.add(f"{blk}ffn_up.weight", toy.matrix(ffn, CHANNELS))
    toy.add(f"{blk}ffn_down.weight", toy.matrix(CHANNELS, ffn))


def _transformer(toy: _Toy, heads: int, shared: int | list[int], ffn: int) -> None:
    writer = toy.writer
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(CHANNELS // heads)


def _llama(toy: _Toy) -> None:
    _transformer(toy, 4, 2, 128)
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        toy.norm(f"{blk}attn_norm")
        _attention(toy, blk, 4, 2)
        _gated(toy, blk, 128)


def _gemma2(toy: _Toy) -> None:
    """Layers with a sliding window and with all tokens take turns."""
    _transformer(toy, 4, 2, 128)
    toy.writer.add_key_length(CHANNELS // 4)
    toy.writer.add_value_length(CHANNELS // 4)
    toy.writer.add_sliding_window(WINDOW)
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        for name in ("attn_norm", "post_attention_norm", "post_ffw_norm"):
            toy.norm(f"{blk}{name}")
        _attention(toy, blk, 4, 2)
        _gated(toy, blk, 128)


def _jamba(toy: _Toy) -> None:
    """A layer of Mamba, then one of attention."""
    rank = CHANNELS // 16
    _ssm(toy, rank, hybrid=True)
    _transformer(toy, 4, [0, 2], 128)
    for layer, blk in enumerate(f"blk.{layer}." for layer in range(LAYERS)):
        if layer:
            toy.norm(f"{blk}attn_norm")
            _attention(toy, blk, 4, 2)
        else:
            _mamba_layer(toy, blk, rank)
            for name, size in (("dt", rank), ("b", STATE), ("c", STATE)):
                toy.norm(f"{blk}ssm_{name}_norm", size)
        _gated(toy, blk, 128)


def write_encoder(path: Path) -> Path:
    """A BERT, which embeds texts and continues none."""
    toy = _Toy("bert", np.random.default_rng(0), Kind.F32)
    writer = toy.writer
    writer.add_context_length(64)
    writer.add_embedding_length(CHANNELS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    toy.add("token_embd.weight", toy.normal(VOCABULARY, CHANNELS))
    toy.add("token_types.weight", toy.normal(2, CHANNELS))
    toy.add("position_embd.weight", toy.normal(64, CHANNELS))
    toy.norm("token_embd_norm", bias=True)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        toy.add(f"blk.0.{name}.weight", toy.matrix(CHANNELS, CHANNELS))
        toy.add(f"blk.0.{name}.bias", toy.normal(CHANNELS))
    toy.norm("blk.0.attn_output_norm", bias=True)
    toy.add("blk.0.ffn_up.weight", toy.matrix(128, CHANNELS))
    toy.add("blk.0.ffn_up.bias", toy.normal(128))
    toy.add("blk.0.ffn_down.weight", toy.matrix(CHANNELS, 128))
    toy.add("blk.0.ffn_down.bias", toy.normal(CHANNELS))
    toy.norm("blk.0.layer_output_norm", bias=True)
    _bpe_vocabulary(writer)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rwkv_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Id 0 ends a text, 1 + b is the byte b, then a few longer pieces, then unused ids named as converters do."""
    pieces = [bytes([byte]) for byte in range(256)] + RWKV_PIECES
    texts = ["<s>", *(repr(piece)[2:-1] for piece in pieces)]
    types = [TokenType.CONTROL] + [TokenType.NORMAL] * len(pieces)
    _add_vocabulary(writer, "rwkv", texts, types)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _bpe_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Ids 0 and 1 begin and end a text, 2 + b is the byte b in GPT-2's alphabet, then merges and a separator."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    texts = ["<s>", "</s>", *map(_letter, range(256)), *merged, SEPARATOR]
    types = [TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (256 + len(merged)) + [TokenType.USER_DEFINED]
    _add_vocabulary(writer, "gpt2", texts, types)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


def _add_vocabulary(writer: gguf.GGUFWriter, model: str, texts: list[str], types: list[TokenType]) -> None:
    unused = range(len(texts), VOCABULARY)
    writer.add_tokenizer_model(model)
    writer.add_token_list(texts + [f"[PAD{token}]" for token in unused])
    writer.add_token_types(types + [TokenType.UNUSED] * len(unused))


def _letter(byte: int) -> str:
    """The printable character that stands for a byte in GPT-2's vocabularies: itself, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(other not in printable for other in range(byte)))
