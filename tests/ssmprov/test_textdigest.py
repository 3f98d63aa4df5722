"""The digest of a text follows from that of its beginning, and different texts have different digests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssmprov.textdigest import BYTES, PRIME, TextDigest, stored, text_digest

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(str.encode)


@given(st.lists(texts))
def test_it_does_not_matter_in_how_many_pieces_a_text_is_read(pieces: list[bytes]) -> None:
    digest = TextDigest()
    for piece in pieces:
        digest = digest.plus(piece)
    assert digest == text_digest(b"".join(pieces))
    assert stored(digest.length, digest.data) == digest
    assert len(digest.data) == BYTES


@given(texts, texts)
def test_other_texts_have_other_digests(one: bytes, other: bytes) -> None:
    assert (text_digest(one) == text_digest(other)) == (one == other)


def test_words_that_change_places_are_noticed() -> None:
    word, other = b"w" * 32, b"o" * 32
    assert text_digest(word + other) != text_digest(other + word)
    assert text_digest(b"ab" * 1000 + b"c") != text_digest(b"c" + b"ab" * 1000)


def test_the_modulus_is_a_prime() -> None:
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 60))
