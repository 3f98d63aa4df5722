"""The error tree: stable codes and exit codes, and errors that cross the wire as they are."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov import errors
from ssmprov.errors import (
    BY_CODE,
    BadRequest,
    Busy,
    Cancelled,
    Conflict,
    NotFound,
    Problem,
    SsmprovError,
    Unreachable,
    Unsupported,
    error_of,
    nearest,
    problem_of,
)
from ssmprov.wire import WireError

CODES = {
    "internal": (1, False), "busy": (1, True), "not_found": (4, False), "conflict": (5, False),
    "wrong_model": (1, False), "corrupt": (1, False), "bad_request": (1, False), "unsupported": (1, False),
    "worker_lost": (1, True), "timeout": (1, True), "cancelled": (130, False), "unavailable": (1, True),
    "unreachable": (3, True), "no_space": (1, True), "refused": (1, False),
}  # fmt: skip
details = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers(-(2**40), 2**40) | st.text(max_size=5), max_size=3
)


def cross(error: BaseException, worker: str = "") -> SsmprovError:
    """The error as it arrives on the other side of a wire."""
    raw = msgspec.msgpack.encode(problem_of(error, worker=worker))
    return error_of(msgspec.msgpack.decode(raw, type=Problem))


def test_codes_exit_codes_and_retries_are_stable() -> None:
    assert {code: (cls.exit_code, cls.retry) for code, cls in BY_CODE.items()} == CODES


def test_the_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"(\w+) +([a-z_]+)  ", errors.__doc__))
    assert {name: code for name, code in drawn.items() if name[0].isupper()} == {
        cls.__name__: code for code, cls in BY_CODE.items()
    }
    assert issubclass(Unsupported, BadRequest)
    assert issubclass(Unreachable, errors.Unavailable)
    assert issubclass(WireError, BadRequest)


@given(st.sampled_from(sorted(BY_CODE)), st.text(max_size=20), st.integers(0, 10**6), st.text(max_size=8), details)
def test_an_error_crosses_the_wire_as_it_is(
    code: str, text: str, retry: int, worker: str, more: dict[str, object]
) -> None:
    error = BY_CODE[code](text, retry_ms=retry, worker=worker)
    error.details = more
    there = cross(error, "elsewhere/0")
    assert type(there) is type(error)
    assert (there.message, str(there), there.retry_ms, there.details) == (text, text, retry, more)
    assert there.worker == (worker or "elsewhere/0")


def test_details_are_given_by_name() -> None:
    assert cross(Conflict("moved", head="ab12")).details == {"head": "ab12"}


def test_an_unknown_code_becomes_the_base_with_the_code_kept() -> None:
    error = error_of(Problem("from_the_future", "news", details={"a": 1}))
    assert type(error) is SsmprovError
    assert error.message == "news"
    assert error.details == {"a": 1, "code": "from_the_future"}
    assert error.exit_code == 1


def test_details_of_a_problem_are_not_shared_with_its_error() -> None:
    problem = Problem("x", "y", details={"a": 1})
    error_of(problem).details["b"] = 2
    assert problem.details == {"a": 1}


def test_an_error_outside_the_tree_is_internal_and_keeps_its_traceback() -> None:
    def fault() -> None:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ZeroDivisionError) as caught:
        fault()
    there = cross(caught.value, "m/0")
    assert there.code == "internal"
    assert "ZeroDivisionError: by nothing" in there.message
    assert "in fault" in there.remote_traceback
    assert there.worker == "m/0"
    again = cross(there)
    assert again.remote_traceback == there.remote_traceback
    assert again.worker == "m/0"


def test_a_huge_error_still_fits_into_a_header() -> None:
    problem = problem_of(ValueError("é" * 100_000))
    assert len(msgspec.msgpack.encode(problem)) < 60 * 1024


def test_the_nearest_word_is_offered() -> None:
    assert nearest("prim", ["primed", "coder"]) == "; did you mean primed?"
    assert nearest("zzz", ["b", "a"]) == "; use one of: a, b"
    assert nearest("zzz", [f"n{i}" for i in range(20)]).endswith(", ...")
    assert nearest("zzz", []) == ""


def test_some_errors_promise_that_a_retry_may_help() -> None:
    assert cross(Busy("later", retry_ms=50)).retry_ms == 50
    assert Busy.retry
    assert not NotFound.retry
    assert not Cancelled.retry
