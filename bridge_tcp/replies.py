"""The exact replies of the old protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ssmprov.commands import DEFAULT_CONTEXT, DEFAULT_SET, KNOBS, LOOKS
from ssmprov.errors import SsmprovError
from ssmprov.probes import Look
from ssmprov.settings import RANGES, Settings

ERROR = "error"
LOAD = "load error"
SAVE = "save error"
LOAD_SET = "load_set error"
SAVE_SET = "save_set error"
PROBE = "probe error"
LOOK = {"/routing": "routing error", "/slotmask": "slotmask error"}

ABOUT = {
    "/t": "temperature: 0 always takes the likeliest token, more is bolder",
    "/p": "draw from the likeliest tokens that together hold this share; 1 is off",
    "/k": "draw from so many of the likeliest tokens; 0 is off",
    "/min_p": "leave out tokens below this share of the likeliest one; 0 is off",
    "/pen_freq": "penalty for each time a token was read of late; 0 is off",
    "/pen_pres": "penalty for a token that was read of late at all; 0 is off",
    "/pen_rep": "divides the score of a token that was read of late; 1 is off",
    "/max": "longest reply, in characters",
}


class Refusal(Exception):
    """A request that failed: `[LABEL] WHY`."""

    def __init__(self, label: str, why: object) -> None:
        super().__init__(f"[{label}] {why}")


@contextmanager
def refusing(label: str) -> Iterator[None]:
    """Turn an error of the broker into a refusal under this label."""
    try:
        yield
    except SsmprovError as error:
        raise Refusal(label, error) from error


def value(word: str, settings: Settings) -> str:
    """What `/t` and the like say without a value, such as `temp = 0.18`."""
    key, label = KNOBS[word]
    return f"{label} = {getattr(settings, key)}"


def saved(name: str, size: int, what: str = "") -> str:
    return f"[saved {what}-> {name} ({size} bytes)]\n"


def loaded(name: str, what: str = "") -> str:
    return f"[loaded {what}<- {name}]\n"


def help_text(model: str, port: int, settings: Settings, look: Look) -> str:
    """The answer to `/?`: what can be sent, and the port's current settings."""
    lines = [
        f"# {model} on port {port}",
        "",
        "Send a text and a NUL: it is read into the port's live context, and the reply is what the model writes.",
        "",
        "## First line, if wanted",
        "- `!LOAD [SETTINGS [SAVE]]`: run in the context LOAD with the sampling set SETTINGS, and save as SAVE.",
        "",
        "## Commands",
        f"- `/save [NAME]`, `/load [NAME]`: the live context to and from a name ({DEFAULT_CONTEXT})",
        f"- `/save_set [NAME]`, `/load_set [NAME]`: these settings to and from a named set ({DEFAULT_SET})",
    ]
    for word, about in ABOUT.items():
        low, high = RANGES[KNOBS[word][0]]
        lines.append(f"- `{word} [{low:.7g} to {high:.7g}]`: {about}")
    lines += [
        "- `/probe TEXT`: how a model with addressed slots would read TEXT after the live context; nothing changes",
        "- `/routing [softmax|top1|topk N]`, `/slotmask [0 3 5|off]`: how the probes that follow read the slots",
        "- `/?`: this text",
        "",
        "## Settings",
        *(value(word, settings) for word in KNOBS),
        *(look.shown(word) for word in LOOKS),
    ]
    return "\n".join(lines) + "\n"
