"""One player: asks, looks at the answer, asks again what it is unsure of. No socket here: both faces drive it.

`play` yields steps and is sent their endings, so that the flow is written once for the blocking and the asyncio
client. An ending is an answer or a `Problem`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from soak.choices import Choices
from soak.history import Call, Order, Recorder
from ssmprov.errors import Problem

TRIES = 3
SURE = frozenset({"conflict", "not_found", "bad_request", "unsupported", "wrong_model", "corrupt", "no_space"})
"""Codes that say that nothing has changed."""

SAVING = frozenset({"ckpt.fork", "ckpt.move", "ckpt.rm", "ckpt.import"})


@dataclass(frozen=True, slots=True)
class Step:
    """Ask `order`; on a `fresh` connection or the player's own; `abandoned`: send it and leave without a word."""

    order: Order
    fresh: bool = False
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    result: dict[str, Any]
    text: str = ""
    error: Problem | None = None


def pause_s(ending: Ending) -> float:
    """How long to wait before anything else is asked: what the error says, as a client ought to."""
    return min(1.0, ending.error.retry_ms / 1000) if ending.error else 0.0


Play = Generator[Step, Ending, None]


def saves(order: Order) -> bool:
    return order.op in SAVING or bool(order.args.get("save"))


def sure(problem: Problem) -> bool:
    """Whether this error promises that the request has had no effect and will have none."""
    if problem.code in SURE:
        return True
    if problem.code == "worker_lost":
        return problem.details.get("committed") is False
    promised = ("the context is unchanged", "nothing was read and nothing has changed")
    return any(problem.message.endswith(words) for words in promised)


def play(choices: Choices, random: Random, leftovers: Iterable[Order] = ()) -> Play:
    """Ask for ever. `leftovers` are what a former life of this client was not answered."""
    for order in leftovers:
        yield from _until_sure(order, random)
    while True:
        order = choices.next()
        if saves(order) and order.how == "call" and random.random() < 0.06:
            yield Step(order, fresh=True, abandoned=True)
            ending = yield from _until_sure(order, random)
        else:
            ending = yield Step(order)
            if ending.error and saves(order) and not sure(ending.error) and random.random() < 0.9:
                ending = yield from _until_sure(order, random)
            elif not ending.error and saves(order) and order.how != "import" and random.random() < 0.05:
                yield Step(plain(order), fresh=True)  # answered already: the same answer must come again
        if not ending.error:
            choices.learn(order, ending.result)


def _until_sure(order: Order, random: Random) -> Generator[Step, Ending, Ending]:
    """Ask under the same id until the answer tells whether it took effect, but not for ever."""
    ending = Ending({})
    for _ in range(TRIES):
        ending = yield Step(plain(order), fresh=random.random() < 0.7)
        if ending.error is None or sure(ending.error):
            break
    return ending


def plain(order: Order) -> Order:
    """The same request, neither streamed slowly nor cancelled."""
    how = order.how if order.how == "import" else "call"
    args = {key: value for key, value in order.args.items() if key != "stream"}
    return Order(order.id, order.op, order.model, order.context, args, order.prompt, how, file=order.file)


def unanswered(calls: Iterable[Call]) -> list[Order]:
    """What of a former life's calls saves and never was answered."""
    by_id: dict[str, list[Call]] = {}
    for call in calls:
        by_id.setdefault(call.order.id, []).append(call)
    open_ = [same[-1].order for same in by_id.values() if not any(call.answered for call in same)]
    return [order for order in open_ if saves(order)]


class Scribe:
    """Gives calls their numbers and links their names, and records both ends of each call."""

    def __init__(self, recorder: Recorder, mark: str) -> None:
        self.recorder = recorder
        self._mark = mark
        self._calls = 0
        self._links = 0
        self._seen: set[str] = set()

    def link(self) -> str:
        self._links += 1
        return f"{self._mark}.{self._links}"

    def begin(self, link: str, order: Order) -> str:
        self._calls += 1
        n = f"{self._mark}.{self._calls}"
        self.recorder.begin(n, link, order, again=order.id in self._seen)
        self._seen.add(order.id)
        return n

    def end(self, n: str, ending: Ending) -> None:
        self.recorder.end(n, ending.result, ending.text, ending.error)
