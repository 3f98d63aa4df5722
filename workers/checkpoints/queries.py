"""What people ask of a catalogue: pages of names, a checkpoint, its text and tokens, its log, the tree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ssmprov.errors import BadRequest, Unsupported
from ssmprov.names import Ref, parse_ref
from ssmprov.ops import Page, Row, Shown, Step, Steps
from workers.checkpoints.catalogue import NAME, PAST_ALL, Catalogue
from workers.checkpoints.entries import ENTRY, Entry, row_of
from workers.checkpoints.lineage import StepRecord
from workers.checkpoints.seals import whole

EXCERPT_BYTES = 240


def ls(catalogue: Catalogue, model: str, prefix: str, after: str, limit: int, *, reserved: bool) -> Page:
    """A page of names in order; reserved ones only if asked for, or if the prefix is a reserved one."""
    rows = catalogue.run(
        f"SELECT e.*, {NAME} FROM names n LEFT JOIN entries e ON e.number = n.step"  # noqa: S608 (our own words)
        " WHERE n.name >= :start AND n.name < :end AND n.name <> :after AND (:reserved OR n.name NOT LIKE '@%')"
        " ORDER BY n.name LIMIT :limit",
        {
            "start": max(after, prefix),  # one bound only: given two, the index uses just the first
            "after": after,
            "end": prefix + PAST_ALL,
            "reserved": reserved or prefix.startswith("@"),
            "limit": limit + 1,
        },
    )
    page = [row_of(catalogue.named(row), row[ENTRY], model, row[ENTRY + 3]) for row in rows[:limit]]
    return Page(rows=page, more=len(rows) > limit)


def pins(catalogue: Catalogue) -> dict[str, str]:
    """The worker of each pinned name."""
    rows = catalogue.run(f"SELECT {NAME} FROM names n WHERE n.pinned <> '' ORDER BY n.name")  # noqa: S608
    for row in rows:
        if not whole(row):
            raise catalogue.damaged(f"the row of the name {row[0]!r} was changed")
    return {row[0]: row[3] for row in rows}


def row(catalogue: Catalogue, model: str, ref: Ref) -> Row:
    """One checkpoint, under the name that was asked for, or one that it has."""
    step = catalogue.find(ref)
    name = str(ref) if ref.name else next(iter(catalogue.names_of([step.number]).get(step.number, [])), "")
    pinned = catalogue.run("SELECT pinned FROM names WHERE name = ?", (name,))
    return row_of(step, name, model, pinned[0][0] if pinned else "")


def show(catalogue: Catalogue, model: str, ref: Ref) -> Shown:
    step = catalogue.find(ref)
    return Shown(
        row=row(catalogue, model, ref),
        seed=step.seed,
        settings=json.loads(step.settings),
        names=catalogue.names_of([step.number]).get(step.number, []),
    )


def text(catalogue: Catalogue, ref: Ref, offset: int, limit: int, *, since_root: bool = False) -> bytes:
    """Bytes [offset, offset + limit) of what the context has read since its root.

    Raises Unsupported for an opaque root, which has read more, unless `since_root` says that the caller knows this.
    """
    step = catalogue.find(ref)
    if not since_root:
        _refuse_opaque(step, ref)
    end = min(offset + limit, step.text_bytes)
    wanted: list[Entry] = []
    for each in catalogue.lineage(step):
        begins = each.text_bytes - each.step_bytes
        if begins < end and each.text_bytes > offset:
            wanted.append(each)
        if begins <= offset:
            break
    if not wanted:
        return b""
    skipped = offset - (wanted[-1].text_bytes - wanted[-1].step_bytes)
    parts = [_read(catalogue, each)[1] for each in reversed(wanted)]
    return b"".join(parts)[skipped : skipped + end - offset]


def tokens(catalogue: Catalogue, ref: Ref) -> NDArray[np.int32]:
    """[T] all tokens that the context has read since its root. Raises Unsupported."""
    step = catalogue.find(ref)
    _refuse_opaque(step, ref)
    return tokens_between(catalogue, None, step)


def tokens_between(catalogue: Catalogue, ancestor: Entry | None, step: Entry) -> NDArray[np.int32]:
    """[T] the tokens read after the ancestor (None: after the empty context) up to the step."""
    between = itertools.takewhile(lambda each: not ancestor or each.number != ancestor.number, catalogue.lineage(step))
    parts = [_read(catalogue, each)[0] for each in between]
    return np.frombuffer(b"".join(reversed(parts)), "<i4").astype(np.int32)


def nearest_stored(catalogue: Catalogue, step: Entry) -> Entry | None:
    """The step itself, or its nearest ancestor whose object is stored."""
    return next((each for each in catalogue.lineage(step) if each.stored), None)


def lineage_numbers(catalogue: Catalogue, step: Entry) -> list[int]:
    """The steps from the root to this one."""
    return [each.number for each in catalogue.lineage(step)][::-1]


def _read(catalogue: Catalogue, step: Entry) -> tuple[bytes, bytes]:
    """The tokens and the text that a step read. Raises Corrupt."""
    rows = catalogue.run("SELECT step, tokens, text, seal FROM reads WHERE step = ?", (step.number,))
    if not rows or not whole(rows[0]):
        raise catalogue.damaged(f"the tokens or text of step #{step.object[:12]} are missing or were changed")
    _, tokens, text, _ = rows[0]
    return tokens, text


def records(catalogue: Catalogue, numbers: Iterable[int]) -> Iterator[tuple[Entry, StepRecord]]:
    """The steps with everything recorded about each, one after the other."""
    for number in numbers:
        step = catalogue.by_number(number)
        yield step, record(step, *_read(catalogue, step))


def record(step: Entry, tokens: bytes, text: bytes) -> StepRecord:
    """The record of a step and what it read. Raises ValueError if its settings are damaged."""
    return StepRecord(
        parent=step.parent,
        kind=step.kind,
        tokens=tokens,
        text=text,
        settings=json.loads(step.settings),
        seed=step.seed,
        total=step.tokens,
        exact=step.exact,
        dtype=step.dtype,
    )


def log(catalogue: Catalogue, ref: Ref, limit: int, before: str) -> Steps:
    """The lineage, newest first, from the step, or from the step before object `before`."""
    step = catalogue.find(ref)
    start: int | None = step.number
    if before:
        last = catalogue.find(parse_ref("#" + before))
        if last.root != step.root:
            raise BadRequest(f"#{before[:12]} is not an ancestor of {ref}")
        start = last.parent_number
    rows = catalogue.run(
        "WITH RECURSIVE up (number, parent, n) AS (SELECT number, parent, 1 FROM steps WHERE number = :start"
        " UNION ALL SELECT s.number, s.parent, n + 1 FROM up JOIN steps s ON s.number = up.parent"
        " WHERE n <= :limit AND s.number < up.number)"
        " SELECT e.*, substr(r.text, 1, :excerpt) FROM up JOIN entries e ON e.number = up.number"
        " JOIN reads r ON r.step = e.number ORDER BY e.number DESC",
        {"start": start, "limit": limit, "excerpt": EXCERPT_BYTES},
    )
    shown = [(catalogue.entry(row), row[-1]) for row in rows[:limit]]
    names = catalogue.names_of(step.number for step, _ in shown)
    return Steps(
        steps=[_step(step, step.parent, excerpt, names, step.step_tokens, step.step_bytes) for step, excerpt in shown],
        more=len(rows) > limit,
    )


def tree(catalogue: Catalogue, ref: Ref | None, limit: int) -> Steps:
    """Named checkpoints, branch points and roots, parents first; if there are too many, those with the newest names.

    `parent` is the nearest listed ancestor; `step_tokens` and `step_bytes` count what lies between the two.
    """
    if ref is None:
        named = catalogue.run("SELECT DISTINCT step FROM names ORDER BY step DESC LIMIT ?", (limit + 1,))
    else:
        named = catalogue.run(
            "SELECT DISTINCT step FROM names JOIN steps ON number = step WHERE root = ? ORDER BY step DESC LIMIT ?",
            (catalogue.find(ref).root, limit + 1),
        )
    heads = [step for (step,) in named]
    count = min(limit, len(heads))
    parents = _parents(catalogue, heads[:count])
    above = _contract(parents, heads[:count])
    while len(above) > limit and count > 1:
        count = count * 3 // 4
        above = _contract(parents, heads[:count])
    rows = catalogue.run(
        "SELECT e.*, substr(r.text, 1, ?) FROM entries e JOIN reads r ON r.step = e.number"
        " WHERE e.number IN (SELECT value FROM json_each(?)) ORDER BY e.number",
        (EXCERPT_BYTES, json.dumps(list(above))),
    )
    names = catalogue.names_of(above)
    listed: dict[int, Entry] = {}
    steps = []
    for row in rows:
        step = catalogue.entry(row)
        listed[step.number] = step
        parent = listed.get(above[step.number] or 0)
        between = step.tokens - (parent.tokens if parent else 0)
        text_between = step.text_bytes - (parent.text_bytes if parent else 0)
        steps.append(_step(step, parent.object if parent else "", row[-1], names, between, text_between))
    return Steps(steps=steps, more=count < len(heads))


def _parents(catalogue: Catalogue, heads: list[int]) -> dict[int, int | None]:
    """The parent of each head and of all their ancestors. Raises Corrupt."""
    links = catalogue.run(
        "WITH RECURSIVE up (number) AS (SELECT value FROM json_each(?)"
        " UNION SELECT s.parent FROM up JOIN steps s ON s.number = up.number WHERE s.parent < s.number)"
        " SELECT s.number, s.parent FROM up JOIN steps s ON s.number = up.number",
        (json.dumps(heads),),
    )
    parents = dict(links)
    apart = any(parent is not None and not (parent < step and parent in parents) for step, parent in links)
    if apart or any(head not in parents for head in heads):
        raise catalogue.damaged("a step does not follow from the one that it points to")
    return parents


def _contract(parents: dict[int, int | None], heads: list[int]) -> dict[int, int | None]:
    """The heads, the steps where their lineages part, and their roots, each with its nearest ancestor among these."""
    kept = set(heads)
    seen: set[int] = set()
    for head in heads:
        step: int | None = head
        while step is not None and step not in seen:
            seen.add(step)
            parent = parents[step]
            if parent is None or parent in seen:
                kept.add(step if parent is None else parent)
            step = parent
    above: dict[int, int | None] = {}
    for step in kept:
        parent = parents[step]
        while parent is not None and parent not in kept:
            parent = parents[parent]
        above[step] = parent
    return above


def _step(
    step: Entry, parent: str, excerpt: bytes | None, names: dict[int, list[str]], step_tokens: int, size: int
) -> Step:
    """A step as the wire shows it; SQLite returns NULL for the beginning of an empty text."""
    return Step(
        object=step.object,
        parent=parent,
        tokens=step.tokens,
        step_tokens=step_tokens,
        step_bytes=size,
        created=step.created,
        kind=step.kind,
        excerpt=(excerpt or b"").decode(errors="ignore"),
        stored=step.stored,
        names=names.get(step.number, []),
    )


def _refuse_opaque(step: Entry, ref: Ref) -> None:
    if step.opaque:
        raise Unsupported(
            f"{ref} goes back to an imported state that came without its tokens: ssmprov does not know what it has read"
        )
