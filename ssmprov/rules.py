"""What holds for each operation: the type of its arguments, the names that it holds, and the role that it needs.

Locks: an operation takes the names that it reads shared and the names that it moves exclusive, all of them
queued at once in order of arrival (`locks`), so that no two deadlock or overtake.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ssmprov import ops, wire
from ssmprov.errors import BadRequest
from ssmprov.keys import Role
from ssmprov.names import check_name, parse_ref

ARGS: dict[str, type[msgspec.Struct]] = {
    "turn": ops.Turn,
    "ckpt.ls": ops.List,
    "ckpt.show": ops.Show,
    "ckpt.log": ops.Log,
    "ckpt.tree": ops.Tree,
    "ckpt.fork": ops.Fork,
    "ckpt.move": ops.Move,
    "ckpt.rm": ops.Remove,
    "ckpt.export": ops.Export,
    "ckpt.import": ops.Import,
    "ckpt.verify": ops.Verify,
    "ckpt.repair": ops.Repair,
    "ckpt.gc": ops.Collect,
    "ckpt.replay": ops.Replay,
    "probe": ops.Probe,
    "settings.ls": ops.SettingsLs,
    "settings.show": ops.SettingsShow,
    "settings.set": ops.SettingsSet,
    "status": ops.Status,
    "settle": ops.Settle,
    "warm": ops.Warm,
}
INTERNAL = frozenset({"settle", "warm"})
NEEDS_CONTEXT = frozenset({"ckpt.show", "ckpt.log", "ckpt.fork", "ckpt.move", "ckpt.export", "ckpt.replay"})
SAVES = frozenset({"ckpt.fork", "ckpt.move", "ckpt.rm", "ckpt.import", "settings.set"})

READS = frozenset(
    {"status", "ckpt.ls", "ckpt.show", "ckpt.log", "ckpt.tree", "ckpt.export", "settings.ls", "settings.show", "probe"}
)
GENERATES = frozenset({"turn", "ckpt.replay"})

LOADING = (ops.Turn, ops.Fork, ops.Replay, ops.Export)
SAVING = (ops.Turn, ops.Import, ops.Replay)
NAMED = (ops.Import, ops.SettingsSet)
NO_NAMES: frozenset[str] = frozenset()


def decode_args(request: wire.Request) -> Any:
    """The typed arguments of a request, names checked. Raises BadRequest."""
    kind = ARGS.get(request.op)
    if kind is None:
        raise BadRequest(f"{request.op!r} is no operation of this version")
    args: Any = wire.unpack(request.args, kind)
    if request.context:
        parse_ref(request.context)
    elif request.op in NEEDS_CONTEXT and not (isinstance(args, ops.Replay) and args.prime):
        raise BadRequest(f"{request.op} needs a context: name one")
    for name in (*_targets(args), getattr(args, "save", "")):
        if name:
            check_name(name, reserved=True)
    if isinstance(args, (ops.Fork, ops.Remove)) and not _targets(args):
        raise BadRequest(f"{request.op} needs at least one name")
    if isinstance(args, NAMED) and not (args.save if isinstance(args, ops.Import) else args.name):
        raise BadRequest(f"{request.op} needs a name")
    if isinstance(args, ops.Probe):
        _check_choice("routing", args.routing, ops.ROUTINGS)
        _check_choice("where", args.where, ops.MASK_WHERES)
    if isinstance(args, ops.Move) and str(parse_ref(request.context)) != parse_ref(request.context).name:
        raise BadRequest(f"{request.context!r} is no name: only a name can be moved; fork it first")
    return args


def _check_choice(what: str, word: str, choices: tuple[str, ...]) -> None:
    if word not in choices:
        raise BadRequest(f"{what} {word[:60]!r}: a probe takes {', '.join(choices)}")


def _targets(args: Any) -> list[str]:
    if isinstance(args, ops.Fork):
        return args.targets
    if isinstance(args, ops.Remove):
        return args.names
    return []


def locks(request: wire.Request, args: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a request reads (shared) and moves (exclusive)."""
    exclusive = frozenset(_targets(args))
    if isinstance(args, SAVING) and args.save:
        exclusive |= {args.save}
    if request.context:
        name = parse_ref(request.context).name
        if isinstance(args, ops.Move):
            exclusive |= {name}
        elif isinstance(args, LOADING) and name and name not in exclusive:
            return frozenset({name}), exclusive
    return NO_NAMES, exclusive


def saves(request: wire.Request, args: Any) -> bool:
    """Whether the request has a durable effect, so that it is finished even when its client is gone."""
    return request.op in SAVES or bool(getattr(args, "save", ""))


def right(request: wire.Request, args: Any) -> Role:
    """The role that a request needs. What no table names is for `admin`, such as what works through the whole store."""
    if isinstance(args, ops.Probe) and args.reply_tokens:
        return Role.GENERATE
    if request.op in READS:
        return Role.READ
    if saves(request, args):
        return Role.WRITE
    return Role.GENERATE if request.op in GENERATES else Role.ADMIN
