"""Tokenizers: bytes for models with the small vocabulary, World for the official models."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from models.mini.tokenizer import ByteTokenizer
from models.rwkv7.config import Config, WeightsError

WORLD_IDS = 65530  # ids 1..65529 are in use, 0 ends a text


class Tokenizer(Protocol):
    """Turns text into token ids, and an id into its bytes. Id 0 ends a text; its piece is empty."""

    end: int
    size: int

    def encode(self, text: str) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...


class _Trie(Protocol):
    idx2token: dict[int, bytes]

    def encodeBytes(self, src: bytes) -> list[int]: ...


class WorldTokenizer:
    """The vocabulary `rwkv_vocab_v20230424`. Its first use reads the installed `rwkv` package (seconds, 300 MB)."""

    end = 0
    size = WORLD_IDS

    def encode(self, text: str) -> list[int]:
        return _world().encodeBytes(text.encode())

    def piece(self, token: int) -> bytes:
        """The bytes of a token; b"" for ids that no text uses (0, and those above 65529)."""
        return _world().idx2token.get(token, b"")


@cache
def _world() -> _Trie:
    found = importlib.util.find_spec("rwkv")
    if found is None or found.origin is None:
        raise WeightsError("the World vocabulary needs the package rwkv, which is not installed: pip install rwkv")
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    return cast(_Trie, TRIE_TOKENIZER(str(Path(found.origin).with_name("rwkv_vocab_v20230424.txt"))))


def tokenizer_for(config: Config) -> Tokenizer:
    """The tokenizer that fits a model's vocabulary."""
    if config.vocabulary == ByteTokenizer.size:
        return ByteTokenizer()
    if config.vocabulary >= WORLD_IDS:
        return WorldTokenizer()
    raise WeightsError(
        f"a vocabulary of {config.vocabulary} is neither bytes ({ByteTokenizer.size}) nor World ({WORLD_IDS} or more)"
    )
