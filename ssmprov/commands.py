"""The grammar of bang and slash commands, which the bridge, the shell and the Composer share.

!LOAD [SETTINGS [SAVE]]     an optional first line: the context, the sampling set, and where to save
/save NAME, /t 0.5, ...     a slash command; anything else is a prompt
"""

from __future__ import annotations

from dataclasses import dataclass

from ssmprov.errors import BadRequest

DEFAULT_CONTEXT = "kv.pkl"
DEFAULT_SET = "set.json"

KNOBS = {
    "/t": ("temp", "temp"),
    "/p": ("top_p", "top_p"),
    "/k": ("top_k", "top_k"),
    "/min_p": ("min_p", "min_p"),
    "/pen_freq": ("pen_freq", "pen_freq"),
    "/pen_pres": ("pen_pres", "pen_pres"),
    "/pen_rep": ("pen_rep", "pen_rep"),
    "/max": ("max", "max"),
}
STORES = {
    "/save": DEFAULT_CONTEXT,
    "/load": DEFAULT_CONTEXT,
    "/save_set": DEFAULT_SET,
    "/load_set": DEFAULT_SET,
}
PROBE = "/probe"
LOOKS = ("/routing", "/slotmask")
"""Commands that set how later probes read: see `ssmprov.probes`."""

HELP = "/?"


@dataclass(frozen=True, slots=True)
class Bang:
    """A bang line: the context to load, the sampling set to load, and the name to save under; '' for none."""

    load: str = ""
    settings: str = ""
    save: str = ""


@dataclass(frozen=True, slots=True)
class Slash:
    """A slash command: its word in lower case, and its argument."""

    word: str
    argument: str = ""

    @property
    def known(self) -> bool:
        return self.word in (*KNOBS, *STORES, PROBE, *LOOKS, HELP)


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed request: an optional bang line, then a slash command or a prompt."""

    bang: Bang | None
    slash: Slash | None
    prompt: str


def parse(text: str) -> Command:
    """Parse a request. The prompt is kept byte for byte. Raises BadRequest if a bang line is too long."""
    bang = None
    if text.startswith("!"):
        line, _, text = text.partition("\n")
        bang = parse_bang(line)
    return Command(bang, parse_slash(text), text)


def parse_bang(line: str) -> Bang:
    """Parse a bang line. The third word may be written `!NAME`, as one of the old guides does."""
    words = line.strip().removeprefix("!").split()
    if len(words) > 3:
        raise BadRequest("a bang line has at most three words: write !LOAD SETTINGS SAVE")
    load, settings, save = (*words, "", "", "")[:3]
    return Bang(load, settings, save.removeprefix("!"))


def parse_slash(text: str) -> Slash | None:
    """The slash command in a text, or None for a prompt. Blanks before the slash are ignored."""
    words = text.split(maxsplit=1)
    if not words or not words[0].startswith("/"):
        return None
    return Slash(words[0].lower(), words[1].strip() if len(words) > 1 else "")
