"""The core under loss, duplication, delay and restarts: the text is the text that was sent, and it ends once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core import LOST_S, SILENCE_S, TTL_GRACE_S, Action, Core, Send
from clients.exchange import TEXT_WINDOW, Progress, Result, Text, Want
from ssmprov import ops, wire
from ssmprov.errors import Busy, Cancelled, Conflict, Problem, TimedOut, Unavailable, Unreachable

BROKER = b"B" * 16


@dataclass
class Task:
    text: bytes
    attempt: int
    at: int
    credit: int
    seq: int = 0


@dataclass
class World:
    """A core, a network that misbehaves, and a broker whose worker writes `text` for whatever is asked."""

    text: bytes
    core: Core = field(default_factory=lambda: Core(agent="test"))
    now: float = 100.0
    to_broker: deque[list[bytes]] = field(default_factory=deque)
    to_client: deque[list[bytes]] = field(default_factory=deque)
    known: bool = False
    tasks: dict[bytes, Task] = field(default_factory=dict)
    answered: set[bytes] = field(default_factory=set)
    pieces: list[str] = field(default_factory=list)
    unread: int = 0
    results: list[Result] = field(default_factory=list)
    largest_unread: int = 0

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.to_broker.append(action.frames)
            elif isinstance(action.event, Text):
                self.pieces.append(action.event.text)
                self.unread += 1
                self.largest_unread = max(self.largest_unread, self.unread)
            elif isinstance(action.event, Result):
                self.results.append(action.event)

    def read(self, request_id: bytes) -> None:
        if self.unread:
            n, self.unread = self.unread, 0
            self.act(self.core.consumed(request_id, n))

    def connect(self) -> None:
        self.to_broker.clear()
        self.to_client.clear()
        self.known = False
        self.act(self.core.disconnected(self.now))
        self.act(self.core.connected(self.now))

    def answer(self, message: wire.Message, payloads: list[bytes] | None = None) -> None:
        self.to_client.append(wire.encode(message, payloads or []))

    def broker_hears(self) -> None:
        if not self.to_broker:
            return
        message, _ = wire.decode(self.to_broker.popleft())
        if isinstance(message, wire.Hello):
            self.known = True
            self.answer(wire.Hello(BROKER, "broker"))
        elif not self.known:
            self.answer(wire.Bye("say HELLO first", code="hello_first"))
        elif isinstance(message, wire.Request):
            self.tasks[message.id] = Task(self.text, message.attempt, message.have, message.credit)
            self.answer(wire.Accepted(message.id, message.attempt))
        elif isinstance(message, wire.Credit) and message.id in self.tasks:
            self.tasks[message.id].credit += message.n

    def worker_writes(self, request_id: bytes, size: int, *, overlap: int = 0) -> None:
        task = self.tasks.get(request_id)
        if task is None or task.credit <= 0:
            return
        offset = max(0, task.at - overlap)
        piece = task.text[offset : task.at + size]
        task.at = min(task.at + size, len(task.text))
        task.seq += 1
        task.credit -= 1
        self.answer(wire.Partial(request_id, task.seq, task.attempt, offset=offset), [piece])

    def worker_ends(self, request_id: bytes) -> None:
        task = self.tasks.get(request_id)
        if task is not None:
            result = wire.pack(ops.TurnResult(stop="end"))
            final = wire.Final(request_id, task.attempt, seq=task.seq, offset=task.at, result=result)
            self.answer(final, wire.split_text(task.text[task.at :]))

    def client_hears(self) -> None:
        if self.to_client:
            self.act(self.core.received(self.to_client.popleft(), self.now))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.act(self.core.tick(self.now))


def turn(ttl_ms: int = 600_000) -> wire.Request:
    return wire.Request(wire.new_id(), "turn", "m", args=wire.pack(ops.Turn(stream=True)), ttl_ms=ttl_ms)


def opened(text: bytes = b"abc") -> tuple[World, wire.Request]:
    """A world in which the client has said HELLO and asked for one turn."""
    world = World(text)
    world.act(world.core.connected(world.now))
    request = turn()
    world.act(world.core.open(request, [b"prompt"], "text", world.now))
    world.broker_hears()
    world.broker_hears()
    world.client_hears()
    world.client_hears()
    return world, request


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 9), st.integers(0, 5)),
    st.tuples(
        st.sampled_from(
            [
                "broker",
                "broker",
                "client",
                "client",
                "client",
                "read",
                "end",
                "lose",
                "twice",
                "late",
                "cut",
                "restart",
                "wait",
            ]
        )
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60), st.lists(STEPS, max_size=80))
def test_whatever_the_network_does_the_text_is_whole_and_ends_once(text: str, steps: list[tuple[object, ...]]) -> None:
    world, request = opened(text.encode())
    lost = 0
    for step in steps:
        match step:
            case ("write", int(size), int(overlap)):
                world.worker_writes(request.id, size, overlap=overlap)
            case ("broker",):
                world.broker_hears()
            case ("client",):
                world.client_hears()
            case ("read",):
                world.read(request.id)
            case ("end",):
                world.worker_ends(request.id)
            case ("lose",):
                partials = [frames for frames in world.to_client if frames[0] == b"SSP1PARTIAL"]
                if lost < 6 and partials:
                    world.to_client.remove(partials[0])
                    lost += 1
            case ("twice",):
                if world.to_client:
                    world.to_client.appendleft(world.to_client[0])
            case ("late",):
                if lost < 6 and world.to_client:
                    world.to_client.rotate(-1)
                    lost += 1
            case ("cut",):
                world.connect()
            case ("restart",):
                world.known = False
                world.tasks.clear()
            case ("wait",):
                world.passes(0.4)
    for _ in range(40):
        if world.results:
            break
        while world.to_broker:
            world.broker_hears()
        while world.to_client:
            world.client_hears()
        world.read(request.id)
        world.worker_ends(request.id)
        world.passes(SILENCE_S)
    while world.to_client:
        world.client_hears()
    assert [result.error for result in world.results] == [None]
    assert "".join(world.pieces) == text
    assert world.largest_unread <= TEXT_WINDOW + 1  # the FINAL's own piece needs no credit


@given(st.text(min_size=1, max_size=30), st.integers(1, 3))
def test_pieces_are_whole_characters_wherever_the_bytes_are_cut(text: str, size: int) -> None:
    world, request = opened(text.encode())
    world.tasks[request.id].credit = 10_000
    for _ in range(len(text.encode())):
        world.worker_writes(request.id, size)
        world.client_hears()
    world.worker_ends(request.id)
    world.client_hears()
    assert "".join(world.pieces) == text


def test_a_slow_reader_is_sent_no_more_than_its_window() -> None:
    world, request = opened(b"x" * 500)
    sent = 0
    while world.tasks[request.id].credit:
        world.worker_writes(request.id, 1)
        world.client_hears()
        while world.to_broker:
            world.broker_hears()
        sent += 1
    assert sent == TEXT_WINDOW
    world.read(request.id)
    world.broker_hears()
    assert world.tasks[request.id].credit == TEXT_WINDOW


def test_a_resend_goes_on_from_the_bytes_that_arrived() -> None:
    world, request = opened("äöü".encode())
    world.worker_writes(request.id, 3)
    world.client_hears()
    world.connect()
    kinds = [wire.decode(frames)[0] for frames in world.to_broker]
    again = kinds[1]
    assert isinstance(kinds[0], wire.Hello)
    assert isinstance(again, wire.Request)
    assert (again.id, again.attempt, again.have) == (request.id, 2, 3)
    assert again.credit == TEXT_WINDOW - world.unread


def test_a_lost_piece_is_asked_for_again() -> None:
    world, request = opened(b"abcdef")
    world.worker_writes(request.id, 2)
    world.worker_writes(request.id, 2)
    world.to_client.popleft()
    world.client_hears()
    message, _ = wire.decode(world.to_broker[-1])
    assert isinstance(message, wire.Request)
    assert (message.attempt, message.have) == (2, 0)
    assert world.pieces == []


def test_a_broker_that_does_not_know_the_client_is_greeted_and_asked_again() -> None:
    world, _request = opened()
    world.to_broker.clear()
    world.act(world.core.received(wire.encode(wire.Bye("say HELLO first", code="hello_first")), world.now))
    world.act(world.core.received(wire.encode(wire.Bye("say HELLO first", code="hello_first")), world.now))
    assert [frames[0] for frames in world.to_broker] == [b"SSP1HELLO", b"SSP1REQUEST"]


def test_a_broker_that_refuses_the_client_ends_its_requests() -> None:
    world, _request = opened()
    world.act(world.core.received(wire.encode(wire.Bye("full", Problem("busy", "full"))), world.now))
    assert isinstance(world.results[0].error, Busy)


def test_pieces_of_an_old_attempt_are_dropped() -> None:
    world, request = opened(b"abcdef")
    world.connect()
    world.broker_hears()
    world.broker_hears()
    world.act(world.core.received(wire.encode(wire.Partial(request.id, 1, attempt=1), [b"old"]), world.now))
    assert world.pieces == []


def test_the_answer_to_a_pulse_is_a_pulse() -> None:
    core = Core()
    [action] = core.received(wire.encode(wire.Pulse()), 1.0)
    assert isinstance(action, Send)
    assert action.frames[0] == b"SSP1PULSE"


def test_a_silent_broker_is_greeted_and_asked_again() -> None:
    world, _request = opened()
    world.to_broker.clear()
    world.passes(SILENCE_S)
    assert [frames[0] for frames in world.to_broker] == [b"SSP1HELLO"]
    world.broker_hears()
    world.client_hears()
    message, _ = wire.decode(world.to_broker[0])
    assert isinstance(message, wire.Request)
    assert message.attempt == 2


def test_without_a_broker_a_request_fails_after_the_timeout() -> None:
    world = World(b"", Core(timeout_s=3.0, endpoint="ipc://here"))
    world.act(world.core.open(turn(), [], "text", world.now))
    world.passes(2.9)
    assert not world.results
    world.passes(0.2)
    [result] = world.results
    assert isinstance(result.error, Unreachable)
    assert "ssmprov up" in str(result.error)
    assert "ipc://here" in str(result.error)


def test_a_request_that_was_accepted_waits_longer_for_its_broker() -> None:
    world, _ = opened()
    world.act(world.core.disconnected(world.now))
    world.passes(LOST_S - 1)
    assert not world.results
    world.passes(2)
    assert isinstance(world.results[0].error, Unreachable)
    assert "unknown" in str(world.results[0].error)


def test_a_request_times_out_a_little_after_its_time_to_live() -> None:
    world = World(b"")
    world.act(world.core.connected(world.now))
    request = turn(ttl_ms=1000)
    world.act(world.core.open(request, [], "text", world.now))
    for _ in range(3):
        world.act(world.core.received(wire.encode(wire.Pulse()), world.now))
        world.passes(0.9)
    assert not world.results
    world.passes(TTL_GRACE_S)
    assert isinstance(world.results[0].error, TimedOut)


def test_a_busy_broker_is_asked_again_with_the_same_id_within_the_patience() -> None:
    world = World(b"", Core(patience_s=1.0))
    world.act(world.core.connected(world.now))
    request = turn()
    world.act(world.core.open(request, [], "text", world.now))
    busy = Problem("busy", "full", retry_ms=400)
    attempts = []
    for attempt in range(1, 4):
        world.to_broker.clear()
        world.act(world.core.received(wire.encode(wire.Final(request.id, attempt, error=busy)), world.now))
        world.passes(0.45)
        attempts += [wire.decode(frames)[0] for frames in world.to_broker]
    assert [(message.id, message.attempt) for message in attempts if isinstance(message, wire.Request)] == [
        (request.id, 2),
        (request.id, 3),
    ]
    assert isinstance(world.results[0].error, Busy)
    assert world.results[0].error.retry_ms == 400


def test_a_remote_error_keeps_its_class_details_and_traceback() -> None:
    world, request = opened()
    problem = Problem("conflict", "moved", details={"head": "ab"}, worker="m/0", traceback="Traceback ...")
    world.act(world.core.received(wire.encode(wire.Final(request.id, error=problem)), world.now))
    error = world.results[0].error
    assert isinstance(error, Conflict)
    assert (error.details, error.worker, error.remote_traceback) == ({"head": "ab"}, "m/0", "Traceback ...")


def test_a_late_answer_to_an_ended_request_is_passed_over() -> None:
    world, request = opened()
    world.worker_ends(request.id)
    world.to_client.append(world.to_client[-1])
    world.client_hears()
    world.client_hears()
    assert len(world.results) == 1


def test_a_cancel_reaches_the_broker_and_is_repeated_after_a_reconnect() -> None:
    world, request = opened()
    world.act(world.core.cancel(request.id, "keep"))
    world.connect()
    modes = [message.mode for frames in world.to_broker if isinstance(message := wire.decode(frames)[0], wire.Cancel)]
    assert modes == ["keep"]


def test_a_request_that_nobody_has_seen_is_cancelled_at_once() -> None:
    world = World(b"")
    request = turn()
    world.act(world.core.open(request, [], "text", world.now))
    world.act(world.core.cancel(request.id, "drop"))
    assert isinstance(world.results[0].error, Cancelled)


def test_leaving_says_bye_and_ends_what_is_open() -> None:
    world, _ = opened()
    world.to_broker.clear()
    world.act(world.core.close())
    assert [frames[0] for frames in world.to_broker] == [b"SSP1BYE"]
    assert isinstance(world.results[0].error, Cancelled)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_bytes_that_are_no_message_change_nothing(frames: list[bytes]) -> None:
    world, _ = opened()
    world.act(world.core.received(frames, world.now))
    assert not world.results


def test_progress_of_the_prompt_is_told_and_costs_credit() -> None:
    world, request = opened()
    events = world.core.received(wire.encode(wire.Partial(request.id, 1, done=5, total=9)), world.now)
    assert [action.event for action in events if not isinstance(action, Send)] == [Progress(5, 9)]


def importing() -> tuple[World, wire.Request]:
    world = World(b"")
    world.act(world.core.connected(world.now))
    request = wire.Request(wire.new_id(), "ckpt.import", "m", args=wire.pack(ops.Import("x", 6)))
    world.act(world.core.open(request, [], "collect", world.now))
    return world, request


def test_an_import_is_supplied_piece_by_piece_under_credit() -> None:
    world, request = importing()
    [want] = world.core.received(wire.encode(wire.Credit(request.id, 2)), world.now)
    assert not isinstance(want, Send)
    assert want.event == Want(0)
    chunk, want = world.core.supply(request.id, 0, b"abc", False)
    assert isinstance(chunk, Send)
    message, payloads = wire.decode(chunk.frames)
    assert isinstance(message, wire.Chunk)
    assert (message.seq, message.offset, message.last, payloads) == (1, 0, False, [b"abc"])
    assert not isinstance(want, Send)
    assert want.event == Want(3)
    assert len(world.core.supply(request.id, 3, b"def", True)) == 1
    assert world.core.supply(request.id, 6, b"more", True) == []


def test_half_a_file_is_broken_off_when_the_connection_is_lost() -> None:
    world, request = importing()
    world.act(world.core.received(wire.encode(wire.Credit(request.id, 2)), world.now))
    world.act(world.core.supply(request.id, 0, b"abc", False))
    world.connect()
    assert [frames[0] for frames in world.to_broker] == [b"SSP1HELLO", b"SSP1CANCEL"]
    assert isinstance(world.results[0].error, Unavailable)


def test_a_whole_file_is_asked_for_again_when_the_connection_is_lost() -> None:
    world, request = importing()
    world.act(world.core.received(wire.encode(wire.Credit(request.id, 2)), world.now))
    world.act(world.core.supply(request.id, 0, b"abcdef", True))
    world.connect()
    assert [frames[0] for frames in world.to_broker] == [b"SSP1HELLO", b"SSP1REQUEST"]
    [want] = world.core.received(wire.encode(wire.Credit(request.id, 2)), world.now)
    assert not isinstance(want, Send)
    assert want.event == Want(0), "whoever takes it now has nothing of the file"
    [chunk] = world.core.supply(request.id, 0, b"abcdef", True)
    assert isinstance(chunk, Send)
    message, _ = wire.decode(chunk.frames)
    assert isinstance(message, wire.Chunk)
    assert (message.attempt, message.seq) == (2, 1)


def test_a_reply_that_is_no_utf8_is_an_error_and_not_half_a_text() -> None:
    world, request = opened(b"ok\xff\xfe")
    world.worker_ends(request.id)
    world.client_hears()
    assert isinstance(world.results[0].error, wire.WireError)


@pytest.mark.parametrize("mode", ["", "now", "KEEP"])
def test_an_unknown_way_to_cancel_is_refused(mode: str) -> None:
    with pytest.raises(wire.BadRequest, match="keep, drop or close"):
        Core().cancel(wire.new_id(), mode)
