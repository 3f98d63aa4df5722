"""Converted models against the mathematics that they were converted from, and what is refused."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve neighbours; read once, at the import

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import mini, rwkv7
from models.rwkv7 import Config, Weights, WeightsError

pytest.importorskip("gguf")

from models import gguf
from models.gguf.convert import PRECISIONS, Precision, convert

llama_cpp: Any = pytest.importorskip("llama_cpp")

TEXT = ("The cart holds four sacks. (Turn 2) [USER]: what does it hold? It holds four sacks, and a cat. " * 3)[:200]
PROMPTS = ("(Turn 1) [USER]: hello\n", "The ", "1 2 3 4 ", "Ünïcode €", "~~~")
WORLD = Config(layers=1, channels=64, head_size=64, vocabulary=65536, ffn=64, rank_w=4, rank_a=4, rank_v=4, rank_g=4)


class Native:
    """A model in llama.cpp itself, one sequence, all logits."""

    def __init__(self, path: Path) -> None:
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
        assert self.model, path
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 512, 64, 64
        params.n_threads = params.n_threads_batch = 1
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch = llama_cpp.llama_batch_init(64, 0, 1)
        self.position = 0

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.position = 0

    def read(self, tokens: list[int]) -> NDArray[np.float32]:
        """The logits [T, V] after each token."""
        rows = []
        for first in range(0, len(tokens), 64):
            chunk = tokens[first : first + 64]
            self.batch.n_tokens = len(chunk)
            for i, token in enumerate(chunk):
                self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, self.position + i, 1
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            assert llama_cpp.llama_decode(self.context, self.batch) == 0
            self.position += len(chunk)
            for i in range(len(chunk)):
                row = llama_cpp.llama_get_logits_ith(self.context, i)
                rows.append(np.ctypeslib.as_array(row, (self.size,)).copy())
        return np.stack(rows)

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        self.forget()
        found, logits = [], self.read(tokens)[-1]
        for _ in range(count):
            found.append(int(logits.argmax()))
            logits = self.read(found[-1:])[-1]
        return found

    def tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        tokens = (llama_cpp.llama_token * (len(raw) + 1))()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), tokens, len(tokens), False, False)
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False)
        return buffer.raw[:count]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return rwkv7.load(mini.path())


@pytest.fixture(scope="module")
def reference(weights: Weights) -> NDArray[Any]:
    """Our logits [T, V] over the text."""
    tokens = torch.tensor([rwkv7.ByteTokenizer().encode(TEXT)])
    with torch.no_grad():
        return rwkv7.forward_train(weights, tokens, rwkv7.new_state(weights.config, 1))[0][0].numpy()


@pytest.fixture(scope="module", params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def native(precision: Precision, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """rwkv7-mini, converted and loaded."""
    path = tmp_path_factory.mktemp("mini") / f"{precision}.gguf"
    convert(mini.path(), path, precision)
    model = Native(path)
    yield model
    model.close()


def test_the_logits_are_those_of_the_source(native: Native, precision: Precision, reference: NDArray[Any]) -> None:
    native.forget()
    logits = native.read(rwkv7.ByteTokenizer().encode(TEXT))
    bound = {"f32": 1e-3, "f16": 0.05, "q8_0": 1.0}[precision]  # logits span 45
    assert np.abs(logits - reference).max() < bound
    assert (logits.argmax(-1) == reference.argmax(-1)).mean() > 0.95


@pytest.mark.parametrize("precision", ["f32"], indirect=True)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_goes_on_as_the_source_does(native: Native, weights: Weights, prompt: str) -> None:
    tokens = rwkv7.ByteTokenizer().encode(prompt)
    state, fed, expected = rwkv7.new_state(weights.config, 1), tokens, []
    for _ in range(200):
        with torch.no_grad():
            logits, state = rwkv7.forward(weights, torch.tensor([fed]), None, state)
        fed = [int(logits[0].argmax())]
        expected += fed
    assert native.greedy(tokens, 200) == expected


@pytest.mark.parametrize("precision", ["q8_0"], indirect=True)
@pytest.mark.parametrize("text", [TEXT, "<s> [PAD3] <|endoftext|>", "ä€😀", "\0\n\r\t\\x41\\'\"", "\x7f\x80ÿ"])
def test_bytes_are_tokenized_as_the_source_does(native: Native, text: str) -> None:
    tokens = rwkv7.ByteTokenizer().encode(text)
    assert native.tokenize(text) == tokens
    assert b"".join(map(native.piece, tokens)) == text.encode()


@pytest.mark.parametrize("precision", ["q8_0"], indirect=True)
def test_the_end_token_ends_and_spells_nothing(native: Native) -> None:
    vocab = native.vocab
    assert (llama_cpp.llama_vocab_bos(vocab), llama_cpp.llama_vocab_eos(vocab)) == (0, 0)
    assert llama_cpp.llama_vocab_eot(vocab) == -1
    assert not llama_cpp.llama_vocab_get_add_bos(vocab)
    assert [token for token in range(native.size) if llama_cpp.llama_vocab_is_eog(vocab, token)] == [0]
    assert [native.piece(token) for token in range(257)] == [b"", *(bytes([byte]) for byte in range(256))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    if importlib.util.find_spec("rwkv") is None:
        pytest.skip("the World vocabulary comes with the rwkv package")
    folder = tmp_path_factory.mktemp("world")
    rwkv7.save(rwkv7.random_tensors(WORLD, seed=1), folder / "world.pth")
    convert(folder / "world.pth", folder / "world.gguf", "q8_0")
    assert gguf.describe(folder / "world.gguf").vocabulary == 65536
    model = Native(folder / "world.gguf")
    yield model
    model.close()


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world! The quick brown fox.\n\n\tdef f(x):\n        return x\r\n",
        "数式と日本語、русский, ελληνικά, עברית, हिन्दी 😀👩‍👩‍👧",
        "<s></s>[PAD65530] <|endoftext|> \\n \\xff b'\\x00'",
        "".join(map(chr, range(0, 0x500))),
        "\U0010ffff\ufffd\u200b",
    ],
)
def test_the_world_vocabulary_is_tokenized_as_the_source_does(world: Native, text: str) -> None:
    tokens = rwkv7.WorldTokenizer().encode(text)
    assert world.tokenize(text) == tokens
    assert b"".join(map(world.piece, tokens)) == text.encode()


def test_every_world_token_is_spelled_as_the_source_does(world: Native) -> None:
    tokenizer = rwkv7.WorldTokenizer()
    assert all(world.piece(token) == tokenizer.piece(token) for token in range(1, rwkv7.WorldTokenizer.size))
    assert np.isfinite(world.read([1, 65529, 65535])).all()


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    config = Config(layers=2, channels=64, head_size=64, vocabulary=257, ffn=80, rank_w=4, rank_a=5, rank_v=6, rank_g=7)
    return rwkv7.random_tensors(config, seed=1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_types_of_the_tensors(tmp_path: Path, tensors: dict[str, Tensor], suffix: str) -> None:
    """A row of 80 makes no whole blocks of 32, so its matrix stays in f16, as low-rank parts do."""
    rwkv7.save({name: tensor.bfloat16() for name, tensor in tensors.items()}, tmp_path / f"source{suffix}")
    seen: list[tuple[int, int]] = []
    convert(tmp_path / f"source{suffix}", tmp_path / "a.gguf", "q8_0", progress=lambda *now: seen.append(now))
    found = gguf.describe(tmp_path / "a.gguf")
    assert (found.architecture, found.name, found.label) == ("rwkv7", "source", "Q8_0")
    assert found.quantization == "F32 (36), F16 (14), Q8_0 (12)"
    assert [now for now, _ in seen] == sorted(now for now, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", f"source{suffix}"]


def test_both_formats_of_a_source_give_the_same_model(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for suffix, slab in ((".pth", 1 << 24), (".safetensors", 100)):
        monkeypatch.setattr("models.gguf.convert.SLAB_NUMBERS", slab)
        rwkv7.save(tensors, tmp_path / f"source{suffix}")
        convert(tmp_path / f"source{suffix}", tmp_path / "a.gguf", "q8_0")
        found.add(gguf.fingerprint(tmp_path / "a.gguf"))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head.weight": torch.full((257, 64), 1e6)}, r"output\.weight holds numbers that are NaN or infinite in F16"),
        ({"ln_out.bias": torch.full((64,), torch.nan)}, r"output_norm\.bias holds numbers that are NaN or infinite"),
        ({"ln_out.bias": torch.zeros(65)}, r"ln_out\.bias should have shape"),
        ({f"blocks.{n}.att.r_k": torch.zeros(2, 32) for n in (0, 1)}, "heads have size 32"),
        ({"emb.weight": torch.zeros(300, 64), "head.weight": torch.zeros(300, 64)}, "a vocabulary of 300"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(
    tmp_path: Path, tensors: dict[str, Tensor], change: dict[str, Tensor], words: str
) -> None:
    rwkv7.save(tensors | change, tmp_path / "source.pth")
    with pytest.raises(WeightsError, match=words):
        convert(tmp_path / "source.pth", tmp_path / "a.gguf", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_a_conversion_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    target.write_bytes(b"old")

    def full(_done: int, _total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        convert(mini.path(), target, "f16", progress=full)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
