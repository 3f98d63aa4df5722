"""The wire: whole multipart messages, the arguments of every operation, and what a client reads of answers."""

from __future__ import annotations

import msgspec

from fuzz.engine import Target
from fuzz.frames import mutate_frames, split
from fuzz.targets.messages import seeds
from ssmprov import operations, ops, wire
from ssmprov.errors import BadRequest, error_of, problem_of

RESULT_KINDS = (
    ops.TurnResult, ops.Page, ops.Shown, ops.Steps, ops.ForkResult, ops.Settled, ops.StatusResult, ops.Verified,
    ops.Collected, ops.Replayed, ops.Exported, ops.SettingsNames, ops.SettingsSaved,
)  # fmt: skip


def frames(data: bytes) -> None:
    """What is decoded can be encoded, and is then decoded to the same; its arguments are checked or refused."""
    message, payloads = wire.decode(split(data))
    again, same = wire.decode(wire.encode(message, payloads))
    assert _plain(again) == _plain(message)
    assert same == payloads
    if isinstance(message, wire.Request):
        args = operations.decode_args(message)
        shared, exclusive = operations.locks(message, args)
        assert not shared & exclusive
        operations.saves(message, args)
    elif isinstance(message, wire.Final):
        _final(message, payloads)
    elif isinstance(message, wire.Register) and payloads:
        wire.unpack(b"".join(payloads), dict[str, str])


def _final(final: wire.Final, payloads: list[bytes]) -> None:
    if final.error is not None:
        problem = problem_of(error_of(final.error))
        assert wire.decode(wire.encode(wire.Bye(error=problem)))
    raw, _ = wire.take_result(final, payloads)
    errors = []
    for kind in RESULT_KINDS:
        try:
            wire.unpack(raw, kind)
            return
        except wire.WireError as error:
            errors.append(error)
    raise errors[-1]


def _plain(message: wire.Message) -> bytes:
    """In bytes, since a NaN is not equal to itself."""
    return msgspec.msgpack.encode(message)


TARGETS = [Target("frames", frames, seeds, (BadRequest,), mutate_frames, runs=20_000)]
