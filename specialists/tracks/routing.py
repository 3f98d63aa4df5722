"""Rows of the track `routing`: a request in one sentence, a plan, and the agent that should carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Requests for one agent: sentences with `{}` for the thing, the things, and the steps of the plan."""

    domain: str
    intent: str
    agent: str
    name: str
    asks: tuple[str, ...]
    things: tuple[str, ...]
    plan: tuple[str, ...]


_KINDS = (
    _Kind(domain="linux", intent="debug", agent="terminal", name="shell_operator",
          asks=("my {} is full", "the {} does not start", "why is the {} so slow"),
          things=("disk", "printer", "network", "server", "screen"),
          plan=("look at {}", "find the cause", "mend {}")),
    _Kind(domain="linux", intent="install", agent="terminal", name="shell_operator",
          asks=("install {}", "set up {} for me", "i need {} on this machine"),
          things=("python", "git", "ssh", "a compiler", "a database"),
          plan=("search {}", "install {}", "test {}")),
    _Kind(domain="program", intent="write", agent="editor", name="code_editor",
          asks=("write a function that {}", "a program that {}, please"),
          things=("sorts names", "adds numbers", "counts words", "reads a table"),
          plan=("plan it", "write it", "test that it {}")),
    _Kind(domain="program", intent="change", agent="editor", name="code_editor",
          asks=("rename {}", "make {} faster", "remove {} from the code"),
          things=("the parser", "the cache", "the old class", "the loop"),
          plan=("open {}", "change it", "run the tests")),
    _Kind(domain="world", intent="look-up", agent="search", name="researcher",
          asks=("what is {}", "tell me about {}", "find articles on {}"),
          things=("a comet", "the tide", "a guild", "photosynthesis"),
          plan=("search {}", "read", "sum up")),
    _Kind(domain="office", intent="send", agent="mail", name="correspondent",
          asks=("write to {} that i am late", "answer {}", "thank {} for the book"),
          things=("anna", "the bank", "my landlord", "our team"),
          plan=("draft to {}", "check", "send")),
    _Kind(domain="office", intent="meet", agent="calendar", name="scheduler",
          asks=("meet {} on monday", "when is {} free", "move the talk with {}"),
          things=("anna", "the doctor", "the team", "my teacher"),
          plan=("look up {}", "find a time", "book it")),
    _Kind(domain="home", intent="tidy", agent="files", name="librarian",
          asks=("where is {}", "sort {}", "make a copy of {}"),
          things=("my tax form", "the holiday photos", "last year's notes"),
          plan=("find {}", "do it", "report")),
)  # fmt: skip


def compose(rng: Random) -> str:
    kind = rng.choice(_KINDS)
    thing = rng.choice(kind.things)
    query = rng.choice(kind.asks).format(thing)
    if rng.random() < 0.5:
        query = rng.choice(("please ", "hello, ", "quick: ", "once more: ")) + query
    plan = "; ".join(step.format(thing) for step in kind.plan)
    return (
        f"[route][domain:{kind.domain}][intent:{kind.intent}][agent:{kind.agent}]<query>{query}</query>"
        f"<plan>{plan}</plan><final_agent>{kind.name}</final_agent>"
    )
