"""What slash commands answer, on a port and in the shell."""

from __future__ import annotations

from collections.abc import Iterable

from ssmprov.commands import DEFAULT_CONTEXT, DEFAULT_SET, KNOBS, LOOKS
from ssmprov.probes import Look
from ssmprov.settings import RANGES, Settings

ABOUT = {
    "/t": "temperature: 0 always picks the most likely token, higher values vary more",
    "/p": "sample from the most likely tokens that together have this probability; 1 is off",
    "/k": "sample from this many of the most likely tokens; 0 is off",
    "/min_p": "skip tokens less likely than this share of the most likely one; 0 is off",
    "/pen_freq": "penalty for each recent occurrence of a token; 0 is off",
    "/pen_pres": "penalty for a token that has occurred recently; 0 is off",
    "/pen_rep": "divides the score of a token that has occurred recently; 1 is off",
    "/max": "longest reply, in characters",
}


def value(word: str, settings: Settings) -> str:
    """The reply to `/t` and the like without a value, such as `temp = 0.18`."""
    key, label = KNOBS[word]
    return f"{label} = {getattr(settings, key)}"


def saved(name: str, size: int, what: str = "") -> str:
    return f"[saved {what}-> {name} ({size} bytes)]\n"


def loaded(name: str, what: str = "") -> str:
    return f"[loaded {what}<- {name}]\n"


def help_text(head: Iterable[str], context: str, settings: Settings, look: Look) -> str:
    """The answer to `/?`: the lines `head`, the commands for this kind of context, and the current settings."""
    lines = [
        *head,
        "",
        "## Commands",
        f"- `/save [NAME]`, `/load [NAME]`: save or load {context} (default: {DEFAULT_CONTEXT})",
        f"- `/save_set [NAME]`, `/load_set [NAME]`: save or load the sampling settings (default: {DEFAULT_SET})",
    ]
    for word, about in ABOUT.items():
        low, high = RANGES[KNOBS[word][0]]
        lines.append(f"- `{word} [{low:.7g} to {high:.7g}]`: {about}")
    lines += [
        "- `/probe TEXT`: show how a model with addressed slots would read TEXT next; nothing changes",
        "- `/routing [softmax|top1|topk N]`, `/slotmask [0 3 5|off]`: set how later probes read the slots",
        "- `/?`: this text",
        "",
        "## Settings",
        *(value(word, settings) for word in KNOBS),
        *(look.shown(word) for word in LOOKS),
    ]
    return "\n".join(lines) + "\n"
