"""Loads a checkpoint: its state, or its nearest stored ancestor's with the tokens to read again."""

from __future__ import annotations

from ssmprov.errors import Corrupt, Unsupported, WrongModel
from ssmprov.names import Ref
from workers.checkpoints import queries
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.entries import Entry
from workers.checkpoints.objects import Objects, decode
from workers.checkpoints.results import Loaded
from workers.context import Identity, Snapshot, empty


def load(catalogue: Catalogue, objects: Objects, ref: Ref, identity: Identity) -> Loaded:
    """Raises NotFound, WrongModel, Corrupt, Unsupported."""
    while True:
        with catalogue.view():
            step = catalogue.find(ref)
            base = queries.nearest_stored(catalogue, step)
            replay = queries.tokens_between(catalogue, base, step)
        if base is None:
            snapshot = _before_root(step, ref, identity)
            break
        try:
            data = objects.read(base.object)
        except Corrupt:
            now = catalogue.by_object(base.object)
            if now is not None and now.stored:
                raise
            continue  # a gc has just collected it, and the catalogue says from where to replay
        snapshot = decode(data, base.object, objects.path(base.object), identity)
        break
    return Loaded(
        object=step.object,
        snapshot=snapshot,
        replay=replay,
        parent=step.parent,
        seed=step.seed,
        tokens=step.tokens,
    )


def _before_root(step: Entry, ref: Ref, identity: Identity) -> Snapshot:
    """The empty context, from which a lineage without stored objects is replayed."""
    if step.opaque:
        raise Unsupported(f"{ref} began as an imported state that is gone and cannot be replayed")
    if step.fingerprint != identity.fingerprint:
        raise WrongModel(
            f"{ref} was made by the model {step.fingerprint[:12]}, but this model is {identity.fingerprint[:12]}: "
            "read its text into this one with `ssmprov ckpt replay THEIRS:NAME --to OURS --save NAME`",
            made_by=step.fingerprint,
            needed=identity.fingerprint,
        )
    return empty()
