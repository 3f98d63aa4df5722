"""The bang and slash grammar of a request, which the bridge and the Composer share.

!LOAD [SETTINGS [SAVE]]     an optional first line: which context, which sampling set, where to save
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
"""How the probes that follow read: see `ssmprov.probes`."""

HELP = "/?"


@dataclass(frozen=True, slots=True)
class Bang:
    """A bang line: the context to load, the sampling set to load, the name to save under; '' for none."""

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
    """A request taken apart: a bang line or none, then a slash command, or else a prompt."""

    bang: Bang | None
    slash: Slash | None
    prompt: str


def parse(text: str) -> Command:
    """Take a request apart. The prompt is kept to the byte. Raises BadRequest for a bang line of four words."""
    bang = None
    if text.startswith("!"):
        line, _, text = text.partition("\n")
        bang = parse_bang(line)
    return Command(bang, parse_slash(text), text)


def parse_bang(line: str) -> Bang:
    """A bang line. A third word may be written `!NAME`: one of the old guides does so."""
    words = line.strip().removeprefix("!").split()
    if len(words) > 3:
        raise BadRequest("a bang line has at most three words: !LOAD SETTINGS SAVE")
    load, settings, save = (*words, "", "", "")[:3]
    return Bang(load, settings, save.removeprefix("!"))


def parse_slash(text: str) -> Slash | None:
    """The slash command that a text is, or None for a prompt. Blanks before the slash do not count."""
    words = text.split(maxsplit=1)
    if not words or not words[0].startswith("/"):
        return None
    return Slash(words[0].lower(), words[1].strip() if len(words) > 1 else "")
