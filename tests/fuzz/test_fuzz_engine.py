"""The fuzzer itself: it would find a fault, makes it small, and does the same again with the same seed."""

from __future__ import annotations

import time
from random import Random

import msgpack
import msgspec
import pytest

from fuzz import engine, frames
from fuzz.engine import Fuzzer, Target, outcome_of, smaller
from fuzz.mutate import mutate
from fuzz.packed import items_of, mutate_packed
from fuzz.targets.messages import MESSAGES
from ssmprov import wire


class Wrong(Exception):
    """What the decoders below may raise."""


def careless(data: bytes) -> None:
    """Believes the number in the third byte."""
    if data[:2] != b"OK":
        raise Wrong("no magic")
    bytes(10)[data[2]]


CARELESS = Target("careless", careless, lambda: [b"OK\x05abcdef"], (Wrong,))


def test_a_fault_is_found_and_made_small() -> None:
    fuzzer = Fuzzer(CARELESS, seed=1)
    fuzzer.run(3000)
    found = {finding.what: finding for finding in fuzzer.tally.findings.values()}
    assert set(found) == {"IndexError in careless: bytes(10)[data[2]]"}
    (finding,) = found.values()
    small = smaller(CARELESS, finding)
    assert len(small.data) <= 3
    assert outcome_of(CARELESS, small.data)[1] is not None


def test_the_same_seed_does_the_same() -> None:
    tallies = []
    for seed in (5, 5, 6):
        fuzzer = Fuzzer(CARELESS, seed)
        fuzzer.run(500)
        tallies.append(fuzzer.tally.outcomes)
    assert tallies[0] == tallies[1]
    assert tallies[0] != tallies[2]


def test_a_slow_run_is_found() -> None:
    def slow(data: bytes) -> None:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass

    fuzzer = Fuzzer(Target("slow", slow, lambda: [b"x"], (), slow_s=0.02), seed=1)
    fuzzer.run(1)
    (finding,) = fuzzer.tally.findings.values()
    assert finding.what.startswith("slow: 0.")


def test_a_run_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(data: bytes) -> None:
        while True:
            pass

    monkeypatch.setattr(engine, "HANG_S", 1)
    fuzzer = Fuzzer(Target("endless", endless, lambda: [b"x"], ()), seed=1)
    fuzzer.run(1)
    (finding,) = fuzzer.tally.findings.values()
    assert finding.what.startswith("Hang")


def test_a_run_that_takes_too_much_memory_is_found() -> None:
    def large(data: bytes) -> None:
        bytearray(4 * engine.MEMORY)

    fuzzer = Fuzzer(Target("large", large, lambda: [b"x"], ()), seed=1)
    fuzzer.run(1)
    (finding,) = fuzzer.tally.findings.values()
    assert finding.what.startswith("MemoryError")


def test_the_items_of_messagepack_are_found() -> None:
    value = {"a": [1, -1, 300, 2**40, -(2**40), 0.5, None, True], "b": b"x" * 300, "c": "y" * 70, "d": {"e": []}}
    data = msgpack.packb(value)
    items = items_of(data)
    assert len(items) == 19
    for item in items:
        assert (
            msgspec.msgpack.encode(msgspec.msgpack.decode(data[item.start : item.end])) == data[item.start : item.end]
        )


def test_many_mutations_of_messagepack_are_messagepack() -> None:
    random = Random(3)
    data = msgpack.packb({"id": b"i" * 16, "op": "turn", "args": {"save": "a", "values": {"temp": 0.5}}})
    read = 0
    for _ in range(2000):
        try:
            msgspec.msgpack.decode(mutate_packed(random, data, [data]))
            read += 1
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    assert read > 800


def test_joined_frames_come_apart_again() -> None:
    for message, payloads in MESSAGES:
        parts = list(map(bytes, wire.encode(message, payloads)))
        assert frames.split(frames.join(parts)) == parts
    assert frames.split(b"\xff\xff\xff\xffab") == [b"ab"]


def test_mutations_stay_within_their_size() -> None:
    random = Random(4)
    data = b"abc"
    for _ in range(3000):
        data = mutate(random, data, [data])
        assert len(data) <= 1 << 18
