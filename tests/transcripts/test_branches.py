"""Going back and forth between branches, on a real broker: transcript and context always agree, and nothing is lost."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster

from clients import Client
from ssmprov import wire
from ssmprov.errors import BadRequest, Conflict, NotFound, Unavailable
from ssmprov.transcript import full_step, turn
from transcripts.branches import Branches, Candidate, Change
from transcripts.record import COUNTER, MOVING, TRANSCRIPT, Asked, Moving, Record, Writer
from transcripts.recorded import outgoing, send, take_up

fresh = itertools.count(1)


class Play:
    """A directory with a transcript, and its context of the model `talk`."""

    def __init__(self, cluster: Cluster, client: Client, directory: Path) -> None:
        self.cluster = cluster
        self.record = Record(directory)
        self.branches = Branches(self.record, client, "talk", f"play{next(fresh)}")
        self.client = client

    def connect(self) -> Client:
        return Client(self.cluster.endpoint)

    def say(self, text: str, role: str = "USER", reply: str = "ECHO", bang: str = "") -> None:
        name = self.branches.name
        with self.record.locked() as writer:
            number = writer.next_number()
            arguments = {"model": "talk", "context": name, "save": name, "create": True}
            made = outgoing(writer, full_step(number, role, text, reply), number, number + 1, bang, arguments=arguments)
            send(writer, self.client, made, lambda p, i: self.client.turn(p, request_id=i, **arguments), print)

    def draw(self, at: int, text: str, **more: int) -> Candidate:
        drawing = self.branches.draw(self.branches.scene(), at, text.encode())
        arguments = self.branches.arguments(drawing, 0, **more)
        reply = self.client.turn(drawing.prompt, request_id=wire.new_id(), **arguments)
        return self.branches.drawn(drawing, 0, reply)

    def go(self, at: int, tail: bytes, object_id: str) -> Change:
        with self.record.locked() as writer:
            return self.branches.go(writer, self.branches.scene(), at, tail, object_id)

    def pick(self, candidate: Candidate) -> Change:
        scene = self.branches.scene()
        with self.record.locked() as writer:
            return self.branches.pick(writer, scene, candidate)

    @property
    def text(self) -> bytes:
        return self.record.read()

    def agree(self) -> bool:
        """Whether the context has read the transcript, and nothing else."""
        return self.branches.text(self.branches.head()) == self.text


@pytest.fixture
def play(talk: Cluster, tmp_path: Path) -> Iterator[Play]:
    with Client(talk.endpoint) as client:
        yield Play(talk, client, tmp_path)


def test_going_back_leaves_a_branch_with_its_transcript_and_coming_back_finds_it(play: Play) -> None:
    for word in ("one", "two", "three"):
        play.say(word)
    whole, head = play.text, play.branches.head()
    point = play.branches.scene().alignment.points[1]
    change = play.go(point.at, b"", point.object)
    assert play.agree()
    assert play.text == whole[: point.at]
    assert (play.record.directory / COUNTER).read_text() == "2"
    (branch,) = play.branches.names(f"{play.branches.name}.")
    assert branch.object == head
    assert play.branches.file_of(branch.name).read_bytes() == whole
    back = change.back
    play.go(back.at, back.after, back.head_after)
    assert (play.text, play.branches.head()) == (whole, head)
    play.go(change.at, change.after, change.head_after)
    assert len(play.branches.names(f"{play.branches.name}.")) == 1  # what is kept already is not kept twice


def test_before_the_first_turn_there_is_no_context(play: Play) -> None:
    play.say("one")
    first = play.branches.scene().alignment.points[0]
    assert (first.at, first.object) == (0, "")
    change = play.go(0, b"", "")
    assert play.text == b""
    assert play.branches.head() == ""
    play.go(0, change.before, change.head_before)
    assert play.agree()
    play.say("two")
    assert play.agree()


def test_a_turn_is_drawn_again_from_the_middle_and_the_old_one_stays(play: Play) -> None:
    for word in ("one", "two", "three"):
        play.say(word)
    whole = play.text
    at = whole.index(b"(Turn 4)")  # within the second step: its checkpoint stands before turn 3
    candidate = play.draw(at, "(Turn 4) [OTHER]: ")
    assert play.text == whole, "nothing has changed before it is picked"
    play.pick(candidate)
    assert play.text == whole[:at] + b"(Turn 4) [OTHER]: hello!"
    assert play.agree()
    (branch,) = play.branches.names(f"{play.branches.name}.")
    assert play.branches.text(branch.object) == whole


def test_a_turn_can_be_changed_and_what_follows_is_read_again(play: Play) -> None:
    for word in ("one", "two"):
        play.say(word)
    whole = play.text
    start, end = whole.index(b"(Turn 2)"), whole.index(b"(Turn 3)")
    edited = turn(2, "ECHO", "something else").encode()
    play.pick(play.draw(start, (edited + whole[end:]).decode(), max_tokens=0))
    assert play.text == whole[:start] + edited + whole[end:]
    assert play.agree()


def test_a_bang_line_stays_in_the_transcript_and_is_not_read_again(play: Play) -> None:
    play.say("one")
    play.say("two", bang="talk:x set")
    whole = play.text
    assert b"!talk:x set\n(Turn 3)" in whole
    at = whole.index(b"(Turn 4)")
    play.pick(play.draw(at, "(Turn 4) [OTHER]: "))
    assert play.text == whole[:at] + b"(Turn 4) [OTHER]: hello!"
    assert b"talk:x" not in play.branches.text(play.branches.head())


def test_another_branch_is_gone_to_where_the_two_part(play: Play) -> None:
    for word in ("one", "two", "three"):
        play.say(word)
    whole, head = play.text, play.branches.head()
    point = play.branches.scene().alignment.points[1]
    play.go(point.at, b"", point.object)
    play.say("instead")
    other = play.text
    route = play.branches.route(play.branches.scene(), head)
    assert route.at == point.at
    play.go(route.at, route.tail, head)
    assert play.text == whole
    assert play.agree()
    kept = [play.branches.file_of(row.name).read_bytes() for row in play.branches.names(f"{play.branches.name}.")]
    assert sorted(kept) == sorted([whole, other])


def test_a_branch_without_relation_brings_its_whole_text(play: Play) -> None:
    play.say("one")
    stranger = play.client.turn("(Turn 1) [X]: far away", model="talk", save="stranger").result.object
    route = play.branches.route(play.branches.scene(), stranger)
    assert (route.at, route.tail) == (0, b"(Turn 1) [X]: far awayhello!")
    play.go(route.at, route.tail, stranger)
    assert play.agree()


def test_several_are_drawn_on_all_workers_and_those_not_picked_stay(play: Play) -> None:
    play.say("one")
    scene = play.branches.scene()
    drawing = play.branches.draw(scene, len(play.text), full_step(3, "USER", "again", "ECHO").encode(), 4)
    assert len(set(drawing.names)) == 4
    found = []
    for index in range(4):
        reply = play.client.turn(drawing.prompt, **play.branches.arguments(drawing, index, seed=index))
        found.append((reply.result.worker, play.branches.drawn(drawing, index, reply)))
    assert {worker for worker, _ in found} == {"talk/0", "talk/1"}
    play.pick(found[2][1])
    assert play.agree()
    names = {row.name: row.pinned for row in play.branches.names(f"{play.branches.name}.")}
    assert names == {found[i][1].name: "" for i in (0, 1, 3)}
    assert play.branches.file_of(found[0][1].name).read_bytes() == scene.transcript + found[0][1].tail


def test_a_name_that_others_moved_is_not_moved_and_nothing_changes(play: Play) -> None:
    play.say("one")
    play.say("two")
    scene = play.branches.scene()
    whole = play.text
    play.client.turn("more", model="talk", context=play.branches.name, save=play.branches.name)
    head = play.branches.head()
    point = scene.alignment.points[1]
    with (
        play.record.locked() as writer,
        pytest.raises(Conflict, match="has changed in the meantime, but this transcript has not"),
    ):
        play.branches.go(writer, scene, point.at, b"", point.object)
    assert (play.text, play.branches.head()) == (whole, head)
    assert not (play.record.directory / MOVING).exists()


def test_a_move_takes_place_only_where_the_name_stands_as_it_was_seen(play: Play) -> None:
    """Compare-and-swap at the server: between the look and the move nothing can come."""
    name = play.branches.name
    first = play.client.turn("a", model="talk", save=name).result.object
    second = play.client.turn("b", model="talk", context=name, save=name).result.object
    with pytest.raises(Conflict, match="moved"):
        play.client.fork(f"#{first}", [name], model="talk", overwrite=True, if_head=first)
    assert play.branches.head() == second
    play.client.fork(f"#{first}", [name], model="talk", overwrite=True, if_head=second)
    assert play.branches.head() == first
    with pytest.raises(Conflict, match="taken"):
        play.client.fork(f"#{second}", [name], model="talk", if_head=first)


def test_a_transcript_that_others_changed_is_not_cut(play: Play) -> None:
    play.say("one")
    scene = play.branches.scene()
    with (play.record.directory / TRANSCRIPT).open("ab") as file:
        file.write(b"a note by hand\n")
    with play.record.locked() as writer, pytest.raises(Conflict, match="transcript has changed"):
        play.branches.go(writer, scene, 0, b"", "")
    assert play.text.endswith(b"a note by hand\n")
    assert play.branches.head() == scene.head


@pytest.mark.parametrize("where", ["before the name moved", "after it moved"])
def test_a_crash_between_context_and_transcript_is_made_good(play: Play, where: str) -> None:
    play.say("one")
    play.say("two")
    whole, scene = play.text, play.branches.scene()
    point = scene.alignment.points[1]

    class Crash(Exception):
        pass

    class Crashing(Branches):
        def _move(self, head: str, object_id: str) -> None:
            if where == "after it moved":
                super()._move(head, object_id)
            raise Crash

    crashing = Crashing(play.record, play.client, "talk", play.branches.name)
    with pytest.raises(Crash), play.record.locked() as writer:
        crashing.go(writer, scene, point.at, b"", point.object)
    assert play.text == whole
    assert (play.record.directory / MOVING).exists()
    told: list[str] = []
    with play.record.locked() as writer:
        take_up(writer, play.connect, told.append)
    assert play.agree()
    assert not (play.record.directory / MOVING).exists()
    assert play.text == (whole[: point.at] if where == "after it moved" else whole)
    assert bool(told) == (where == "after it moved")
    play.say("three")
    assert play.agree()


def test_a_place_that_the_context_has_not_read_is_refused(play: Play) -> None:
    (play.record.directory / TRANSCRIPT).write_text(turn(1, "USER", "by hand"))
    play.say("two")
    with pytest.raises(BadRequest, match="has not read this part"):
        play.branches.draw(play.branches.scene(), 0, b"x")
    candidate_at = len(turn(1, "USER", "by hand"))
    play.pick(play.draw(candidate_at, full_step(2, "USER", "else", "ECHO")))
    assert play.text.decode() == turn(1, "USER", "by hand") + turn(2, "USER", "else") + turn(3, "ECHO", "as you say.")


def test_the_whole_transcript_can_be_read_by_a_context_that_has_not(play: Play) -> None:
    (play.record.directory / TRANSCRIPT).write_text(turn(1, "USER", "by hand"))
    drawing = play.branches.reread(play.branches.scene())
    reply = play.client.turn(drawing.prompt, **play.branches.arguments(drawing, 0, max_tokens=0))
    play.pick(play.branches.drawn(drawing, 0, reply))
    assert play.agree()
    assert play.branches.names(f"{play.branches.name}.") == []


def test_a_full_disk_leaves_context_and_transcript_as_they_were(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmprov import durable

    play.say("one")
    scene = play.branches.scene()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch, play.record.locked() as writer:
        patch.setattr(durable, "replace", full)
        with pytest.raises(OSError, match="No space"):
            play.branches.go(writer, scene, 0, b"", "")
    assert play.agree()
    assert play.branches.head() == scene.head
    assert play.branches.names(f"{play.branches.name}.") == []


def test_names_of_branches_are_never_used_twice(play: Play) -> None:
    name = play.branches.name
    play.say("one")
    for expected in (1, 2, 3):
        assert play.branches.fresh() == [f"{name}.{expected}"]
        with pytest.raises(NotFound):
            play.client.show(f"{name}.{expected}", model="talk")
        play.branches.keep(play.branches.head(), b"text %d" % expected)
    play.client.rm([f"{name}.3"], model="talk")
    assert play.branches.fresh() == [f"{name}.4"], "its transcript is still kept"


def test_a_crash_behind_the_transcript_still_sets_the_counter(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("one", "two"):
        play.say(word)
    whole, point = play.text, play.branches.scene().alignment.points[1]

    def crash(self: Writer, number: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "set_counter", crash)
        with pytest.raises(KeyboardInterrupt):
            play.go(point.at, b"", point.object)
    assert (play.record.directory / COUNTER).read_text() == "4"
    told: list[str] = []
    with play.record.locked() as writer:
        take_up(writer, play.connect, told.append)
    assert (play.record.directory / COUNTER).read_text() == "2"
    assert play.text == whole[: point.at]
    assert play.agree()
    assert not any("changed again before" in text for text in told)


def test_a_note_waits_for_its_model(play: Play) -> None:
    """Where the model is not served nothing is known of the context: it is not empty, and the turn had its effect."""
    play.say("one")
    whole = play.text
    with play.record.locked() as writer:
        digest, head = hashlib.sha256(whole).hexdigest(), "ab" * 32
        writer.move(
            Moving(model="gone", name="x", head=head, object="", at=0, tail="", sha256=digest, counter=0, kept="kept")
        )
    told: list[str] = []
    with pytest.raises(Unavailable, match="gone is served"), play.record.locked() as writer:
        take_up(writer, play.connect, told.append)
    assert play.text == whole
    assert (play.record.directory / MOVING).exists()
    with play.record.locked() as writer:
        writer.moved()
        arguments = {"model": "gone", "save": "x", "context": "x"}
        writer.ask(Asked(id="1" * 32, at=time.time(), prompt="x", arguments=arguments, before="x", counter=9))
    with pytest.raises(Unavailable, match="gone is served"), play.record.locked() as writer:
        take_up(writer, play.connect, told.append)
    assert play.record.noted("1" * 32)


@pytest.mark.parametrize("name", ["n" * 128, "n" * 121, "/".join("n" * 64), f"{'a/' * 20}b"])
def test_a_long_name_leaves_branches_behind_too(play: Play, name: str) -> None:
    play.branches = Branches(play.record, play.client, "talk", name)
    play.say("one")
    play.say("two")
    whole, head, points = play.text, play.branches.head(), play.branches.scene().alignment.points
    play.go(points[1].at, b"", points[1].object)
    play.pick(play.draw(len(play.text), full_step(3, "USER", "else", "ECHO")))
    play.go(0, b"", "")
    kept = {play.branches.file_of(row.name).read_bytes() for row in play.branches.names(play.branches.row + ".")}
    assert whole in kept
    assert len(kept) == 2
    play.go(0, whole, head)
    assert play.agree()
    play.go(0, b"", "")
    play.client.rm([row.name for row in play.branches.names(name[:60])], model="talk")


def test_names_that_are_cut_stay_apart(play: Play) -> None:
    one, other = (Branches(play.record, play.client, "talk", "n" * 127 + last) for last in "ab")
    assert one.row != other.row
    assert one.file_of("n/" * 60 + "a") != one.file_of("n/" * 60 + "b")


def test_a_kept_transcript_is_as_private_as_the_transcript(play: Play) -> None:
    play.say("one")
    (play.record.directory / TRANSCRIPT).chmod(0o600)
    play.go(0, b"", "")
    (kept,) = play.record.directory.glob(".transcript.play*.txt")
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_drawing_from_nothing_does_not_take_the_file_of_what_was_left_behind_meanwhile(play: Play) -> None:
    play.say("one")
    drawing = play.branches.draw(play.branches.scene(), 0, full_step(1, "USER", "else", "ECHO").encode())
    left = play.branches.keep("", b"by hand")  # without a context, so that only the file has the name
    assert drawing.names == (left,)
    reply = play.client.turn(drawing.prompt, **play.branches.arguments(drawing, 0))
    candidate = play.branches.drawn(drawing, 0, reply)
    assert play.branches.file_of(left).read_bytes() == b"by hand"
    assert play.branches.file_of(candidate.name).read_bytes() == candidate.tail
    play.pick(candidate)
    assert play.agree()
    assert play.branches.file_of(left).read_bytes() == b"by hand"
