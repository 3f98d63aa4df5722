"""The table of operations: what holds for each. Broker, workers, clients, roles and docs/protocol.md draw from it.

To add an operation, add its arguments and result to `ssmprov.ops`, a row to this table, and a handler in the worker;
CONTRIBUTING.md shows an example.

Locks: an operation takes the names that it reads shared and the names that it moves exclusive. It queues for all of
them at once, in order of arrival (`locks`), so no two operations deadlock or overtake each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec

from ssmprov import ops, wire
from ssmprov.errors import BadRequest
from ssmprov.keys import Role
from ssmprov.names import check_name, parse_ref

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R")

Room = Literal["slot", "probe", "state", "broker"]

NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[A, R]):
    """One operation: its types, who may ask for it, where it runs, and what it does to names and to the store.

    `context` says whether a request needs a context. `waived_by` names a flag of the arguments that makes a needed
    context optional. `lock` is how the context's name is held. `names` is the argument with the names that it moves,
    which are held exclusively; `required` is the argument that must not be empty.

    `effect` says whether it has a lasting effect: `none`, `always`, or `if_saved`, which means only with the argument
    `save`. `upkeep` changes the store, too, but is not finished if its client is gone. `role` is what a key needs, and
    `raised_by` gives the role that a non-empty argument needs instead.

    `room` is what it occupies in a worker: one of its `slot`s, a place for a `probe`, or a place in the queue of its
    store (`state`). The broker answers `broker` itself. Only the broker asks for an `internal` operation. `file` is the
    direction of a file that travels in CHUNKs: `out` to the client or `in` from it.

    With `resend`, the broker asks another worker if one is lost before it has sent any of its answer. With `warms`, the
    contexts that it pins are loaded on their workers. `check` is a further check of the arguments.
    """

    name: str
    args: type[A]
    result: type[R]
    context: Literal["needed", "optional", "unused"] = "unused"
    waived_by: str = ""
    lock: Literal["none", "shared", "exclusive"] = "none"
    names: str = ""
    required: str = ""
    effect: Literal["none", "if_saved", "always", "upkeep"] = "none"
    role: Role = Role.ADMIN
    raised_by: Mapping[str, Role] = field(default_factory=dict)
    room: Room = "state"
    internal: bool = False
    file: Literal["", "out", "in"] = ""
    resend: bool = True
    warms: bool = False
    check: Callable[[wire.Request, A], None] | None = None

    def moved(self, args: A) -> list[str]:
        """The names that it moves."""
        found = getattr(args, self.names) if self.names else []
        return [found] if isinstance(found, str) and found else list(found)

    def held(self, context: str, moved: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The names that it holds shared and exclusive. Raises BadRequest for a context that is not valid."""
        exclusive = frozenset(moved)
        name = parse_ref(context).name if context else ""
        if name and self.lock == "exclusive":
            return NO_NAMES, exclusive | {name}
        if name and self.lock == "shared" and name not in exclusive:
            return frozenset({name}), exclusive
        return NO_NAMES, exclusive

    def lasts(self, save: str) -> bool:
        """Whether it has a durable effect with this argument `save`, so it is finished even for a client that left."""
        return self.effect == "always" or (self.effect == "if_saved" and bool(save))


def _check_probe(_: wire.Request, args: ops.Probe) -> None:
    for what, word, choices in (("routing", args.routing, ops.ROUTINGS), ("where", args.where, ops.MASK_WHERES)):
        if word not in choices:
            raise BadRequest(f"{what} {word[:60]!r} is not valid: use {', '.join(choices)}")


def _check_move(request: wire.Request, _: ops.Move) -> None:
    if str(parse_ref(request.context)) != parse_ref(request.context).name:
        raise BadRequest(f"{request.context!r} is not a name, and only a name can be moved: fork it first")


def _check_settle(_: wire.Request, args: ops.Settle) -> None:
    if args.save:
        check_name(args.save, reserved=True)


