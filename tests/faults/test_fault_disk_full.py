"""A full disk: every part of a save says so by name, nothing acknowledged is lost, and it works again with space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aftermath import Aftermath
from house import House, opened
from refusing import mounted

from clients.blocking import Client
from ssmprov.errors import NoSpace, SsmprovError

SIZE_KIB = 4096
TEXT = "x" * 2_000
BIN = Path(sys.executable).parent


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A tmpfs of its own."""
    with mounted(path, f"size={SIZE_KIB}k"):
        yield path


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("disk") / "small") as path:
        yield path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[House]:
    """Its store, and what it writes for the time being, are on the small disk."""
    home = tmp_path_factory.mktemp("house")
    (home / ".checkpoints").symlink_to(disk)
    (disk / "tmp").mkdir()
    with opened(home, models=("talk",), environment={"TMPDIR": str(disk / "tmp")}) as house:
        yield house


class Ballast:
    """Fills the disk, but for a number of bytes."""

    def __init__(self, disk: Path) -> None:
        self.path = disk / "ballast"

    def fill(self, spare: int = 0) -> None:
        with self.path.open("ab") as file:
            while True:
                try:
                    os.write(file.fileno(), b"\0" * 4096)
                except OSError:
                    break
        if spare:
            os.truncate(self.path, max(0, self.path.stat().st_size - spare))

    def free(self) -> None:
        self.path.unlink(missing_ok=True)


@pytest.fixture
def ballast(disk: Path) -> Iterator[Ballast]:
    found = Ballast(disk)
    yield found
    found.free()


def attempt(house: House, client: Client, name: str, prompt: str = TEXT) -> SsmprovError | None:
    try:
        house.turn(client, prompt, name, max_tokens=0)
    except SsmprovError as error:
        return error
    return None


def test_a_save_fails_by_name_wherever_the_disk_fills_and_then_works_again(
    house: House, ballast: Ballast, aftermath: Aftermath
) -> None:
    """The spare room grows page by page, so that the object, the catalogue's log and its index each run out of it."""
    named = set()
    with house.client() as client:
        house.turn(client, "before", "ctx", max_tokens=0)
        for pages in range(0, 40, 2):
            ballast.fill(pages * 4096)
            error = attempt(house, client, "ctx")
            assert client.text("talk:ctx") == house.acknowledged["talk:ctx"]
            if error is not None:
                assert isinstance(error, NoSpace), (type(error), str(error), pages)
                file = Path(error.details["file"])
                assert str(file) in str(error)
                named.add("object" if "objects" in file.parts else file.name)
            assert client.turn("!", context="ctx", max_tokens=2).text == "hello"  # what is hot goes on
            ballast.free()
        assert named == {"object", "catalogue.sqlite"}
        house.turn(client, TEXT, "ctx")


OPERATIONS: dict[str, Callable[[Client, Path], object]] = {
    "fork": lambda client, _: client.fork("talk:ctx", ["forked"], overwrite=True),
    "move": lambda client, _: client.move("talk:ctx", ""),
    "settings": lambda client, _: client.settings_set("mine", {"temp": 0.5}, model="talk"),
    "gc": lambda client, _: client.gc(model="talk"),
    "export": lambda client, path: client.export("talk:ctx", path / "out.ssm"),
    "import": lambda client, path: client.import_(path / "in.ssm", "landed", model="talk"),
    "replay": lambda client, _: client.replay("talk:ctx", save="again"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_says_no_space_and_changes_nothing(
    house: House, ballast: Ballast, aftermath: Aftermath, operation: str, tmp_path: Path
) -> None:
    act = OPERATIONS[operation]
    with house.client() as client:
        if "talk:ctx" not in house.acknowledged:
            house.turn(client, TEXT, "ctx", max_tokens=0)
        client.export("talk:ctx", tmp_path / "in.ssm")
        before = client.ls(model="talk").rows
        ballast.fill()
        try:
            act(client, tmp_path)
        except NoSpace as error:
            file = error.details.get("file", "it names no file")
            named = file in str(error)
        else:
            file, named = "", operation in ("fork", "move", "gc", "replay")  # their few bytes may find room in a page
        assert named, file
        if file:
            assert client.ls(model="talk").rows == before
        assert client.turn("!", context="ctx", max_tokens=2).text == "hello"
        ballast.free()
        act(client, tmp_path)
        for made in ("forked", "landed", "again"):
            if client.ls(made, model="talk").rows:
                client.rm([f"talk:{made}"])


def test_a_worker_that_finds_no_room_at_its_start_says_so_and_may_be_started_again(
    house: House, ballast: Ballast, aftermath: Aftermath
) -> None:
    for index in (0, 1):
        assert house.cluster.processes[f"talk/{index}"].stop() == 0
    ballast.fill()
    process = house.start("talk/0")
    said = process.expect(r" error |serves")
    if "serves" not in said:
        assert "the disk is full" in said
        assert "catalogue.sqlite" in said
        assert process.wait() == 1  # and not the status that tells a supervisor to give up
    ballast.free()
    for index in (0, 1):
        house.start(f"talk/{index}").expect(" serves ")
    with house.client() as client:
        house.turn(client, "!", "ctx", max_tokens=2)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with room enough, whose clients write on the small disk."""
    with opened(tmp_path_factory.mktemp("roomy"), models=("talk",)) as house:
        yield house


def pipe(house: House, place: Path, text: str) -> subprocess.CompletedProcess[str]:
    words = [str(BIN / "PIPE"), "--in", "USER", "--out", "X"]
    return subprocess.run(
        words,
        input=text,
        env=house.cluster.environment,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_transcript_without_room_never_tells_more_than_the_context_has_read(
    roomy: House, disk: Path, ballast: Ballast
) -> None:
    place = disk / "place"
    place.mkdir()
    transcript = place / ".transcript.txt"
    assert pipe(roomy, place, "first").returncode == 0
    own = (place / ".context").read_text().strip()
    failures = 0
    with roomy.client() as client:
        for pages in (0, 1, 2, 3, 5, 8):
            ballast.fill(pages * 4096)
            done = pipe(roomy, place, f"with {pages} pages " + TEXT)
            assert "Traceback" not in done.stderr
            if done.returncode:
                failures += 1
                assert done.returncode == 1
                assert f"{place}/.transcript" in done.stderr
                assert "the disk is full" in done.stderr
            assert client.text(own).startswith(transcript.read_text())
            ballast.free()
        assert failures >= 2
        assert pipe(roomy, place, "last").returncode == 0
        assert client.text(own) == transcript.read_text()
        assert {path.name for path in place.iterdir()} == {
            ".context",
            ".transcript.txt",
            ".counter",
            ".transcript.lock",
        }
