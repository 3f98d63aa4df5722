"""Random walks over the branches of a transcript: whatever is done in whatever order, nothing written is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cluster import Cluster

from clients import Client
from ssmprov import wire
from ssmprov.errors import Conflict
from ssmprov.transcript import full_step, half_step, turns_of
from transcripts.branches import Branches, Change
from transcripts.record import Record
from transcripts.recorded import outgoing, send, take_up

STEPS = 45


class Walker:
    """One directory and one context; after every step context and transcript agree, and all that was seen is kept."""

    def __init__(self, client: Client, directory: Path, name: str, seed: int) -> None:
        self.client = client
        self.record = Record(directory)
        self.branches = Branches(self.record, client, "talk", name)
        self.random = random.Random(seed)
        self.seen: set[bytes] = set()
        self.changes: list[Change] = []
        self.undone: list[Change] = []

    def say(self) -> None:
        text = f"thing {self.random.randrange(1000)}"
        name, before = self.branches.name, self.branches.scene()
        with self.record.locked() as writer:
            number = writer.next_number()
            half = self.random.random() < 0.4
            made = half_step(number, "USER", text) if half else full_step(number, "USER", text, "ECHO")
            arguments = {"model": "talk", "context": name, "save": name, "create": True}
            turn = outgoing(writer, made, number, number if half else number + 1, arguments=arguments)
            reply = send(
                writer, self.client, turn, lambda p, i: self.client.turn(p, request_id=i, **arguments), lambda _: None
            )
        after = (turn.before + reply.text).encode()
        at, head = len(before.transcript), reply.result.object
        self.did(Change(at=at, before=b"", after=after, head_before=before.head, head_after=head))

    def did(self, change: Change) -> None:
        if change.before != change.after or change.head_before != change.head_after:
            self.changes.append(change)
            self.undone.clear()

    def again(self) -> None:
        """Another reply for any turn, or a changed one, with the rest read or written anew."""
        scene = self.branches.scene()
        turns = turns_of(scene.transcript.decode())
        if not turns:
            return
        turn = self.random.choice(turns)
        at = scene.transcript.index(turn.text.encode())
        if self.random.random() < 0.5:
            text, limits = turn.head, {}
        else:
            text, limits = half_step(turn.number, turn.role, "changed") + "end)~~~\n\n", {"max_tokens": 0}
        drawing = self.branches.draw(scene, at, text.encode(), self.random.choice((1, 1, 3)))
        found = []
        for index in range(len(drawing.names)):
            arguments = self.branches.arguments(drawing, index, seed=self.random.randrange(10**9), **limits)
            if index and self.random.random() < 0.3:
                self.branches.undrawn(drawing, index)
                continue
            reply = self.client.turn(drawing.prompt, request_id=wire.new_id(), **arguments)
            found.append(self.branches.drawn(drawing, index, reply))
        with self.record.locked() as writer:
            self.did(self.branches.pick(writer, scene, self.random.choice(found)))

    def back(self) -> None:
        scene = self.branches.scene()
        point = self.random.choice(scene.alignment.points)
        with self.record.locked() as writer:
            self.did(self.branches.go(writer, scene, point.at, b"", point.object))

    def elsewhere(self) -> None:
        names = self.branches.names(f"{self.branches.name}.")
        if names:
            scene, row = self.branches.scene(), self.random.choice(names)
            route = self.branches.route(scene, row.object)
            with self.record.locked() as writer:
                self.did(self.branches.go(writer, scene, route.at, route.tail, row.object))

    def undo(self) -> None:
        self._travel(self.changes, self.undone)

    def redo(self) -> None:
        self._travel(self.undone, self.changes)

    def _travel(self, source: list[Change], target: list[Change]) -> None:
        if source:
            back, scene = source[-1].back, self.branches.scene()
            assert scene.transcript[back.at :] == back.before
            with self.record.locked() as writer:
                self.branches.go(writer, scene, back.at, back.after, back.head_after)
            target.append(source.pop().back)

    def crash(self) -> None:
        """A move that ends in the middle, and the next one who takes the lock."""
        scene = self.branches.scene()
        point = self.random.choice(scene.alignment.points)
        whole = Branches._move

        class Crash(Exception):
            pass

        moves = self.random.random() < 0.5

        class Crashing(Branches):
            def _move(self, head: str, object_id: str) -> None:
                if moves:
                    whole(self, head, object_id)
                raise Crash

        crashing = Crashing(self.record, self.client, "talk", self.branches.name)
        try:
            with self.record.locked() as writer:
                crashing.go(writer, scene, point.at, b"", point.object)
        except Crash:
            pass
        with self.record.locked() as writer:
            take_up(writer, lambda: Client(self.client.endpoint), lambda _: None)
        self.changes.clear()
        self.undone.clear()

    def late(self) -> None:
        """Somebody acts on what is not so any more."""
        scene = self.branches.scene()
        self.say()
        with self.record.locked() as writer, pytest.raises(Conflict):
            self.branches.go(writer, scene, 0, b"", "")

    def check(self) -> None:
        head = self.branches.head()
        transcript = self.record.read()
        text = self.branches.text(head) if head else b""
        assert text == transcript
        assert not self.record.unfinished
        self.seen.add(transcript)
        kept = {self.branches.text(row.object) for row in self.branches.names(self.branches.name)}
        files = {path.read_bytes() for path in self.record.directory.glob(".transcript.*.txt")} | {transcript}
        for once in self.seen:
            assert not once or any(text.startswith(once) for text in kept), "no context has it any more"
            assert any(file.startswith(once) for file in files), "no file has it any more"
        numbers = [turn.number for turn in turns_of(transcript.decode())]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_whatever_is_done(talk: Cluster, tmp_path: Path, seed: int) -> None:
    with Client(talk.endpoint) as client:
        walker = Walker(client, tmp_path, f"walk{seed}", seed)
        steps = [walker.say, walker.say, walker.again, walker.back, walker.elsewhere, walker.undo, walker.undo]
        steps += [walker.redo, walker.crash, walker.late]
        for _ in range(STEPS):
            walker.random.choice(steps)()
            walker.check()
