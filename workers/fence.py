"""Stop logic: where a reply's closing fence begins, and how the closed reply then ends.

Three marks in the generated text close a turn; the one that begins first decides:

    `\\n~~~(`       the opening of a fence: the rest of the canonical fence is added
    `end)~~`       the end of a fence, such as a half-open one: completed to `end)~~~\\n\\n`
    `)~~~\\n\\n`     a fence that is already complete
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
    """The text that must follow `text` when `piece` completes a mark, up to the end of the fence; else None.

    `text` is the reply so far; it holds no mark. What the piece has after the mark is cut off.
    """
    tail = bytes(text[-(_LONGEST - 1) :])
    seen = tail + piece
    found = [(at, mark) for mark in _CLOSED if (at := seen.find(mark)) >= 0]
    if not found:
        return None
    at, mark = min(found)
    return (seen[:at] + _CLOSED[mark])[len(tail) :]


def closing(text: bytes | bytearray) -> bytes:
    """What closes a turn that was interrupted after `text`: the fence, less the part that `text` ends with."""
    for length in range(len(_FENCE), 0, -1):
        if text.endswith(_FENCE[:length]):
            return _FENCE[length:]
    return _FENCE
