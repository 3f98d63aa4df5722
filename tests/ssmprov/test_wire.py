"""The wire: every message there and back, every bound, and no bytes that raise anything but WireError."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from ssmprov import operations, wire
from ssmprov.errors import Problem
from ssmprov.wire import KINDS, MAX_HEADER, MAX_PAYLOAD, MAX_PAYLOADS, MAX_TEXT, Message, WireError

ID = b"0123456789abcdef"
ids = st.binary(min_size=16, max_size=16)
counts = st.integers(0, 2**53 - 1)
credits_ = st.integers(0, 1_000_000)
short = st.text(max_size=32)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
raws = values.map(wire.pack)
problems = st.builds(
    Problem, short, short, retry_ms=counts, details=st.dictionaries(short, values, max_size=2), worker=short
)
cards = st.builds(wire.ModelCard, name=short, runtime=short, vocabulary=counts, state_bytes=counts, dtype=short)
running = st.builds(wire.Running, id=ids, attempt=counts, client=ids, op=short, context=short, save=short)
messages: dict[type[Message], st.SearchStrategy[Message]] = {
    wire.Hello: st.builds(wire.Hello, ids, short, st.lists(counts, max_size=3).map(tuple), counts, credits_, short),
    wire.Register: st.builds(
        wire.Register, worker=short, model=cards, store=short, slots=st.integers(1, 4096), pid=counts, started=counts,
        host=short, epoch=counts, stall_ms=counts, running=st.lists(running, max_size=2),
    ),
    wire.Request: st.builds(
        wire.Request, ids, short, short, short, st.integers(1, 10**6), st.integers(1, wire.MAX_TTL_MS), credits_,
        counts, counts, st.binary(max_size=16), raws,
    ),
    wire.Accepted: st.builds(wire.Accepted, ids, counts, counts),
    wire.Partial: st.builds(wire.Partial, ids, counts, counts, counts, counts, counts, counts, counts),
    wire.Final: st.builds(
        wire.Final, ids, counts, counts, counts, counts, st.none() | problems, raws, st.integers(0, 8),
        st.lists(short, max_size=3), st.dictionaries(short, short, max_size=2),
    ),
    wire.Cancel: st.builds(wire.Cancel, ids, short),
    wire.Credit: st.builds(wire.Credit, ids, credits_, counts, counts, counts),
    wire.Pulse: st.builds(
        wire.Pulse, progress=counts, running=counts, hot_bytes=counts, tokens=counts, prefill_tokens=counts
    ),
    wire.Chunk: st.builds(
        wire.Chunk, id=ids, seq=counts, attempt=counts, epoch=counts, offset=counts, last=st.booleans()
    ),
    wire.Bye: st.builds(wire.Bye, short, st.none() | problems),
}  # fmt: skip
any_message = st.sampled_from(list(messages)).flatmap(messages.__getitem__)


def frames(kind: str, header: Any, *payloads: bytes) -> list[bytes]:
    """Frames as a stranger writes them."""
    return [b"SSP1" + kind.encode(), header if isinstance(header, bytes) else msgpack.packb(header), *payloads]


def test_every_kind_is_drawn_and_tested() -> None:
    assert set(messages) == set(KINDS.values())
    assert {frame[4:].decode() for frame in KINDS} == {
        "HELLO", "REGISTER", "REQUEST", "ACCEPTED", "PARTIAL", "FINAL", "CANCEL", "CREDIT", "PULSE", "CHUNK", "BYE",
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(messages), ids=lambda kind: kind.__name__)
def test_a_message_arrives_as_it_was_sent(kind: type[Message]) -> None:
    @settings(max_examples=30, deadline=None)
    @given(messages[kind], st.lists(st.binary(max_size=10), max_size=8))
    def there_and_back(message: Message, payloads: list[bytes]) -> None:
        sent = wire.encode(message, payloads)
        assert sent[0] == b"SSP1" + kind.__name__.upper().encode()
        assert wire.decode(sent) == (message, payloads)

    there_and_back()


@settings(max_examples=100, deadline=None)
@given(any_message)
def test_another_library_reads_and_writes_the_same_headers(message: Message) -> None:
    """Fields are spelled by name; one at its default is left out."""
    kind, header = wire.encode(message)
    read = msgpack.unpackb(header, raw=False, strict_map_key=False)
    plain = msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=raw_value)
    assert set(read) <= set(plain)
    for name, value in plain.items():
        if name in ("args", "result"):
            default = wire.Request(ID, "x").args if name == "args" else wire.Final(ID).result
            value = msgpack.unpackb(bytes(getattr(message, name)), raw=False)
            default = msgpack.unpackb(bytes(default), raw=False)
            assert read.get(name, default) == value
        elif name in read:
            assert without_defaults(read[name], value)
    again, _ = wire.decode([kind, msgpack.packb(read)])
    assert again == message


def raw_value(value: Any) -> Any:
    assert isinstance(value, Raw)
    return bytes(value)


def without_defaults(read: Any, plain: Any) -> bool:
    """Whether a header's value is the plain one, but for nested fields that stand at their default."""
    if isinstance(read, dict) and isinstance(plain, dict):
        return set(read) <= set(plain) and all(without_defaults(read[key], plain[key]) for key in read)
    if isinstance(read, list) and isinstance(plain, list | tuple):
        return len(read) == len(plain) and all(map(without_defaults, read, plain))
    return bool(read == plain)


