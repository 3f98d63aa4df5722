"""Byte tokens: id 0 ends a text, id 1 + b is the byte b."""

from __future__ import annotations


class ByteTokenizer:
    end = 0
    size = 257

    def encode(self, text: str) -> list[int]:
        return [1 + byte for byte in text.encode()]

    def piece(self, token: int) -> bytes:
        """The byte of a token; b"" for the end of text. Raises ValueError for an id outside the vocabulary."""
        if not 0 <= token < self.size:
            raise ValueError(f"token {token} is not in 0..{self.size - 1}")
        return bytes([token - 1]) if token else b""
