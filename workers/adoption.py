"""Imports a state that this model did not make by reading. It becomes a root without tokens and text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ssmprov import wire
from ssmprov.errors import BadRequest, Unsupported, WrongModel
from ssmprov.names import Ref
from ssmprov.statefile import is_state_file, read_state, weights_id
from workers import kv_pickle
from workers.answers import Outcome
from workers.checkpoints import RequestKey, Store
from workers.context import WEIGHTS, Arrays, Read, Snapshot
from workers.model_files import refuse_as_context
from workers.runtimes.base import Adopted, Adopts, Runtime, Tunable

Adopt = Callable[[bytes, int], Adopted]


class Adoption:
    """How the store of one model imports states that another program wrote."""

    def __init__(self, store: Store, runtime: Runtime, name: str) -> None:
        """`name` is the name of the runtime."""
        self._store = store
        self._runtime = runtime
        self._adopt = adopter(name, runtime)

    def take(self, path: Path, model: str, name: str, request: RequestKey, *, trust: bool) -> bytes | None:
        """Import a file; return the answer of the request, or None if the file is not a state (perhaps an export)."""
        refuse_as_context(path)
        if trust:
            return take_over(self._store, self._adopt, path, name, request)
        if is_state_file(path):
            return take_in(self._store, self._runtime, path, name, request)
        refuse_untrusted(path, model, name)
        return None


def adopter(name: str, runtime: Runtime) -> Adopt:
    """The function with which this runtime imports a foreign state; if it cannot, the function raises Unsupported."""
    if isinstance(runtime, Adopts):
        return runtime.adopt

    def refuse(_blob: bytes, _tokens: int) -> Adopted:
        raise Unsupported(
            f"the {name} runtime cannot import a kv.pkl: import it under the GGUF model that wrote it (--model)"
        )

    return refuse


def take_in(store: Store, runtime: Runtime, path: Path, name: str, request: RequestKey) -> bytes:
    """Commit the state in a state file as an opaque root under a new name; return the answer of the request.

    Weights in the file are checked first, and are in the store before the state that names them.

    Raises BadRequest, Unsupported, WrongModel, Corrupt, Conflict, NoSpace.
    """
    state = read_state(path)
    arrays: Arrays = state.arrays
    origin = state.origin
    identity = runtime.identity
    ours = (identity.fingerprint, identity.architecture, identity.layout)
    if (origin.fingerprint, origin.architecture, origin.layout) != ours:
        raise WrongModel(
            f"this state belongs to another model: {origin.architecture} {origin.fingerprint[:12]} with the state "
            f"{origin.layout!r}; the model here is {identity.architecture} {identity.fingerprint[:12]} with "
            f"{identity.layout!r}",
            made_by=origin.fingerprint,
            needed=identity.fingerprint,
        )
    if not isinstance(runtime, Tunable):
        raise Unsupported(f"the runtime of {identity.architecture} models cannot import a state file")
    if arrays or not state.weights or origin.tokens:  # a file of weights alone has no state to check
        runtime.check(arrays)
    with ExitStack() as held:
        if state.weights:
            runtime.check_weights(state.weights)
            data, digest = weights_id(state.weights)
            held.enter_context(store.having_weights(digest.hex(), data))
            arrays = {**arrays, WEIGHTS: np.frombuffer(digest, np.uint8)}
        return _opaque_root(
            store,
            Snapshot(arrays=arrays, logits=None, window=np.zeros(0, np.int32), tokens=origin.tokens),
            name,
            request,
        )


def refuse_untrusted(path: Path, model: str, name: str) -> None:
    """Raise BadRequest for a pickle: it says why a pickle needs trust, and how to give it."""
    if kv_pickle.is_pickle(path):
        raise BadRequest(
            "this is the kv.pkl of an old runner. It does not say which model wrote it, and another model of the same "
            "shape would load it and write nonsense. If you know that this model wrote it, run "
            f"ssmprov ckpt import FILE {name} --model {model} --trust"
        )


def take_over(store: Store, adopt: Adopt, path: Path, name: str, request: RequestKey) -> bytes:
    """Commit the state in a `kv.pkl` as an opaque root under a new name; return the answer of the request.

    The context is marked `exact: false`: its bytes are as they were saved, but nothing proves which program wrote them,
    so it may not continue token for token.

    Raises BadRequest, Unsupported, Corrupt, Conflict, NoSpace.
    """
    if (former := store.outcome(request.id)) is not None:
        return former
    if not kv_pickle.is_pickle(path):
        raise BadRequest("only the kv.pkl of an old runner needs --trust: an exported file names its model")
    saved = kv_pickle.read(path)
    adopted = adopt(saved.blob, saved.tokens)
    snapshot = Snapshot(
        arrays=adopted.arrays, logits=adopted.logits, window=np.zeros(0, np.int32), tokens=adopted.tokens, exact=False
    )
    return _opaque_root(store, snapshot, name, request)


def _opaque_root(store: Store, snapshot: Snapshot, name: str, request: RequestKey) -> bytes:
    def answer(_object: str) -> bytes:
        return Outcome(result=wire.pack(store.row(Ref(name)))).encode()

    read = Read(np.zeros(0, np.int32), b"", kind="import")
    return store.commit(snapshot, read, name, expect=None, request=request, answer=answer).answer
