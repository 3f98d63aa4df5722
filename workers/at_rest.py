"""What the command line does with a store that no worker serves: it needs no broker, no runtime, no torch.

`shell.store` calls these functions for `--store`. They return the structs that a broker would.
"""

from __future__ import annotations

import os
from pathlib import Path

from ssmprov import configuration
from ssmprov.errors import BadRequest, NotFound
from ssmprov.names import Ref, parse_ref, split_model
from ssmprov.ops import BackedUp, Collected, Exported, Row, Shown, Steps, Verified
from workers.checkpoints import Store
from workers.checkpoints.files import Files
from workers.checkpoints.reading import reading
from workers.checkpoints.salvage import mend_catalogue
from workers.kv_pickle import is_pickle
from workers.model_files import refuse_as_context

ALL = 1 << 40
"""More names than any store has."""


def verify(directory: Path) -> Verified:
    """Re-hash every object and every lineage of a store."""
    with reading(directory) as store:
        return store.verify()


def ls(directory: Path, prefix: str, *, reserved: bool) -> list[Row]:
    """The named contexts of a store whose names begin with `prefix`."""
    with reading(directory) as store:
        return store.ls(prefix, limit=ALL, reserved=reserved).rows


def show(directory: Path, reference: str) -> Shown:
    """One context of a store."""
    with reading(directory) as store:
        return store.show(_ref(store, reference))


def text(directory: Path, reference: str) -> bytes:
    """All the text that a context of a store has read."""
    with reading(directory) as store:
        ref, parts = _ref(store, reference), bytearray()
        while piece := store.text(ref, len(parts)):
            parts += piece
    return bytes(parts)


def log(directory: Path, reference: str, limit: int) -> Steps:
    """The steps of a context's lineage in a store, newest first."""
    with reading(directory) as store:
        return store.log(_ref(store, reference), limit)


def tree(directory: Path, reference: str) -> tuple[dict[str, Steps], dict[str, str]]:
    """The lineages of a store's model (or the one of a context), and the worker of each pinned MODEL:NAME."""
    with reading(directory) as store:
        found = {store.model: store.tree(_ref(store, reference) if reference else None)}
        return found, {f"{store.model}:{name}": worker for name, worker in store.pins().items()}


def repair(directory: Path, model: str) -> Verified:
    """Repair a store: its catalogue, then its objects. `model` is needed only if the catalogue lost its model."""
    repairs = mend_catalogue(directory, model, Files())
    with Store(directory, model) as store:
        found = store.repair()
    found.repairs = repairs + found.repairs
    return found


def backup(directory: Path | None, model: str, target: Path) -> BackedUp:
    """Copy a store, even while it is served: the one in `directory`, or that of a configured model."""
    with reading(directory or _configured(model)) as store:
        return store.backup(target.absolute())


def gc(directory: Path, *, dry_run: bool) -> Collected:
    """Delete what no name, history or hold of a store reaches."""
    with Store(directory) as store:
        return store.gc(dry_run=dry_run)


def export(directory: Path, reference: str, path: Path) -> Exported:
    """Write a context of a store, with its lineage, into one file."""
    with reading(directory) as store:
        return store.export(_ref(store, reference), path)


def import_(directory: Path, path: Path, name: str) -> Row:
    """Import an exported file into a store under `name`."""
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    refuse_as_context(path)
    if is_pickle(path):
        raise BadRequest(
            "this is the kv.pkl of an old runner: only a running model can import it, so leave --store out"
        )
    with Store(directory) as store:
        done = store.import_(path, name)
    assert done.result is not None  # without a request id there are no duplicates
    return done.result


def owners(configured: configuration.Configuration, name: str) -> list[str]:
    """The models whose stores have a context `name`, in the order of the configuration."""
    found = []
    for table in configured.tables.model:
        if (directory := configured.store(table)).is_dir():
            with Store(directory) as store:
                if store.head(name) is not None:
                    found.append(table.name)
    return found


def _ref(store: Store, reference: str) -> Ref:
    """A context as the user writes it, with or without the store's model. Raises NotFound for another model."""
    model, name = split_model(reference)
    if model not in ("", store.model):
        raise NotFound(f"{store.directory} has no contexts of {model!r}: its model is {store.model}")
    return parse_ref(name)


def _configured(model: str) -> Path:
    """The store of a model in the configuration that `ssmprov up` would serve."""
    named = os.environ.get("SSMPROV_CONFIG")
    configured = configuration.load_or_shipped(Path(named) if named else None)
    if not (model or configured.default):
        raise BadRequest(f"{configured.source} has no model: give the store's directory with --store DIR")
    return configured.store(configured.model(model or configured.default))
