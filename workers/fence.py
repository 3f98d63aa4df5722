"""Stop logic: where a reply's closing fence begins, and what the closed reply then is.

Three marks in the generated text close a turn; the one that begins first decides:

    `\\n~~~(`       the fence's opening: closed to the canonical fence behind it
    `end)~~`       the fence's end, such as a half-open one's: closed to `end)~~~\\n\\n`
    `)~~~\\n\\n`     a fence that is already whole
"""

from __future__ import annotations

from ssmprov.transcript import FENCE, FENCE_REST

_OPENING = b"\n~~~("
_ENDING = b"end)~~"
_WHOLE = b")~~~\n\n"
_REST = FENCE_REST.encode()
_FENCE = FENCE.encode()
_CLOSED = {_OPENING: _OPENING + _REST, _ENDING: _REST, _WHOLE: _WHOLE}
_LONGEST = max(map(len, _CLOSED))


def closed(text: bytes | bytearray, piece: bytes) -> bytes | None:
    """What has to follow `text` when `piece` completes a mark, up to and with the fence's end; else None.

    `text` is the reply so far, in which no mark stands. What the piece holds beyond the mark is cut away.
    """
    tail = bytes(text[-(_LONGEST - 1) :])
    seen = tail + piece
    found = [(at, mark) for mark in _CLOSED if (at := seen.find(mark)) >= 0]
    if not found:
        return None
    at, mark = min(found)
    return (seen[:at] + _CLOSED[mark])[len(tail) :]


def closing(text: bytes | bytearray) -> bytes:
    """What closes a turn that was broken off after `text`: the fence, less what of it stands there already."""
    for length in range(len(_FENCE), 0, -1):
        if text.endswith(_FENCE[:length]):
            return _FENCE[length:]
    return _FENCE
