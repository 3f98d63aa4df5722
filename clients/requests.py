"""What a client's methods ask for and how they read the answers, written once for both clients as plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, TypeVar

import msgspec

from clients.calls import TTL_S, Call, Plan, encode_text
from clients.resolve import default_of, resolve, served
from ssmprov import operations, ops, wire
from ssmprov.errors import NotFound
from ssmprov.names import parse_worker, worker_name
from ssmprov.operations import Operation
from ssmprov.probes import Look, check_text
from ssmprov.transcript import FENCE

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R")


class TurnOptions(TypedDict, total=False):
    """The options of a turn, besides its prompt. All are optional; `ops.Turn` explains them.

    `context` and `save` may be written `MODEL:NAME`. `ttl_s` is the time limit in seconds.
    `request_id` is 16 bytes: a saving turn that is sent again with the same id takes effect only once.
    """

    model: str
    context: str
    save: str
    if_head: str | None
    create: bool
    settings: str
    values: Mapping[str, float] | None
    seed: int | None
    max_tokens: int | None
    max_chars: int | None
    headers: bool
    ttl_s: float
    request_id: bytes | None


class Reply(msgspec.Struct, frozen=True):
    """A finished turn: its whole text, how it ended, and the 16-byte id of its request."""

    text: str
    result: ops.TurnResult
    id: bytes

    @property
    def answer(self) -> str:
        """The text without the fence that closes its turn."""
        return self.text.removesuffix(FENCE)


class Seen(msgspec.Struct, frozen=True):
    """What a probe saw, and what the model would write after the text, as probed and as read plainly.

    Bytes of a reply that are not text are escaped, because a probe may end in the middle of a character.
    """

    result: ops.Probed
    reply: str
    plain_reply: str


def turn(
    prompt: str,
    *,
    stream: bool,
    model: str = "",
    context: str = "",
    save: str = "",
    if_head: str | None = None,
    create: bool = False,
    settings: str = "",
    values: Mapping[str, float] | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    max_chars: int | None = None,
    headers: bool = False,
    ttl_s: float = TTL_S,
    request_id: bytes | None = None,
) -> Plan[Call]:
    """The call for a turn, after finding its model."""
    model, (context, save) = yield from resolve(model, [context, save], known="" if create else context)
    args = ops.Turn(
        save=save,
        if_head=if_head,
        create=create,
        settings=settings,
        values=dict(values or {}),
        seed=seed,
        max_tokens=max_tokens,
        max_chars=max_chars,
        stream=stream,
        headers=headers,
    )
    return Call(
        operations.TURN.name,
        args,
        model,
        context,
        payload=encode_text(prompt),
        kind="text" if stream else "collect",
        ttl_s=ttl_s,
        id=request_id or wire.new_id(),
    )


def reply_of(call: Call, raw: msgspec.Raw, text: str) -> Reply:
    return Reply(text, wire.unpack(raw, ops.TurnResult), call.id)


# -- the methods of both faces, with their signatures


def ask(operation: Operation[A, R], args: A, ref: str = "", *, model: str = "") -> Plan[R]:
    """Any operation of `ssmprov.operations` on a model, and on one of its contexts if `ref` names one."""
    model, (ref,) = yield from resolve(model, [ref], known=ref)
    raw, _ = yield Call(operation.name, args, model, ref)
    return wire.unpack(raw, operation.result)


def status(*, story: str = "") -> Plan[ops.StatusResult]:
    """The broker, its models and its workers; with `story`, the last steps of requests whose hex id begins with it."""
    return (yield from served(story))


def models() -> Plan[list[ops.ModelStatus]]:
    """The models that are served."""
    return (yield from served()).models


def default_model() -> Plan[str]:
    """The model that is meant if none is named."""
    return default_of((yield from served()))


def ls(
    prefix: str = "", *, model: str = "", after: str = "", limit: int = 200, reserved: bool = False
) -> Plan[ops.Page]:
    """One page of a model's names, starting after the name `after`."""
    return (yield from ask(operations.LS, ops.List(prefix, after, limit, reserved), model=model))


def show(ref: str, *, model: str = "") -> Plan[ops.Shown]:
    """One checkpoint: what made it, what it holds and which names it has."""
    return (yield from ask(operations.SHOW, ops.Show(), ref, model=model))


def text(ref: str, *, model: str = "", since_root: bool = False) -> Plan[str]:
    """The exact text that a context has read, from its root.

    `since_root` also allows an opaque root, whose own text is unknown, and returns what followed it.
    """
    model, (ref,) = yield from resolve(model, [ref], known=ref)
    parts = bytearray()
    while True:
        raw, part = yield Call(
            operations.SHOW.name, ops.Show(text=True, offset=len(parts), since_root=since_root), model, ref
        )
        shown = wire.unpack(raw, ops.Shown)
        parts += part
        if not part or len(parts) >= shown.row.text_bytes:
            return parts.decode("utf-8")
        ref = f"#{shown.row.object}"  # the name may move between two parts


def log(ref: str, *, model: str = "", limit: int = 50, before: str = "") -> Plan[ops.Steps]:
    """The steps of a lineage, newest first, from the one before the object `before`."""
    return (yield from ask(operations.LOG, ops.Log(limit, before), ref, model=model))


def tree(ref: str = "", *, model: str = "", limit: int = 400) -> Plan[ops.Steps]:
    """The forest of a model's contexts, or the tree of one."""
    return (yield from ask(operations.TREE, ops.Tree(limit), ref, model=model))


