"""What the command line does with a store at rest: no broker, no runtime, no torch.

`clients.cli_store` calls these by name when `--store` is given; they answer with the structs that a broker would.
"""

from __future__ import annotations

from pathlib import Path

from ssmprov.errors import BadRequest, NotFound
from ssmprov.names import parse_ref
from ssmprov.ops import Collected, Exported, Row, Verified
from workers.checkpoints import Store
from workers.kv_pickle import is_pickle


def verify(directory: Path) -> Verified:
    """Re-hash every object and every lineage of a store."""
    with Store(directory) as store:
        return store.verify()


def gc(directory: Path, *, dry_run: bool) -> Collected:
    """Collect what no name, history or hold of a store reaches."""
    with Store(directory) as store:
        return store.gc(dry_run=dry_run)


def export(directory: Path, reference: str, path: Path) -> Exported:
    """Write a context of a store, with its lineage, as one file."""
    with Store(directory) as store:
        return store.export(parse_ref(reference), path)


def import_(directory: Path, path: Path, name: str) -> Row:
    """Take an exported file into a store under `name`."""
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if is_pickle(path):
        raise BadRequest("this is the kv.pkl of an old runner: only a running model can take it, so leave --store out")
    with Store(directory) as store:
        done = store.import_(path, name)
    assert done.result is not None  # without a request id nothing is a duplicate
    return done.result
