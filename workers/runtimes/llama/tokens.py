"""The vocabulary of a GGUF: text to tokens without loss, tokens to bytes, end tokens and control tokens."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from ssmprov.errors import BadRequest
from workers.runtimes.llama.native import Library

PIECE_BYTES = 256
BYTES_OF_RWKV = 256

AT_ONCE = 4096
"""Characters that the library gets at once. Its regular expressions use about 250 bytes of stack for each character of
one match, and end the process when the stack ends; its user-defined tokens take quadratic time.
"""

_WORD = re.compile(r"[^\W\d_](?= [^\W\d_])")
"""A letter before a space and a letter: every vocabulary has a token boundary there, so a text may be cut after it."""


class Tokens:
    """Tables over a model's vocabulary. Any thread may use them: the library's vocabulary is never written."""

    def __init__(self, library: Library, vocab: Any) -> None:
        """Raises BadRequest for a vocabulary that the library cannot handle."""
        self._library = library
        self._vocab = vocab
        self.size: int = library.llama_vocab_n_tokens(vocab)
        kind_of = library.llama_vocab_type(vocab)
        rwkv = kind_of == library.LLAMA_VOCAB_TYPE_RWKV
        if self.size < 1 or kind_of == library.LLAMA_VOCAB_TYPE_NONE:  # the library must not be asked about a token
            raise BadRequest("the file has no vocabulary: ssmprov needs one, to read text")
        kinds = [int(library.llama_vocab_get_attr(vocab, token)) for token in range(self.size)]
        mute = library.LLAMA_TOKEN_ATTR_CONTROL | library.LLAMA_TOKEN_ATTR_UNKNOWN | library.LLAMA_TOKEN_ATTR_UNUSED
        spoken = [b"" if kind & mute else self._spell(token, special=False) for token, kind in enumerate(kinds)]
        if rwkv and len({piece for piece in spoken if len(piece) == 1}) < BYTES_OF_RWKV:
            raise BadRequest(
                "the file's RWKV vocabulary lacks single bytes: the library would never finish reading such text"
            )
        self._pieces = spoken
        ends = {token for token in range(self.size) if library.llama_vocab_is_eog(vocab, token)}
        if rwkv:  # conversions of these declare the line break an end of turn, for chat; here it is ordinary text
            ends = {token for token in ends if not kinds[token] & library.LLAMA_TOKEN_ATTR_NORMAL}
        self.ends = frozenset(ends)
        self.controls = frozenset(
            token for token, piece in enumerate(self._pieces) if not piece and token not in self.ends
        )
        for token in self.ends:
            self._pieces[token] = b""
        self._mute = self.ends | self.controls
        self._names = {token: self._spell(token, special=True) for token in self._mute}
        bos = int(library.llama_vocab_bos(vocab))
        self.begin = bos if library.llama_vocab_get_add_bos(vocab) and 0 <= bos < self.size else None

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. A control string in it is read as plain characters."""
        found: list[int] = []
        for part in _parts(text):
            tokens = self._encode(part)
            found += tokens if self._mute.isdisjoint(tokens) else self._plain(part, tokens)
        return found

    def _plain(self, text: str, tokens: list[int]) -> list[int]:
        """The library made a control token of some characters: split the text after the first of each such string."""
        data = text.encode()
        lengths = [len(self._names[token] if token in self._mute else self._pieces[token]) for token in tokens]
        starts = [0, *accumulate(lengths)]
        cuts: list[int] = []
        for token, start in zip(tokens, starts, strict=False):
            if token in self._mute and data[start : start + len(self._names[token])] == self._names[token]:
                cuts.append(_next_character(data, start))
        if not cuts or starts[-1] != len(data):
            return tokens  # the check of the prompt finds that these do not spell it
        found: list[int] = []
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            part = data[begin:end].decode()
            inner = self._encode(part)
            if not self._mute.isdisjoint(inner) and 0 < end - begin < len(data):
                inner = self._plain(part, inner)
            found += inner
        return found

    def _encode(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self._library.llama_tokenize(self._vocab, data, len(data), tokens, room, False, False)
            if count >= 0:
                return list(tokens[:count])
            if -count <= room:
                raise BadRequest("this model's tokenizer failed on the text")
            room = -count

    def _spell(self, token: int, *, special: bool) -> bytes:
        room = PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._library.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


def _parts(text: str) -> Iterator[str]:
    """Parts of a text of at most `AT_ONCE` characters, cut between words if possible."""
    begin = 0
    while len(text) - begin > AT_ONCE:
        window = text[begin : begin + AT_ONCE + 1]
        end = AT_ONCE
        for found in _WORD.finditer(window, AT_ONCE // 2):
            end = found.end()
        yield window[:end]
        begin += end
    if begin < len(text):
        yield text[begin:]


def _next_character(data: bytes, start: int) -> int:
    """Where the character after the one at `start` begins."""
    end = start + 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return end