def test_unknown_keys_are_ignored_and_unknown_kinds_refused() -> None:
    message, _ = wire.decode(frames("CANCEL", {"id": ID, "mode": "keep", "colour": "red", "more": [1, {"x": None}]}))
    assert message == wire.Cancel(ID, "keep")
    for kind in ("NEWS", "", "hello", "HELLO2"):
        with pytest.raises(WireError, match="there is no message"):
            wire.decode(frames(kind, {}))


# -- bounds


def test_what_is_no_message_is_refused() -> None:
    for odd in (
        [],
        [b"SSP1HELLO"],
        [b"", b""],
        [b"SSP2HELLO", b"\x80"],
        [b"SSP", b"\x80"],
        [b"HTTP/1.1", b"\x80", b"x"],
    ):
        with pytest.raises(WireError, match="not an ssmprov message"):
            wire.decode(odd)


def test_the_bounds_of_frames_are_met_exactly() -> None:
    bye = wire.Bye("x")
    fits = [b"p" * MAX_PAYLOAD] * MAX_PAYLOADS
    assert wire.decode(wire.encode(bye, fits))[1] == fits
    for too_much, says in [
        ([b""] * (MAX_PAYLOADS + 1), "9 payloads"),
        ([b"", b"p" * (MAX_PAYLOAD + 1)], "payload has 1048577 bytes"),
    ]:
        with pytest.raises(WireError, match=says):
            wire.encode(bye, too_much)
        with pytest.raises(WireError, match=says):
            wire.decode([*wire.encode(bye), *too_much])


def test_the_bound_of_a_header_is_met_exactly() -> None:
    def padded(size: int) -> list[bytes]:
        bare = len(msgpack.packb({"reason": "x", "pad": b"\0" * 1000}))
        return frames("BYE", {"reason": "x", "pad": b"\0" * (1000 + size - bare)})

    assert len(padded(MAX_HEADER)[1]) == MAX_HEADER
    assert wire.decode(padded(MAX_HEADER))[0] == wire.Bye("x")
    with pytest.raises(WireError, match="the header has 65537 bytes"):
        wire.decode(padded(MAX_HEADER + 1))
    with pytest.raises(WireError, match="the header has"):
        wire.encode(wire.Bye(error=Problem("x", "y" * MAX_HEADER)))


def test_sizes_are_checked_before_anything_is_decoded() -> None:
    rubbish = b"\xc1" * (MAX_HEADER + 1)
    with pytest.raises(WireError, match="the header has"):
        wire.decode(frames("BYE", rubbish))
    with pytest.raises(WireError, match="payloads"):
        wire.decode(frames("BYE", b"\xc1", *[b""] * 9))


REQUEST = {"id": ID, "op": "turn"}


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("REQUEST", {**REQUEST, "id": ID[:15]}),
        ("REQUEST", {**REQUEST, "id": ID + b"x"}),
        ("REQUEST", {**REQUEST, "id": "0123456789abcdef"}),
        ("REQUEST", {"id": ID}),
        ("REQUEST", {"op": "turn"}),
        ("REQUEST", {**REQUEST, "op": "x" * 33}),
        ("REQUEST", {**REQUEST, "model": "x" * 257}),
        ("REQUEST", {**REQUEST, "context": "x" * 257}),
        ("REQUEST", {**REQUEST, "attempt": 0}),
        ("REQUEST", {**REQUEST, "attempt": 1_000_001}),
        ("REQUEST", {**REQUEST, "ttl_ms": 0}),
        ("REQUEST", {**REQUEST, "ttl_ms": wire.MAX_TTL_MS + 1}),
        ("REQUEST", {**REQUEST, "ttl_ms": 1.5}),
        ("REQUEST", {**REQUEST, "credit": -1}),
        ("REQUEST", {**REQUEST, "credit": 1_000_001}),
        ("REQUEST", {**REQUEST, "have": 2**53}),
        ("REQUEST", {**REQUEST, "have": 2**64 - 1}),
        ("REQUEST", {**REQUEST, "model": None}),
        ("HELLO", {"client": b"x"}),
        ("HELLO", {"client": ID, "agent": "x" * 101}),
        ("HELLO", {"client": ID, "versions": 1}),
        ("REGISTER", {"worker": "m/0", "model": {"name": "m"}, "slots": 0}),
        ("REGISTER", {"worker": "m/0", "model": {"name": "m"}, "slots": 4097}),
        ("REGISTER", {"worker": "m/0", "model": {"name": "m"}, "store": "x" * 65}),
        ("REGISTER", {"worker": "m/0", "model": {"name": "m" * 257}}),
        ("REGISTER", {"worker": "m/0"}),
        ("FINAL", {"id": ID, "result_frames": 9}),
        ("FINAL", {"id": ID, "result_frames": -1}),
        ("FINAL", {"id": ID, "hot": ["x" * 257]}),
        ("FINAL", {"id": ID, "error": {"code": "x"}}),
        ("BYE", {"reason": "x" * 1001}),
        ("PULSE", {"progress": -1}),
        ("CHUNK", {"id": ID}),
        ("CREDIT", {"id": ID, "n": 1_000_001}),
        ("CANCEL", {}),
        ("CANCEL", [ID]),
        ("CANCEL", None),
        ("CANCEL", b""),
        ("CANCEL", b"\xc1"),
        ("CANCEL", msgpack.packb({"id": ID}) + b"\x00"),
        ("CANCEL", msgpack.packb({"id": ID})[:-1]),
        ("BYE", b"\x81\xa6reason\xa1\xff"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_with_its_kind(kind: str, header: Any) -> None:
    with pytest.raises(WireError, match=f"the header of {kind} is wrong"):
        wire.decode(frames(kind, header))


# -- hostile bytes

DETAILS = b"\x81\xa5error\x83\xa4code\xa1x\xa7message\xa1y\xa7details\x81\xa1a"
HUGE = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
]


