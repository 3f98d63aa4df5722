"""Every program finds the same working directory and the same socket, however it is started and the path is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Process, scripted_toml

from clients import Client
from ssmprov.configuration import NOTE, SHARED_HOME

PROGRAM = str(Path(sys.executable).with_name("ssmprov"))
UP = ("-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up", "--ready-file", "ready.json")
LONG = "a working directory with a name that is much too long for a socket " * 3


class Person:
    """Somebody whose working directory was noted by the installer, and the environment of a login there."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        home.mkdir(parents=True)
        (home / "ssmprov.toml").write_text(scripted_toml(folder))
        (folder / NOTE).parent.mkdir(parents=True)
        (folder / NOTE).write_text(f"{home}\n")
        self.environment = {
            "HOME": str(folder),
            "PATH": os.defpath,
            "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "TMPDIR": str(folder / "tmp"),
        }
        for name in ("runtime", "tmp"):
            (folder / name).mkdir()
        self.up = Process("up", UP, self.environment, folder)
        self.up.expect(r" up \| serving ")

    def ask(self, *words: str, **environment: str) -> str:
        """What `ssmprov` answers with this environment and no other."""
        done = subprocess.run(
            [PROGRAM, *words, "status", "--json"], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        [worker] = json.loads(done.stdout)["workers"]
        return str(worker["name"])


@pytest.fixture(scope="module", params=["short", LONG])
def person(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("person")
    it = Person(folder, folder / request.param.strip())
    yield it
    assert it.up.stop() == 0
    assert sorted(path.name for path in (it.home / "run").iterdir()) == ["broker.sock.lock"]
    assert [*(folder / "runtime").iterdir(), *(folder / "tmp").iterdir()] == []


def test_cron_ssh_and_other_sessions_find_it(person: Person, tmp_path: Path) -> None:
    home = {"HOME": str(person.folder)}
    assert person.ask(**home) == "talk/0"
    assert person.ask(**home, XDG_RUNTIME_DIR="/nowhere", TMPDIR=str(tmp_path), XDG_DATA_HOME="/nowhere") == "talk/0"


def test_every_spelling_of_the_directory_leads_to_the_same_socket(person: Person, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(person.home)
    spellings = (person.home, tmp_path / "link", f"{person.home}/../{person.home.name}", f"{person.home}/")
    for spelling in spellings:
        assert person.ask(SSMPROV_HOME=str(spelling), HOME="/nowhere") == "talk/0"
        assert person.ask("--home", str(spelling), HOME="/nowhere") == "talk/0"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be called by sudo")
def test_root_finds_it_where_it_is_named(person: Person) -> None:
    assert person.ask(SSMPROV_HOME=str(person.home), HOME="/root", SUDO_UID="1", SUDO_USER="daemon") == "talk/0"


def test_a_second_one_is_told_who_serves_however_the_directory_is_written(person: Person, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(person.home)
    for name in ("link", "."):
        environment = {"HOME": "/nowhere", "PATH": os.defpath, "SSMPROV_HOME": str(tmp_path / name)}
        if name == ".":
            environment = dict(person.environment)
        second = Process("second", UP, environment, tmp_path)
        second.expect(rf"another broker serves .*process {person.up.child.pid}")
        assert second.wait() == 1


def test_a_client_that_was_there_first_connects_when_the_broker_comes(tmp_path: Path) -> None:
    home = tmp_path / LONG.strip()
    with Client(home=home, timeout_s=100) as client:
        cluster = Cluster(home, scripted_toml(tmp_path))
        try:
            cluster.up()
            assert client.turn("x").text == "hello!"
        finally:
            cluster.close()


@pytest.mark.skipif(os.access(SHARED_HOME, os.W_OK), reason="this user may use /_")
def test_without_a_note_up_and_its_clients_agree_too(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.defpath}
    home = tmp_path / ".local/share/ssmprov/home"
    home.mkdir(parents=True)
    (home / "ssmprov.toml").write_text(scripted_toml(tmp_path))
    up = Process("up", UP, environment, tmp_path)
    up.expect(rf" up \| working directory: {home}")
    up.expect(r" up \| serving talk \(default\) at ipc://")
    done = subprocess.run([PROGRAM, "models"], env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, "talk")
    assert up.stop() == 0
