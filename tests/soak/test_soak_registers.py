"""The register checker accepts what one register can do, and sees each way in which a name can be none."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from soak import registers
from soak.registers import SOME, Operation, Value, check

NEVER = math.inf


def read(began: float, ended: float, value: Value) -> Operation:
    return Operation(began, ended, "read", value, what=f"read of {value}")


def write(began: float, ended: float, value: Value, *, sure: bool = True) -> Operation:
    return Operation(began, ended, "write", value, sure=sure, what=f"write of {value}")


def swap(began: float, ended: float, expected: Value, value: Value, *, sure: bool = True) -> Operation:
    return Operation(began, ended, "swap", value, expected, sure, f"swap of {expected} for {value}")


GOOD = {
    "nothing": [],
    "one after the other": [swap(0, 1, None, "a"), read(2, 3, "a"), swap(4, 5, "a", "b"), read(6, 7, "b")],
    "side by side, in either order": [swap(0, 9, "a", "b"), swap(0, 9, None, "a"), read(10, 11, "b")],
    "a read beside a write sees either": [write(0, 1, "a"), write(2, 9, "b"), read(3, 4, "a"), read(5, 6, "b")],
    "removed and made again": [swap(0, 1, None, "a"), swap(2, 3, "a", None), read(4, 5, None), swap(6, 7, None, "c")],
    "unanswered, and it happened late": [
        write(0, 1, "a"), swap(2, NEVER, "a", "b", sure=False), read(3, 4, "a"), read(8, 9, "b"),
    ],
    "unanswered, and it never happened": [write(0, 1, "a"), swap(2, NEVER, "a", "b", sure=False), read(8, 9, "a")],
    "it happened, nobody was told when": [write(0, 1, "a"), swap(2, NEVER, "a", "b"), read(3, 4, "a"), read(8, 9, "b")],
    "an unanswered fork of an unknown object": [
        write(0, 1, "a"), write(2, NEVER, SOME, sure=False), read(4, 5, "b"), swap(6, 7, "b", "c"),
    ],
    "a swap from whatever stood there": [write(0, 1, "a"), swap(2, 3, SOME, "b"), read(4, 5, "b")],
}  # fmt: skip

BAD = {
    "an acknowledged write is lost": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")],
    "a write is undone": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "b"), read(6, 7, "a")],
    "two swaps from one value": [write(0, 1, "a"), swap(2, 9, "a", "b"), swap(2, 9, "a", "c"), read(10, 11, "c")],
    "it was seen before it was written": [read(0, 1, "a"), write(2, 3, "a")],
    "two readers see two orders": [
        write(0, 9, "a"), write(0, 9, "b"), read(1, 2, "a"), read(3, 4, "b"), read(5, 6, "a"),
    ],
    "a name that was removed is there": [swap(0, 1, None, "a"), swap(2, 3, "a", None), read(4, 5, "a")],
    "a name that was made is not there": [swap(0, 1, None, "a"), read(2, 3, None)],
    "what was not answered happened twice": [
        write(0, 1, "a"), swap(2, NEVER, "a", "b", sure=False), read(3, 4, "b"), write(5, 6, "a"), read(7, 8, "b"),
    ],
    "it happened, and there is no moment for it": [write(0, 1, "a"), swap(2, NEVER, "x", "b"), read(8, 9, "a")],
    "an unknown object is none at all": [write(0, 1, "a"), write(2, 3, SOME), read(4, 5, None)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_one_register_can_do_is_accepted(name: str) -> None:
    assert check(GOOD[name]) == registers.Verdict()


@pytest.mark.parametrize("name", BAD)
def test_what_no_register_can_do_is_seen(name: str) -> None:
    verdict = check(BAD[name])
    assert verdict.decided
    assert verdict.why


def history(random: Random, count: int) -> list[Operation]:
    """A history of a real register: every operation takes effect at a moment within its interval."""
    value: Value = None
    made = []
    for number in range(count):
        began, ended = number - random.uniform(0, 2), number + random.uniform(0, 2)
        match random.randrange(3):
            case 0:
                made.append(read(began, ended, value))
            case 1:
                made.append(swap(began, ended, value, value := f"v{number}"))
            case _:
                made.append(write(began, NEVER if random.random() < 0.05 else ended, value := f"v{number}"))
    return made


@pytest.mark.parametrize("seed", range(30))
def test_long_histories_of_a_register_are_accepted_and_a_read_of_the_past_in_them_is_seen(seed: int) -> None:
    random = Random(seed)
    made = history(random, 300)
    assert check(made) == registers.Verdict()
    answered = [operation for operation in made[:250] if operation.kind == "swap"]
    old = random.choice(answered)
    stale = read(400, 401, old.value)
    last = [operation for operation in made if operation.kind != "read"][-1]
    assert last.value != old.value
    assert check([*(replace(operation, ended=min(operation.ended, 350)) for operation in made), stale]).why


def test_the_search_says_when_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "MAX_CONFIGURATIONS", 10)
    forks = [write(0, NEVER, f"v{number}", sure=False) for number in range(8)]
    assert check([*forks, write(1, 2, "a"), read(3, 4, "x")]).decided is False