@pytest.mark.parametrize("place", [b"\x81\xa3hot", b"\x81\xa6result", b"\x81\xa1z", DETAILS])
def test_deep_nesting_and_huge_lengths_are_refused(place: bytes) -> None:
    for nest in (b"\x91", b"\x81\xa1a", b"\x81\x91"):
        with pytest.raises(WireError):
            wire.decode(frames("FINAL", place + nest * (60_000 // len(nest))))
    for size in HUGE:
        with pytest.raises(WireError):
            wire.decode(frames("FINAL", place + size))


@pytest.mark.parametrize("odd", [b"\x81\x80\x01", b"\x81\x91\x80\x01", b"\xd7\xff" + b"\xff" * 8, b"\xc7\x03\xffabc"])
def test_values_that_python_cannot_hold_are_refused(odd: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(frames("BYE", DETAILS + odd))


def decodes(raw: list[bytes]) -> None:
    """Nothing but a message or a WireError comes of any frames."""
    try:
        message, payloads = wire.decode(raw)
    except WireError:
        return
    assert isinstance(message, Message)
    assert payloads == raw[2:]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from(sorted(KINDS)) | st.just(b""))
def test_random_frames_never_raise_anything_else(raw: list[bytes], kind: bytes) -> None:
    decodes(raw)
    decodes([kind, *raw])


@settings(max_examples=300, deadline=None)
@given(any_message, st.data())
def test_damaged_headers_never_raise_anything_else(message: Message, data: st.DataObject) -> None:
    kind, header = wire.encode(message)
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    decodes([kind, bytes(damaged)])
    decodes([kind, bytes(damaged[:cut])])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(operations.OPERATIONS)))
def test_random_arguments_never_raise_anything_else(raw: bytes, op: str) -> None:
    try:
        wire.unpack(raw, operations.OPERATIONS[op].args)
    except WireError:
        return


# -- results and texts


def test_a_small_result_rides_in_the_header_and_its_text_behind() -> None:
    final, payloads = wire.final(wire.Final(ID), {"a": 1}, b"text")
    assert payloads == [b"text"]
    raw, text = wire.take_result(*through(final, payloads))
    assert wire.unpack(raw, dict[str, int]) == {"a": 1}
    assert text == b"text"


@pytest.mark.parametrize("size", [wire.MAX_RESULT - 10, wire.MAX_RESULT + 1, 3 * MAX_PAYLOAD])
@pytest.mark.parametrize("text", [b"", b"t", b"t" * (2 * MAX_PAYLOAD + 1)])
def test_a_large_result_fills_payloads_of_its_own(size: int, text: bytes) -> None:
    final, payloads = wire.final(wire.Final(ID), "r" * size, text)
    assert (final.result_frames > 0) == (size > wire.MAX_RESULT)
    raw, rest = wire.take_result(*through(final, payloads))
    assert wire.unpack(raw, str) == "r" * size
    assert rest == text


def through(final: wire.Final, payloads: list[bytes]) -> tuple[wire.Final, list[bytes]]:
    message, arrived = wire.decode(wire.encode(final, payloads))
    assert isinstance(message, wire.Final)
    return message, arrived


def test_what_does_not_fit_into_one_message_says_so() -> None:
    with pytest.raises(WireError, match="smaller page"):
        wire.final(wire.Final(ID), "r" * (4 * MAX_PAYLOAD), b"t" * (5 * MAX_PAYLOAD))
    with pytest.raises(WireError, match="8 MiB"):
        wire.split_text(b"t" * (MAX_TEXT + 1))


def test_a_text_is_split_and_joined() -> None:
    assert wire.split_text(b"") == []
    assert [len(part) for part in wire.split_text(b"t" * MAX_TEXT)] == [MAX_PAYLOAD] * MAX_PAYLOADS
    assert [len(part) for part in wire.split_text(b"t" * (MAX_PAYLOAD + 1))] == [MAX_PAYLOAD, 1]


def test_ids_do_not_repeat() -> None:
    made = {wire.new_id() for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {16}
