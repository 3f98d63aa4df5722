"""What one connection saw of one request: accepted, streamed without a gap, and answered once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from soak.history import Call, Frame, History

ANSWERED_S = 20.0
"""A broker that has taken a request and lives for so long has an answer to it."""


def check(history: History) -> list[str]:
    """A sentence for each promise of the wire that was broken."""
    faults = []
    for call in history.calls:
        frames = history.frames.get(call.n, [])
        faults += [f"call {call.n} ({call.order.op}): {fault}" for fault in _faults(frames)]
        faults += [f"call {call.n} ({call.order.op}): {fault}" for fault in _streamed(call, frames)]
    return faults


@dataclass(slots=True)
class _Attempt:
    """What came of one attempt; `at` is the byte at which the next piece has to begin."""

    seq: int = 0
    at: int | None = None
    ended: bool = False


def _faults(frames: Iterable[Frame]) -> Iterator[str]:
    attempts: dict[int, _Attempt] = {}
    text = bytearray()
    for frame in frames:
        if frame.kind == "sent":
            attempts[frame.attempt] = _Attempt()
            continue
        attempt = attempts.get(frame.attempt)
        if attempt is None:
            yield f"{_what(frame)}, which was never made"
        elif frame.attempt < max(attempts):  # it was under way when the client asked again, on a new connection
            if frame.kind == "final" and attempt.ended:
                yield f"{_what(frame)} came after its answer"
            attempt.ended = attempt.ended or frame.kind == "final"
        elif frame.kind != "accepted":
            yield from _faults_of(frame, attempt, text)


def _faults_of(frame: Frame, attempt: _Attempt, text: bytearray) -> Iterator[str]:
    """A piece or an answer, held against what came before it; it is added to both."""
    if attempt.ended:
        yield f"{_what(frame)} came after its answer"
    if frame.kind == "final":
        attempt.ended = True
        if frame.code:
            return
        if frame.seq != attempt.seq:
            yield f"{_what(frame)} counts {frame.seq} pieces, and {attempt.seq} came"
    elif frame.seq != attempt.seq + 1:
        yield f"{_what(frame)} has the number {frame.seq} and came after {attempt.seq}"
    attempt.seq = frame.seq
    if frame.kind == "chunk":
        return
    begins = len(text) if attempt.at is None else attempt.at
    if frame.offset > begins or (attempt.at is not None and frame.offset < begins):
        yield f"{_what(frame)} begins at byte {frame.offset}, where {begins} is due"
    attempt.at = frame.offset + len(frame.text)
    known = bytes(text[frame.offset : attempt.at])
    if not frame.text.startswith(known):
        yield f"{_what(frame)} tells bytes {frame.offset} and on otherwise than before"
    text[frame.offset : attempt.at] = frame.text


def _what(frame: Frame) -> str:
    return f"the {frame.kind.upper()} of attempt {frame.attempt}"


def _streamed(call: Call, frames: Iterable[Frame]) -> Iterator[str]:
    """What was streamed is a prefix of the answer."""
    if not call.ok or call.order.op != "turn":
        return
    whole = call.text.encode()
    for frame in frames:
        if frame.kind == "partial" and whole[frame.offset : frame.offset + len(frame.text)] != frame.text:
            yield f"its PARTIAL {frame.seq} is not what the answer says at byte {frame.offset}"
            return


def unanswered(history: History) -> list[str]:
    """Calls that a broker had taken, which then lived on for long enough, and that ended without its answer."""
    faults = []
    for call in history.calls:
        if call.error is None or "did not say how it ended" not in call.error.message:
            continue
        frames = history.frames.get(call.n, [])
        asked_at = max((frame.at for frame in frames if frame.kind == "sent"), default=call.ended)
        if frames and frames[-1].kind != "sent" and call.ended - asked_at > ANSWERED_S:
            faults.append(f"call {call.n} ({call.order.op}) was accepted and never answered")
    return faults
