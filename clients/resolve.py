"""Finds the model of a call: the one named, the default, or the only other one that has the context."""

from __future__ import annotations

from collections.abc import Sequence

from clients.calls import Call, Plan
from ssmprov import operations, ops, wire
from ssmprov.errors import BadRequest, NotFound, Unavailable
from ssmprov.names import split_model


def served(story: str = "") -> Plan[ops.StatusResult]:
    """The status of the broker and its workers, with the stories of requests whose hex id begins with `story`."""
    raw, _ = yield Call(operations.STATUS.name, ops.Status(story))
    return wire.unpack(raw, operations.STATUS.result)


def resolve(model: str, refs: Sequence[str], *, known: str = "") -> Plan[tuple[str, list[str]]]:
    """The model of a call, and its references without their `MODEL:`.

    `known` is the reference that must already exist. If the default model does not have it, another one may be meant.
    Raises BadRequest if different models are named or several fit, NotFound if no model has `known`, Unavailable if no
    model is served.
    """
    written = [split_model(ref) for ref in refs]
    named = {name for name, _ in written if name} | ({model} if model else set())
    bare = [ref for _, ref in written]
    if len(named) > 1:
        raise BadRequest(f"a call can use only one model, not {' and '.join(sorted(named))}")
    if named:
        return named.pop(), bare
    status = yield from served()
    if known and len({card.name for card in status.models} | {status.default} - {""}) > 1:
        return (yield from _model_with(known, status)), bare
    return default_of(status), bare


def default_of(status: ops.StatusResult) -> str:
    """The model that is meant if none is named. Raises BadRequest if there is none, Unavailable if none is served."""
    models = [card.name for card in status.models]
    if status.default or len(models) == 1:
        return status.default or models[0]
    if not models:
        raise Unavailable("no model is served yet: `ssmprov status` shows what runs", retry_ms=1000)
    raise BadRequest(f"several models are served, and none is the default: name one of them, {_listed(models)}")


def _model_with(ref: str, status: ops.StatusResult) -> Plan[str]:
    """The default model if it has `ref`, or the only other one that has it."""
    models = [card.name for card in status.models]
    owners, hints = [], []
    for model in filter(None, dict.fromkeys([status.default, *models])):
        try:
            yield Call(operations.SHOW.name, ops.Show(), model, ref)
        except NotFound as error:
            if error.details.get("nearest") or error.details.get("steps"):  # the model knows something like it
                hints.append(f"{model}: {error.message}")
            continue
        if model == status.default:
            return model
        owners.append(model)
    if not owners:
        raise NotFound("; ".join(hints) or f"no model has a context {ref!r}; {_listed(models)} are served")
    if len(owners) > 1:
        raise BadRequest(f"several models have {ref!r}: write {_listed([f'{model}:{ref}' for model in owners])}")
    return owners[0]


def _listed(words: Sequence[str]) -> str:
    return " or ".join(words[:8]) + (", ..." if len(words) > 8 else "")
