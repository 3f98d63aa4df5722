"""Errors as text for people: the notice that says what to do, and what its Details button shows."""

from __future__ import annotations

import re

from ssmprov.errors import Cancelled, NoSpace, SsmprovError, TimedOut, WorkerLost

_COMMAND = re.compile(r"`([^`\n]*)`")
_MORE: dict[type[SsmprovError], str] = {
    WorkerLost: "If the turn was committed, the next one records it.",
    TimedOut: "If the turn was committed after all, the next one finds out and records it.",
    NoSpace: "The transcript and the context are unchanged.",
}


def sentence(error: SsmprovError) -> str:
    """The text of the notice. It starts with a capital letter and ends with a full stop."""
    text = error.message.strip() or type(error).__name__
    text = error.details.get("fault", text)  # without its advice: there are buttons for that
    text = _COMMAND.sub(r"“\1”", text)
    text = text[0].upper() + text[1:]
    if text[-1] not in ".!?":
        text += "."
    for kind, more in _MORE.items():
        if isinstance(error, kind):
            return f"{text} {more}"
    return text


def is_hint(error: SsmprovError) -> bool:
    """Whether this is what the person asked for rather than a fault."""
    return isinstance(error, Cancelled)


def details(error: SsmprovError) -> str:
    """What helps to find the cause: the error's code, worker, details and traceback."""
    lines = [f"code: {error.details.get('code', error.code)}"]
    if error.worker:
        lines.append(f"worker: {error.worker}")
    lines += [f"{key}: {value}" for key, value in error.details.items() if key not in ("code", "fault")]
    if error.remote_traceback:
        lines += ["", error.remote_traceback.strip()]
    return "\n".join(lines)
