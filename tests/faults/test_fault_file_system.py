"""File systems without locks, read-only ones, and users without the permission: each is told as what it is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, Process, scripted_toml
from refusing import NO_LOCKS, Refusing, make_read_only, mounted

from ssmprov.process import EXIT_CONFIGURATION

BIN = Path(sys.executable).parent
UP = ("-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Refusing:
    return Refusing(tmp_path_factory.mktemp("library"))


@pytest.fixture
def cluster(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> Cluster:
    return make_cluster(scripted_toml(tmp_path))


def up(cluster: Cluster) -> Process:
    cluster.environment.pop("SSMPROV_SUPERVISED")
    return cluster.start("up", *UP)


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_broker_without_locks_does_not_speak_of_another_broker(
    cluster: Cluster, refusing: Refusing, number: int
) -> None:
    cluster.environment |= refusing.environment(cluster.home / "run", flock=number)
    broker = cluster.broker()
    said = broker.expect(" error ")
    assert "no file locks" in said
    assert "local disk" in said
    assert "another broker" not in said
    assert broker.wait() == EXIT_CONFIGURATION


def test_another_broker_is_still_told_as_that(cluster: Cluster) -> None:
    first = cluster.broker()
    with cluster.client() as client:
        client.status()
    second = cluster.start("second", "-m", "broker")
    assert "another broker" in second.expect(" error ")
    assert second.wait() == EXIT_CONFIGURATION
    assert first.stop() == 0


@pytest.mark.parametrize(
    ("number", "why"), [(errno.EROFS, "file system is read-only"), (errno.EACCES, "does not have the permission")]
)
def test_a_broker_that_may_not_write_says_why(cluster: Cluster, refusing: Refusing, number: int, why: str) -> None:
    cluster.environment |= refusing.environment(cluster.home / "run", writes=number)
    broker = cluster.broker()
    said = broker.expect(" error ")
    assert why in said
    assert str(cluster.home / "run") in said
    assert broker.wait() == EXIT_CONFIGURATION


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        ({"flock": errno.ENOLCK}, "no file locks"),
        ({"parts": errno.ENOLCK}, "no file locks"),
        ({"parts": errno.EOPNOTSUPP}, "no file locks"),
        ({"writes": errno.EROFS}, "file system is read-only"),
        ({"writes": errno.EACCES}, "does not have the permission"),
    ],
)
def test_up_tells_why_a_store_cannot_be_used_and_does_not_try_for_ever(
    cluster: Cluster, refusing: Refusing, refused: dict[str, int], why: str
) -> None:
    store = cluster.home / ".checkpoints"
    store.mkdir()
    cluster.environment |= refusing.environment(store, **refused)
    process = up(cluster)
    said = process.expect(r" up \| talk/0 cannot start: ")
    assert why in said
    assert str(store) in said
    assert process.wait() == 1
    assert not any("started again" in line or "Traceback" in line for line in process.lines)


def test_up_on_a_read_only_disk_is_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        (disk / "ssmprov.toml").write_text(cluster.config.read_text())
        make_read_only(disk)
        cluster.environment["SSMPROV_HOME"] = str(disk)
        process = up(cluster)
        assert process.wait() == 1
        [line] = process.lines
        assert "file system is read-only" in line
        assert str(disk) in line


def pipe(cluster: Cluster, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "PIPE"), "--in", "USER", "--out", "X"],
        input="hello",
        env={**cluster.environment, **environment},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        ({"flock": errno.ENOLCK}, "no file locks"),
        ({"flock": errno.EOPNOTSUPP}, "no file locks"),
        ({"writes": errno.EROFS}, "file system is read-only"),
        ({"writes": errno.EACCES}, "does not have the permission"),
    ],
)
def test_a_transcript_that_cannot_be_recorded_says_why(
    talk: Cluster, refusing: Refusing, tmp_path: Path, refused: dict[str, int], why: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = pipe(talk, place, refusing.environment(place, **refused))
    assert done.returncode == 1
    assert done.stdout == ""
    assert why in done.stderr
    assert str(place) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place / ".transcript.txt").exists()


def test_too_many_open_files_are_not_told_as_damage(cluster: Cluster) -> None:
    script = """
import os, resource, sys
from pathlib import Path
from ssmprov.errors import Unavailable
from workers.checkpoints.files import Files
from workers.checkpoints.objects import Objects
objects = Objects(Path(sys.argv[1]), Files())
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1,) * 2)
try:
    objects.read("ab" * 32)
except Unavailable as error:
    print(error.details["cause"])
"""
    words = [sys.executable, "-P", "-c", script, str(cluster.home)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("too_many_files\n", "")
