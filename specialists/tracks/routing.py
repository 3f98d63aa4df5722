"""Rows of the track `routing`: a request in a sentence, the plan for it, and the agent that is to carry it out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class _Kind:
    """Requests of one agent: sentences with `{}` for the thing, the things, and the steps of the plan."""

    domain: str
    intent: str
    agent: str
    name: str
    asks: tuple[str, ...]
    things: tuple[str, ...]
    plan: tuple[str, ...]


_KINDS = (
    _Kind("linux", "debug", "terminal", "shell_operator",
          ("my {} is full", "the {} does not start", "why is the {} so slow"),
          ("disk", "printer", "network", "server", "screen"), ("look at {}", "find the cause", "mend {}")),
    _Kind("linux", "install", "terminal", "shell_operator",
          ("install {}", "set up {} for me", "i need {} on this machine"),
          ("python", "git", "ssh", "a compiler", "a database"), ("search {}", "install {}", "test {}")),
    _Kind("program", "write", "editor", "code_editor",
          ("write a function that {}", "a program that {}, please"),
          ("sorts names", "adds numbers", "counts words", "reads a table"), ("plan it", "write it", "test that it {}")),
    _Kind("program", "change", "editor", "code_editor",
          ("rename {}", "make {} faster", "remove {} from the code"),
          ("the parser", "the cache", "the old class", "the loop"), ("open {}", "change it", "run the tests")),
    _Kind("world", "look-up", "search", "researcher",
          ("what is {}", "tell me about {}", "find articles on {}"),
          ("a comet", "the tide", "a guild", "photosynthesis"), ("search {}", "read", "sum up")),
    _Kind("office", "send", "mail", "correspondent",
          ("write to {} that i am late", "answer {}", "thank {} for the book"),
          ("anna", "the bank", "my landlord", "our team"), ("draft to {}", "check", "send")),
    _Kind("office", "meet", "calendar", "scheduler",
          ("meet {} on monday", "when is {} free", "move the talk with {}"),
          ("anna", "the doctor", "the team", "my teacher"), ("look up {}", "find a time", "book it")),
    _Kind("home", "tidy", "files", "librarian",
          ("where is {}", "sort {}", "make a copy of {}"),
          ("my tax form", "the holiday photos", "last year's notes"), ("find {}", "do it", "report")),
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
