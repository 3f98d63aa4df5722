"""Export and import: a context with its lineage between a store and an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ssmprov.causes import explaining, shown
from ssmprov.errors import Conflict, Unsupported
from ssmprov.names import Ref
from ssmprov.ops import Exported
from workers.checkpoints.archive import Archive, ArchiveHeader, ArchiveObject, ArchiveStep, write_archive
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.entries import Entry
from workers.checkpoints.holds import Holds
from workers.checkpoints.objects import Objects, admit
from workers.checkpoints.queries import lineage_numbers, records
from workers.context import Identity


def export(catalogue: Catalogue, objects: Objects, model: str, ref: Ref, path: Path) -> Exported:
    """Write the archive. The caller holds the head, which protects its lineage.

    Raises Unsupported, Corrupt, NoSpace, BadRequest.
    """
    head = catalogue.find(ref)
    numbers = lineage_numbers(catalogue, head)
    states = [head]
    if head.opaque and head.parent:
        states.append(catalogue.by_number(numbers[0]))
    if not all(state.stored for state in states):
        raise Unsupported(
            f"the state of {str(ref)[:13]} was collected: save it again with `ssmprov ckpt replay`, and export that"
        )
    header = ArchiveHeader(model, len(numbers), [ArchiveObject(state.object, state.size) for state in states])
    steps = (ArchiveStep(step.object, record, step.created) for step, record in records(catalogue, numbers))
    contents = (objects.read(state.object) for state in states)
    with explaining(f"{shown(path)} cannot be written", path):
        digest, size = write_archive(objects.files, path, header, steps, contents)
    return Exported(sha256=digest, bytes=size, steps=len(numbers))


@contextmanager
def importing(
    catalogue: Catalogue, objects: Objects, holds: Holds, identity: Identity, path: Path
) -> Iterator[Callable[[], Entry]]:
    """Check the archive and make its objects durable; yield the function that inserts its steps in a change, and the
    head.

    Raises BadRequest, Corrupt, WrongModel, NoSpace.
    """
    with closing(Archive(objects.files, path)) as archive, ExitStack() as held:
        for header, item in zip(archive.check(), archive.header.objects, strict=True):
            admit(header, item.id, identity)
        sizes = {item.id: item.bytes for item in archive.header.objects}
        for index, object_id in enumerate(sizes):
            held.enter_context(holds.hold(object_id))
            objects.write(object_id, archive.object(index))

        def insert() -> Entry:
            for step, digest in archive.steps():
                size = sizes.get(step.object, 0)
                added = catalogue.add_step(step.object, step.record, identity, size, step.created)
                if added.lineage != digest:
                    raise Conflict(f"{path} has a different history of #{step.object[:12]} than this store")
            return added

        yield insert