def fork(
    source: str,
    targets: Sequence[str],
    *,
    model: str = "",
    on: Sequence[str] = (),
    spread: bool = False,
    overwrite: bool = False,
    if_head: str | None = None,
    ttl_s: float = TTL_S,
) -> Plan[ops.ForkResult]:
    """Give a context more names, pinned to workers if `on` or `spread` say so.

    `overwrite` moves existing names. With `if_head` they must be at that object, or it raises Conflict.
    It waits at most `ttl_s` seconds for the turns of all these names.
    """
    model, (source, *names) = yield from resolve(model, [source, *targets], known=source)
    workers = [_worker(name, model) for name in on]
    raw, _ = yield Call(
        operations.FORK.name, ops.Fork(names, workers, spread, overwrite, if_head), model, source, ttl_s=ttl_s
    )
    return wire.unpack(raw, ops.ForkResult)


def move(name: str, worker: str = "", *, model: str = "") -> Plan[None]:
    """Pin a context to a worker and load it there; '' removes the pin."""
    model, (name,) = yield from resolve(model, [name], known=name)
    yield Call(operations.MOVE.name, ops.Move(_worker(worker, model) if worker else ""), model, name)


def rm(names: Sequence[str], *, model: str = "") -> Plan[None]:
    """Remove names. `gc` then deletes what nothing reaches any more."""
    model, bare = yield from resolve(model, names, known=names[0] if names else "")
    yield Call(operations.RM.name, ops.Remove(bare), model)


def verify(*, model: str = "") -> Plan[ops.Verified]:
    """Check a model's whole store by hashing it again."""
    return (yield from ask(operations.VERIFY, ops.Verify(), model=model))


def repair(*, model: str = "") -> Plan[ops.Verified]:
    """Repair what can be repaired in a model's store while it serves, then verify it."""
    return (yield from ask(operations.REPAIR, ops.Repair(), model=model))


def gc(*, model: str = "", dry_run: bool = False) -> Plan[ops.Collected]:
    """Delete what no name, history or pin reaches."""
    return (yield from ask(operations.GC, ops.Collect(dry_run), model=model))


def replay(ref: str = "", *, model: str = "", save: str = "", prime: str | None = None) -> Plan[ops.Replayed]:
    """Read a context's tokens again from its root, or the text `prime` into a new one."""
    model, (ref, save) = yield from resolve(model, [ref, save], known=ref)
    payload = b"" if prime is None else encode_text(prime)
    raw, _ = yield Call(operations.REPLAY.name, ops.Replay(save, prime is not None), model, ref, payload=payload)
    return wire.unpack(raw, ops.Replayed)


def probe(
    text: str,
    ref: str = "",
    *,
    model: str = "",
    look: Look | None = None,
    top: int = 5,
    reply_tokens: int = 0,
    or_empty: bool = False,
    ttl_s: float = TTL_S,
) -> Plan[Seen]:
    """How a model with addressed slots reads a text after a context ('' for the empty one). It changes nothing.

    `top` bounds the slots listed for each layer and the next tokens; `reply_tokens` are written after the text, the
    likeliest each time. `or_empty` takes a context that does not exist as empty. Raises Unsupported if the model
    has no such slots.
    """
    model, (ref,) = yield from resolve(model, [ref], known="" if or_empty else ref)
    payload = encode_text(text)
    check_text(len(payload))
    look = look or Look()
    args = ops.Probe(
        routing=look.routing,
        topk=look.topk,
        masked=list(look.masked),
        where=look.where,
        top=top,
        reply_tokens=reply_tokens,
    )
    try:
        raw, replies = yield Call(operations.PROBE.name, args, model, ref, payload=payload, ttl_s=ttl_s)
    except NotFound:
        if not (or_empty and ref):
            raise
        raw, replies = yield Call(operations.PROBE.name, args, model, payload=payload, ttl_s=ttl_s)
    result = wire.unpack(raw, ops.Probed)
    parts = replies[: result.reply_bytes], replies[result.reply_bytes :]
    return Seen(result, *(part.decode("utf-8", "backslashreplace") for part in parts))


def settings_ls(*, model: str = "") -> Plan[ops.SettingsNames]:
    """The sampling sets of a model."""
    return (yield from ask(operations.SETTINGS_LS, ops.SettingsLs(), model=model))


def settings_show(name: str = "", *, model: str = "") -> Plan[ops.SettingsSaved]:
    """A sampling set; '' is the model's default."""
    return (yield from ask(operations.SETTINGS_SHOW, ops.SettingsShow(name), model=model))


def settings_set(name: str, values: Mapping[str, float], *, base: str = "", model: str = "") -> Plan[ops.SettingsSaved]:
    """Write a sampling set: single values over the set `base`."""
    return (yield from ask(operations.SETTINGS_SET, ops.SettingsSet(name, base, dict(values)), model=model))


# -- calls whose events a face takes one by one


def export(ref: str, model: str) -> Plan[Call]:
    model, (ref,) = yield from resolve(model, [ref], known=ref)
    return Call(operations.EXPORT.name, ops.Export(), model, ref, kind="data")


def import_(name: str, model: str, size: int, sha256: str, trust: bool) -> Plan[Call]:
    model, (name,) = yield from resolve(model, [name])
    return Call(operations.IMPORT.name, ops.Import(name, size, sha256, trust), model)


def _worker(text: str, model: str) -> str:
    return worker_name(*parse_worker(text, model))
