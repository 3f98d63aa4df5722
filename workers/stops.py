"""What ends a reply before its own first byte, found as the reply grows.

While a match is possible, its text is not shown, and the state before it is kept (see `workers.turn`): if it becomes
whole, the turn goes back there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ssmprov.transcript import FENCE, begins_header

_FENCE = FENCE.encode()
_OPENS = b"("
"""The first byte of a header."""


@dataclass(frozen=True, slots=True)
class Match:
    """Where in the reply a match begins, in bytes, and whether it is `whole` or only possible so far."""

    at: int
    whole: bool


class Stop(Protocol):
    """Something that ends a reply before its own first byte."""

    reason: str
    """What the result of the turn says."""

    def look(self, reply: bytes | bytearray, piece: bytes, since: int | None) -> Match | None:
        """The match in a reply that a piece continues: the first whole one, else the first possible one.

        `since` is where the match begins that was possible before the piece; None if there was none.
        """


class Headers:
    """A header of the transcript at the beginning of a line: the model would write another's turn.

    A reply may begin with a header if the text `before` it is a closed turn: it opens the next one.
    """

    reason = "header"

    def __init__(self, before: bytes) -> None:
        self._begins_line = before.endswith(b"\n") and not before.endswith(_FENCE)

    def look(self, reply: bytes | bytearray, piece: bytes, since: int | None) -> Match | None:
        if since is None and _OPENS not in piece:
            return None
        begin = len(reply) if since is None else since
        text = bytes(reply[begin:]) + piece
        on_line = since is not None or (reply.endswith(b"\n") if reply else self._begins_line)
        at = 0 if on_line else text.find(b"\n") + 1 or len(text)
        while at < len(text):
            found = begins_header(text[at:].decode(errors="ignore"))  # its last character may be incomplete
            if found is not False:
                return Match(begin + at, whole=bool(found))
            at = text.find(b"\n", at) + 1 or len(text)
        return None
