"""The catalogue in SQLite: steps, names, history and outcomes.

Every row that is read is first checked against its seal. A row that was changed raises Corrupt and is never used.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmprov.clock import boot, uptime_s
from ssmprov.errors import Conflict, NoSpace, NotFound, WrongModel, close_to, nearest
from ssmprov.names import Ref
from ssmprov.textdigest import TextDigest
from workers.checkpoints.database import Database
from workers.checkpoints.entries import ENTRY, Entry, entry_unchecked
from workers.checkpoints.lineage import ROOT_DIGEST, StepRecord, settings_json
from workers.checkpoints.seals import seal, seal_of, whole
from workers.context import Identity

SWEEP_EVERY = 256
"""How many outcomes one process inserts before it deletes expired ones."""

MAX_NAMES = 1_000_000
SHARERS = 128
"""More processes than ever have one store open."""

PAST_ALL = "\U0010ffff"
"""Sorts after everything that a name can continue with."""

NAME = "n.name, n.step, n.object, n.pinned, n.created, n.updated, n.seal"

_WALK = 256


@dataclass(frozen=True, slots=True)
class Above:
    """What a step is stored below: its parent (None for a root), and the digest that it gets there."""

    parent: Entry | None
    lineage: bytes


class Catalogue(Database):
    """Steps, names and outcomes."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, max_names: int = MAX_NAMES) -> None:
        super().__init__(path, connection)
        self.max_names = max_names
        self._inserted = 0
        self._room = 0  # names that may be created before they are counted again

    # ---- steps ---------------------------------------------------------------------------------------------------
    def entry(self, row: Sequence[Any]) -> Entry:
        """The step in the first columns of a row, those of the view. Raises Corrupt."""
        if not whole(row[:ENTRY]):
            known = "" if row[0] is None else f" ({row[0]})"
            raise self.damaged(f"a row of steps{known} is missing or was changed")
        return entry_unchecked(row)

    def by_number(self, number: int) -> Entry:
        rows = self.run("SELECT * FROM entries WHERE number = ?", (number,))
        if not rows:
            raise self.damaged(f"a row of steps ({number}) is missing")
        return self.entry(rows[0])

    def by_object(self, object_id: str) -> Entry | None:
        rows = self.run("SELECT * FROM entries WHERE object = ?", (bytes.fromhex(object_id),))
        step = self.entry(rows[0]) if rows else None
        if step and step.object != object_id:
            raise self.damaged("its index of objects is not what was written")
        return step

    def lineage(self, step: Entry) -> Iterator[Entry]:
        """The step and its ancestors, newest first, each of them checked."""
        yield step
        child, wanted = step, step.parent_number
        while wanted is not None:
            rows = self.run(
                "WITH RECURSIVE up (number, parent, n) AS (SELECT number, parent, 1 FROM steps WHERE number = :start"
                " UNION ALL SELECT s.number, s.parent, n + 1 FROM up JOIN steps s ON s.number = up.parent"
                " WHERE s.number < up.number AND n < :limit)"
                " SELECT e.* FROM up JOIN entries e ON e.number = up.number ORDER BY up.n",
                {"start": wanted, "limit": _WALK},
            )
            if not rows:
                raise self.damaged(f"a row of steps ({wanted}) is missing")
            for row in rows:
                found = self.entry(row)
                if (found.number, found.object) != (child.parent_number, child.parent):
                    raise self.damaged(f"the row of steps {child.number} does not point to its parent")
                yield found
                child, wanted = found, found.parent_number

    def find(self, ref: Ref) -> Entry:
        """The step that a reference means. Raises NotFound."""
        return self._find_object(ref.object) if ref.object else self._find_named(ref)

    def _find_object(self, digits: str) -> Entry:
        low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
        rows = self.run("SELECT * FROM entries WHERE object BETWEEN ? AND ? LIMIT 4", (low, high))
        if not rows:
            raise NotFound(f"there is no checkpoint #{digits}: see the lineages with `ssmprov ckpt log`")
        if len(rows) > 1:
            ids = ", ".join(f"#{row[1].hex()[: len(digits) + 4]}" for row in rows[:3])
            raise NotFound(f"several checkpoints begin with #{digits} ({ids}): write more digits")
        step = self.entry(rows[0])
        if not step.object.startswith(digits):
            raise self.damaged("its index of objects is not what was written")
        return step

    def _find_named(self, ref: Ref) -> Entry:
        rows = self.run(
            f"SELECT e.*, {NAME} FROM names n LEFT JOIN entries e ON e.number = n.step WHERE n.name = ?",  # noqa: S608
            (ref.name,),
        )
        if not rows:
            raise self.no_name(ref.name)
        head = self.named(rows[0])
        if ref.back >= head.depth:
            last = f", the last being {ref.name}~{head.depth - 1}" if head.depth > 1 else ""
            steps = "1 step" if head.depth == 1 else f"{head.depth} steps"
            raise NotFound(f"there is no {ref}: {ref.name} has {steps}{last}", steps=head.depth)
        return next(itertools.islice(self.lineage(head), ref.back, None))

    def named(self, row: Sequence[Any]) -> Entry:
        """The step of a row that consists of `entries` and then `NAME`. Raises Corrupt."""
        name = row[ENTRY : ENTRY + 7]
        if not whole(name):
            raise self.damaged(f"the row of the name {name[0]!r} was changed")
        step = self.entry(row)
        if (step.number, bytes.fromhex(step.object)) != (name[1], name[2]):
            raise self.damaged(f"the name {name[0]!r} does not point where it was put")
        return step

    def no_name(self, name: str) -> NotFound:
        """The error for a name that does not exist, with the nearest one that does."""
        first = name[:1]
        like = self.run("SELECT name FROM names WHERE name >= ? AND name < ? LIMIT 500", (first, first + PAST_ALL))
        rows = like or self.run("SELECT name FROM names WHERE name NOT LIKE '@%' LIMIT 500")
        known = [row[0] for row in rows]
        hint = nearest(name, known, examples=True)
        return NotFound(f"there is no context {name!r}{hint}", name=name, nearest=close_to(name, known))

    def add_step(
        self,
        object_id: str,
        record: StepRecord,
        identity: Identity,
        size: int,
        created: float,
        above: Above | None = None,
    ) -> Entry:
        """Insert a step below its parent, or mark an existing step as stored if `size` is positive.

        Inside a change. `above` is what was found before, if it was looked up. Raises NotFound if the parent is gone,
        and WrongModel if it belongs to another model.
        """
        known = self.by_object(object_id)
        if known is None:
            known = self._insert_step(object_id, record, identity, size, created, above)
        elif size and not known.stored:
            self.run("UPDATE steps SET stored = 1, bytes = ? WHERE number = ?", (size, known.number))
            self.seal("steps", "number", known.number)
        return known

    def above(self, record: StepRecord, identity: Identity) -> Above:
        """What the step would be stored below. Raises NotFound, WrongModel, BadRequest."""
        parent = None
        if record.parent:
            parent = self.by_object(record.parent)
            if parent is None:
                raise NotFound(
                    f"checkpoint #{record.parent[:12]}, which this one continues, was removed: nothing was saved"
                )
            if parent.fingerprint != identity.fingerprint:
                raise WrongModel(
                    f"checkpoint #{record.parent[:12]} was made by the model {parent.fingerprint[:12]}, and "
                    f"{identity.fingerprint[:12]} cannot continue it",
                    made_by=parent.fingerprint,
                    needed=identity.fingerprint,
                )
        record.check(parent.tokens if parent else 0)
        return Above(parent, record.digest(parent.lineage if parent else ROOT_DIGEST))

    def _still_there(self, step: Entry | None) -> bool:
        sql = "SELECT 1 FROM steps WHERE number = ? AND object = ?"
        return step is None or bool(self.run(sql, (step.number, bytes.fromhex(step.object))))

    def _insert_step(
        self, object_id: str, record: StepRecord, identity: Identity, size: int, created: float, above: Above | None
    ) -> Entry:
        if above is None or not self._still_there(above.parent):
            above = self.above(record, identity)
        parent = above.parent
        number = self.run("SELECT coalesce(max(number), 0) + 1 FROM steps")[0][0]
        read = (parent.digest if parent else TextDigest()).plus(record.text)
        step = Entry(
            number=number,
            object=object_id,
            parent_number=parent.number if parent else None,
            parent=record.parent,
            root=parent.root if parent else number,
            depth=parent.depth + 1 if parent else 1,
            tokens=record.total,
            text_bytes=read.length,
            text_digest=read.data,
            step_tokens=record.step_tokens,
            step_bytes=len(record.text),
            stored=size > 0,
            size=size,
            opaque=parent.opaque if parent else record.opaque,
            exact=record.exact,
            seed=record.seed,
            created=created,
            kind=record.kind,
            settings=settings_json(record.settings),
            lineage=above.lineage,
            fingerprint=identity.fingerprint,
            dtype=record.dtype,
        )
        row = step.row()
        told = self._identity(identity.fingerprint, identity.architecture, identity.layout, record.dtype)
        self.run(
            "INSERT INTO steps (number, object, parent, root, depth, tokens, text_bytes, text_digest, step_tokens,"
            " step_bytes, stored, bytes, opaque, exact, seed, created, kind, settings, lineage, identity, seal)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row[:3], *row[4:20], told, seal(*row)),  # without the columns that the view takes from other rows
        )
        kept = (number, record.tokens, record.text)
        self.run("INSERT INTO reads (step, tokens, text, seal) VALUES (?, ?, ?, ?)", (*kept, seal(*kept)))
        return step

    def _identity(self, *identity: str) -> int:
        """The number of the identity's row; the row is made if there is none."""
        rows = self.run(
            "SELECT number, fingerprint, architecture, layout, dtype, seal FROM identities"
            " WHERE fingerprint = ? AND architecture = ? AND layout = ? AND dtype = ?",
            identity,
        )
        if rows and not whole(rows[0]):
            raise self.damaged("a row of identities was changed")
        number: int = rows[0][0] if rows else self.run("SELECT coalesce(max(number), 0) + 1 FROM identities")[0][0]
        if not rows:
            row = (number, *identity)
            self.run(
                "INSERT INTO identities (number, fingerprint, architecture, layout, dtype, seal)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*row, seal(*row)),
            )
        return number

    # ---- names ---------------------------------------------------------------------------------------------------
    def head(self, name: str) -> str | None:
        rows = self.run(f"SELECT {NAME} FROM names n WHERE n.name = ?", (name,))  # noqa: S608 (our own words)
        if rows and not whole(rows[0]):
            raise self.damaged(f"the row of the name {name!r} was changed")
        return rows[0][2].hex() if rows else None

    def expect_head(self, name: str, expected: str | None) -> None:
        """Raises Conflict unless the name is at the expected step."""
        head = self.head(name)
        if head == expected:
            return
        if expected is None:
            message = f"{name} is taken: it is at #{(head or '')[:12]}"
        elif head is None:
            message = f"{name} does not exist, but was expected at #{expected[:12]}"
        else:
            message = f"{name} moved: it is at #{head[:12]}, but was expected at #{expected[:12]}; look and try again"
        raise Conflict(message, name=name, head=head or "", expected=expected or "")

    def move(self, name: str, step: Entry, keep: int, pinned: str | None = None) -> None:
        """Move the name to `step`. A head that it leaves, other than for a child, goes into its history."""
        now = time.time()
        rows = self.run("SELECT step, pinned, created FROM names WHERE name = ?", (name,))
        old, pin, created = rows[0] if rows else (None, "", now)
        if old is None:
            self._room_for(name)
        row = (name, step.number, bytes.fromhex(step.object), pin if pinned is None else pinned, created, now)
        self.run(
            "INSERT INTO names (name, step, object, pinned, created, updated, seal) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET step = excluded.step, object = excluded.object,"
            " pinned = excluded.pinned, updated = excluded.updated, seal = excluded.seal",
            (*row, seal(*row)),
        )
        if old is None:
            return
        if old not in (step.number, step.parent_number):
            self.run("INSERT INTO history (name, step) VALUES (?, ?)", (name, old))
            self.run(f"UPDATE history SET seal = {seal_of('history')} WHERE number = last_insert_rowid()")  # noqa: S608
            self.run(
                "DELETE FROM history WHERE name = :name AND number <= (SELECT number FROM history WHERE name = :name"
                " ORDER BY number DESC LIMIT 1 OFFSET :keep)",
                {"name": name, "keep": keep},
            )

    def _room_for(self, name: str) -> None:
        """Raises NoSpace. Counting takes milliseconds if there are many names, so not each new one is counted.

        Up to `SHARERS` processes may each use up the room that they found: together they stay below the limit. Close to
        the limit each new name is counted.
        """
        self._room -= 1
        if self._room >= 0:
            return
        ((count,),) = self.run("SELECT count(*) FROM names")
        self._room = min(SWEEP_EVERY, (self.max_names - count - 1) // SHARERS)
        if count >= self.max_names:
            raise NoSpace(
                f"{name} was not created: the store has {count} names, and the model's `max_names` is {self.max_names}"
                ". Remove some with `ssmprov ckpt rm`, or raise it in the configuration; existing names still move",
                names=count,
            )

    def pin(self, name: str, worker: str) -> None:
        """Inside a change. Raises NotFound."""
        self.find(Ref(name))
        self.run("UPDATE names SET pinned = ? WHERE name = ?", (worker, name))
        self.seal("names", "name", name)

    def names_of(self, numbers: Iterable[int]) -> dict[int, list[str]]:
        """The names at each of the steps."""
        found: dict[int, list[str]] = {}
        for step, name in self.run(
            "SELECT step, name FROM names WHERE step IN (SELECT value FROM json_each(?)) ORDER BY name",
            (json.dumps(list(numbers)),),
        ):
            found.setdefault(step, []).append(name)
        return found

    # ---- outcomes ------------------------------------------------------------------------------------------------
    def outcome(self, request_id: bytes) -> bytes | None:
        rows = self.run(
            "SELECT request, answer, boot, until, lasts, seal FROM outcomes WHERE request = ?", (request_id,)
        )
        if rows and not (whole(rows[0]) and rows[0][0] == request_id):
            raise self.damaged("the answer of an earlier request was changed")
        return rows[0][1] if rows else None

    def add_outcome(self, request_id: bytes, answer: bytes, expires_s: float) -> None:
        """Inside a change that found none."""
        row = (request_id, answer, boot(), uptime_s() + expires_s, float(expires_s))
        self.run(
            "INSERT INTO outcomes (request, answer, boot, until, lasts, seal) VALUES (?, ?, ?, ?, ?, ?)",
            (*row, seal(*row)),
        )
        if self._inserted % SWEEP_EVERY == 0:
            self.sweep_outcomes()
        self._inserted += 1

    def sweep_outcomes(self) -> None:
        """Delete outcomes that have expired, by a clock that nobody can set. Inside a change."""
        now = uptime_s()
        self.run("DELETE FROM outcomes WHERE boot = ? AND until < ?", (boot(), now))
        # Separate statements, for the index.
        self.run("DELETE FROM outcomes WHERE boot < ? AND lasts < ?", (boot(), now))
        self.run("DELETE FROM outcomes WHERE boot > ? AND lasts < ?", (boot(), now))
