"""An error as a person reads it: one sentence that says what to do, and what the Details button shows."""

from __future__ import annotations

import re

from ssmprov.errors import Cancelled, NoSpace, SsmprovError, TimedOut, Unreachable, WorkerLost

_COMMAND = re.compile(r"`([^`\n]*)`")
_MORE: dict[type[SsmprovError], str] = {
    WorkerLost: "The context stands where it stood before the turn; if that was committed, the next one records it.",
    TimedOut: "If the turn was committed all the same, the next one finds out and records it.",
    NoSpace: "Transcript and context are as they were.",
}


def sentence(error: SsmprovError) -> str:
    """What is shown. It begins with a capital and ends with a full stop."""
    text = error.message.strip() or type(error).__name__
    if isinstance(error, Unreachable):
        text = error.details.get("fault", text)  # without its advice: there is a button for that
    text = _COMMAND.sub(r"“\1”", text)
    text = text[0].upper() + text[1:]
    if text[-1] not in ".!?":
        text += "."
    for kind, more in _MORE.items():
        if isinstance(error, kind):
            return f"{text} {more}"
    return text


def is_hint(error: SsmprovError) -> bool:
    """Whether it is what the person asked for, and no fault."""
    return isinstance(error, Cancelled)


def details(error: SsmprovError) -> str:
    """What helps to find the cause: the code, the worker, the traceback."""
    lines = [f"code: {error.details.get('code', error.code)}"]
    if error.worker:
        lines.append(f"worker: {error.worker}")
    lines += [f"{key}: {value}" for key, value in error.details.items() if key not in ("code", "fault")]
    if error.remote_traceback:
        lines += ["", error.remote_traceback.strip()]
    return "\n".join(lines)