TURN = Operation(
    name="turn",
    args=ops.Turn,
    result=ops.TurnResult,
    context="optional",
    lock="shared",
    names="save",
    effect="if_saved",
    role=Role.GENERATE,
    raised_by={"save": Role.WRITE},
    room="slot",
    resend=False,  # it may have committed: another worker settles that first
)
LS = Operation(name="ckpt.ls", args=ops.List, result=ops.Page, role=Role.READ)
SHOW = Operation(name="ckpt.show", args=ops.Show, result=ops.Shown, context="needed", role=Role.READ)
LOG = Operation(name="ckpt.log", args=ops.Log, result=ops.Steps, context="needed", role=Role.READ)
TREE = Operation(name="ckpt.tree", args=ops.Tree, result=ops.Steps, context="optional", role=Role.READ)
FORK = Operation(
    name="ckpt.fork",
    args=ops.Fork,
    result=ops.ForkResult,
    context="needed",
    lock="shared",
    names="targets",
    required="targets",
    effect="always",
    role=Role.WRITE,
    warms=True,
)
MOVE = Operation(
    name="ckpt.move",
    args=ops.Move,
    result=ops.Row,
    context="needed",
    lock="exclusive",
    effect="always",
    role=Role.WRITE,
    check=_check_move,
)
RM = Operation(
    name="ckpt.rm",
    args=ops.Remove,
    result=ops.Page,
    names="names",
    required="names",
    effect="always",
    role=Role.WRITE,
)
EXPORT = Operation(
    name="ckpt.export",
    args=ops.Export,
    result=ops.Exported,
    context="needed",
    lock="shared",
    role=Role.READ,
    file="out",
)
IMPORT = Operation(
    name="ckpt.import",
    args=ops.Import,
    result=ops.Row,
    names="save",
    required="save",
    effect="always",
    role=Role.WRITE,
    file="in",
    resend=False,  # half of its file is gone with the worker
)
VERIFY = Operation(name="ckpt.verify", args=ops.Verify, result=ops.Verified)
REPAIR = Operation(name="ckpt.repair", args=ops.Repair, result=ops.Verified, effect="upkeep")
GC = Operation(name="ckpt.gc", args=ops.Collect, result=ops.Collected, effect="upkeep")
REPLAY = Operation(
    name="ckpt.replay",
    args=ops.Replay,
    result=ops.Replayed,
    context="needed",
    waived_by="prime",
    lock="shared",
    names="save",
    effect="if_saved",
    role=Role.GENERATE,
    raised_by={"save": Role.WRITE},
    room="slot",
    resend=False,
)
PROBE = Operation(
    name="probe",
    args=ops.Probe,
    result=ops.Probed,
    context="optional",
    role=Role.READ,
    raised_by={"reply_tokens": Role.GENERATE},
    room="probe",
    check=_check_probe,
)
SETTINGS_LS = Operation(name="settings.ls", args=ops.SettingsLs, result=ops.SettingsNames, role=Role.READ)
SETTINGS_SHOW = Operation(name="settings.show", args=ops.SettingsShow, result=ops.SettingsSaved, role=Role.READ)
SETTINGS_SET = Operation(
    name="settings.set",
    args=ops.SettingsSet,
    result=ops.SettingsSaved,
    required="name",
    effect="always",
    role=Role.WRITE,
)
STATUS = Operation(name="status", args=ops.Status, result=ops.StatusResult, role=Role.READ, room="broker")
SETTLE = Operation(
    name="settle", args=ops.Settle, result=ops.Settled, effect="if_saved", internal=True, check=_check_settle
)
WARM = Operation(name="warm", args=ops.Warm, result=type(None), context="needed", internal=True, resend=False)

OPERATIONS: dict[str, Operation[Any, Any]] = {
    operation.name: operation
    for operation in (
        TURN,
        LS,
        SHOW,
        LOG,
        TREE,
        FORK,
        MOVE,
        RM,
        EXPORT,
        IMPORT,
        VERIFY,
        REPAIR,
        GC,
        REPLAY,
        PROBE,
        SETTINGS_LS,
        SETTINGS_SHOW,
        SETTINGS_SET,
        STATUS,
        SETTLE,
        WARM,
    )
}

UNKNOWN: Operation[Any, Any] = Operation(
    name="", args=msgspec.Struct, result=object, context="optional", lock="shared", effect="if_saved"
)
"""What is assumed of an operation that this version does not know, such as one that a newer worker still runs."""


def find(name: str) -> Operation[Any, Any]:
    """The operation of this name, or `UNKNOWN`."""
    return OPERATIONS.get(name, UNKNOWN)


def decode_args(request: wire.Request) -> Any:
    """The typed arguments of a request, with its names checked. Raises BadRequest."""
    operation = find(request.op)
    if operation is UNKNOWN:
        raise BadRequest(f"there is no operation {request.op!r} in this version")
    args: Any = wire.unpack(request.args, operation.args)
    if request.context:
        parse_ref(request.context)
    elif operation.context == "needed" and not getattr(args, operation.waived_by, False):
        raise BadRequest(f"{request.op} needs a context: name one")
    if operation.required and not (given := getattr(args, operation.required)):
        raise BadRequest(f"{request.op} needs {'a name' if isinstance(given, str) else 'at least one name'}")
    for name in operation.moved(args):
        check_name(name, reserved=True)
    if operation.check is not None:
        operation.check(request, args)
    return args


def locks(request: wire.Request, args: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a request holds: those that it reads (shared) and those that it moves (exclusive)."""
    operation = find(request.op)
    return operation.held(request.context, operation.moved(args))


def saves(request: wire.Request, args: Any) -> bool:
    """Whether the request has a durable effect, so that it is finished even when its client is gone."""
    return find(request.op).lasts(getattr(args, "save", ""))


def right(request: wire.Request, args: Any) -> Role:
    """The role that a request needs; `admin` for an operation that is not in the table."""
    operation = find(request.op)
    for argument, role in operation.raised_by.items():
        if getattr(args, argument):
            return role
    return operation.role
