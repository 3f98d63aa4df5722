"""Text to ids and back, for both vocabularies."""

from __future__ import annotations

import dataclasses

import pytest

from models import rwkv7
from models.rwkv7 import ByteTokenizer, Config, WeightsError, WorldTokenizer
from models.rwkv7.tokenizer import Tokenizer


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), WorldTokenizer()], ids=["bytes", "world"])
def test_pieces_join_to_the_text(tokenizer: Tokenizer) -> None:
    text = "(Turn 7) [USER]: grün → 東京\n\n~~~(end)~~~\n\n"
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.piece(token) for token in ids).decode() == text
    assert tokenizer.piece(tokenizer.end) == b""
    assert tokenizer.end not in ids
    assert max(ids) < tokenizer.size


def test_byte_ids_are_one_more_than_the_byte() -> None:
    assert ByteTokenizer().encode("aé") == [98, 1 + 0xC3, 1 + 0xA9]
    with pytest.raises(ValueError, match="257"):
        ByteTokenizer().piece(257)


def test_the_fence_is_seven_world_tokens() -> None:
    assert len(WorldTokenizer().encode("\n\n~~~(end)~~~\n\n")) == 7


def test_the_vocabulary_says_which_tokenizer_fits(config: Config) -> None:
    assert isinstance(rwkv7.tokenizer_for(config), ByteTokenizer)
    assert isinstance(rwkv7.tokenizer_for(dataclasses.replace(config, vocabulary=65536)), WorldTokenizer)
    with pytest.raises(WeightsError, match="1000"):
        rwkv7.tokenizer_for(dataclasses.replace(config, vocabulary=1000))
