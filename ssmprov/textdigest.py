"""A digest of a text that can be extended: it says at once whether two long texts are likely to be the same.

A text is a number with base 256, taken modulo a prime of 255 bits. The digest of a longer text follows from the digest
of its beginning and from what was added, so a store can keep one with each step. A cryptographic hash would have to
keep its inner state for that. This one is for finding, not for proof: whoever wants to can make two texts with the same
digest. Where it matters, compare the bytes.
"""

from __future__ import annotations

from typing import NamedTuple

PRIME = 0x5491417339396E984B719EB6F747F029A209B8042EFB98E62E4AA86794B6A871
BYTES = 32


class TextDigest(NamedTuple):
    """The digest of a text, with its length in bytes."""

    length: int = 0
    value: int = 0

    def plus(self, text: bytes) -> TextDigest:
        """The digest of this text followed by `text`. Takes time in proportion to `text` alone."""
        added = int.from_bytes(text, "big") % PRIME
        return TextDigest(self.length + len(text), (self.value * pow(256, len(text), PRIME) + added) % PRIME)

    @property
    def data(self) -> bytes:
        """The digest as 32 bytes, without the length."""
        return self.value.to_bytes(BYTES, "big")


def text_digest(text: bytes) -> TextDigest:
    """The digest of a whole text."""
    return TextDigest().plus(text)


def stored(length: int, data: bytes) -> TextDigest:
    """A digest from its length and its 32 bytes."""
    return TextDigest(length, int.from_bytes(data, "big"))
