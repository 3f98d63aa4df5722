"""Promotion moves the public name to an evaluated run's context by compare-and-swap; rollback moves it back.

The previous object of the name gets its own name, so that a rollback always finds it. The ledger is written before and
after the swap. If the process dies in between, the next command sees from the name whether the swap happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.blocking import Client
from specialists.ledger import STATE, Event, Ledger, Run, now
from specialists.stages import Check
from ssmprov.errors import BadRequest, Conflict, NotFound, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A public name, the object it points to ('' for none), and the object it should point to."""

    model: str
    public: str
    before: str
    after: str
    kept: str


def head_of(client: Client, model: str, name: str) -> str:
    """The object that a name points to; '' if there is none."""
    try:
        return client.show(name, model=model).row.object
    except NotFound:
        return ""


def is_there(client: Client, model: str, made: str) -> bool:
    """Whether an object is still stored, or can be computed again."""
    try:
        client.show(f"#{made}", model=model)
    except NotFound:
        return False
    return True


def refuse_gone(client: Client, run: Run, directory: Path) -> None:
    """Raises NotFound, which says what to do, if a run's context was removed and then collected by `gc`."""
    if is_there(client, run.model, run.made):
        return
    path = directory / STATE
    what = f"`ssmprov ckpt import {path} NAME` brings it back" if path.is_file() else "make another run"
    raise NotFound(f"the context #{run.made[:12]} of the run {run.id} is gone from {run.model}'s store: {what}")


def refuse_ungated(run: Run, checks: Sequence[Check] | None, *, force: bool) -> str:
    """Why a run may not be promoted; '' if it may. Raises Refused unless forced."""
    if run.status != "completed":
        why = f"the run {run.id} is {run.status}"
    elif checks is None:
        why = f"the run {run.id} has not been evaluated: run `ssmprov specialist eval`"
    elif failed := [check for check in checks if not check.passed]:
        why = f"the run {run.id} does not pass the gate of {run.stage}: " + "; ".join(map(str, failed))
    else:
        return ""
    if not run.made:
        raise BadRequest(f"{why}, and it has no context that could be promoted")
    if not force:
        raise Refused(f"{why} (--force promotes it anyway and notes that in the ledger)")
    return why


def swap_of(client: Client, run: Run, public: str, folder: str) -> Swap:
    """What promoting a run would change."""
    return Swap(
        model=run.model,
        public=public,
        before=head_of(client, run.model, public),
        after=run.made,
        kept=f"{folder}/before/{run.id.replace(':', '-')}",
    )


def promote(client: Client, ledger: Ledger, run: Run, swap: Swap, forced: str) -> Event:
    """Move the public name. Raises Conflict, with nothing changed, if it was moved in the meantime."""
    details = {"public": swap.public, "model": swap.model, "before": swap.before, "after": swap.after}
    if forced:
        details["forced"] = forced
    if swap.before and swap.before != swap.after:
        earlier = {event.details.get("kept") for event in ledger.events() if event.run == run.id} - {None}
        kept = f"{swap.kept}-{len(earlier) + 1}" if earlier else swap.kept  # keep the objects of earlier promotions
        client.fork(f"#{swap.before}", [kept], model=swap.model, overwrite=True)
        details["kept"] = kept
    ledger.append(Event(event="promoting", run=run.id, at=now(), details=details))
    try:
        _move(client, swap.model, swap.public, swap.before, swap.after)
    except Conflict as error:
        ledger.append(Event(event="refused", run=run.id, at=now(), details=details | {"why": error.message}))
        raise
    done = Event(event="promoted", run=run.id, at=now(), details=details)
    ledger.append(done)
    return done


def _move(client: Client, model: str, name: str, before: str, after: str) -> None:
    """Compare and swap. Raises Conflict if the name no longer points to `before` ('' means that it does not exist)."""
    if before:
        client.fork(f"#{after}", [name], model=model, overwrite=True, if_head=before)
    else:
        client.fork(f"#{after}", [name], model=model)


def settle(client: Client, ledger: Ledger) -> Event | None:
    """Record how a promotion ended if its process died during it."""
    events = ledger.events()
    begun = next((event for event in reversed(events) if event.event != "evaluated"), None)
    if begun is None or begun.event != "promoting":
        return None
    moved = head_of(client, begun.details["model"], begun.details["public"]) == begun.details["after"]
    found = Event(
        event="promoted" if moved else "refused",
        run=begun.run,
        at=now(),
        details=begun.details | {"why": "its process ended before it could record the outcome"},
    )
    ledger.append(found)
    return found


def rollback(client: Client, ledger: Ledger) -> Event:
    """Move the public name back to its object before the last promotion that was not rolled back.

    Raises NotFound if nothing was promoted, or if the name did not exist before.
    """
    standing = next((event for event in reversed(_standing(ledger)) if _moved(event)), None)
    if standing is None:
        raise NotFound("nothing has been promoted, so there is nothing to roll back")
    details = standing.details
    if not details["before"]:
        raise NotFound(
            f"before {standing.run} the name {details['public']} did not exist: "
            f"`ssmprov ckpt rm {details['public']}` removes it"
        )
    now_at = head_of(client, details["model"], details["public"])
    if now_at not in ("", details["after"]):  # a live filter has saved to it since then
        kept = f"{details['kept']}-after"
        client.fork(f"#{now_at}", [kept], model=details["model"], overwrite=True)
    _move(client, details["model"], details["public"], now_at, details["before"])
    done = Event(
        event="rolled_back",
        run=standing.run,
        at=now(),
        details={**details, "before": now_at, "after": details["before"]},
    )
    ledger.append(done)
    return done


def standing_of(ledger: Ledger) -> Event | None:
    """The last promotion that was not rolled back."""
    standing = _standing(ledger)
    return standing[-1] if standing else None


def _standing(ledger: Ledger) -> list[Event]:
    """The promotions that were not rolled back. If one promoted the current object again, it moved nothing: a rollback
    undoes it together with the one before."""
    standing: list[Event] = []
    for event in ledger.events():
        if event.event == "promoted":
            standing.append(event)
        elif event.event == "rolled_back":
            while standing and not _moved(standing.pop()):
                continue
    return standing


def _moved(event: Event) -> bool:
    return bool(event.details["before"] != event.details["after"])
