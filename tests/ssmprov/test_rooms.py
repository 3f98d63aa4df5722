"""ssmprov as a wheel, as an editable install and from a checkout, beside a user's own modules of the same names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Process, scripted_toml

from ssmprov import __version__, rooms
from ssmprov.process import EXIT_CONFIGURATION

CHECKOUT = rooms.ROOT
TURN = "(Turn 3) [USER]: hello\n\n~~~(end)~~~\n\n"
HOSTILE = "raise SystemExit(f'{__file__} was imported')\n"

RUNTIME = """
import config
from workers.runtimes import scripted

def open_runtime(plan):
    assert config.MINE
    return scripted.open_runtime(plan)
"""


# -- three ways to install it


@dataclass(frozen=True)
class Installed:
    """An installation: its Python, the command lines of its programs, and what PYTHONPATH must hold for it."""

    python: str
    path: list[str]
    program: Callable[[str], list[str]]


def environment(folder: Path) -> Path:
    """A fresh virtual environment, which sees the other packages of this one and no ssmprov. Returns its Python."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    others = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    return folder / "bin" / "python"


def build(what: str, sources: Path, folder: Path) -> Path:
    """Has setuptools build a wheel as pip would: `build_wheel`, or `build_editable`, which leads to the sources."""
    call = f"import sys; from setuptools import build_meta; build_meta.{what}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", call, folder], cwd=sources, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built


def install(wheel: Path, python: Path) -> None:
    options = (
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
    )
    command = [sys.executable, "-P", "-m", "pip", "--python", python, "install", *options, wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own, so that nothing is built in this one."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder)
    for name in ("ssmprov", "config", *rooms.ROOMS):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build("build_wheel", sources, folder)


@pytest.fixture(params=["wheel", "editable", "checkout"])
def installed(request: pytest.FixtureRequest, sources: Path, tmp_path: Path) -> Installed:
    python = environment(tmp_path / "venv")
    if request.param == "wheel":
        install(request.getfixturevalue("wheel"), python)
    elif request.param == "editable":
        install(build("build_editable", sources, tmp_path), python)
    else:
        functions = {"ssmprov": "ssmprov.main import main", "PIPE": "ssmprov.programs import pipe as main"}
        call = "import sys; from {}; sys.exit(main())"
        return Installed(
            str(python), [str(sources)], lambda name: [str(python), "-P", "-c", call.format(functions[name])]
        )
    return Installed(str(python), [], lambda name: [str(python.with_name(name))])


# -- a user's own modules


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a module or package for every name that a room has. None of them is ever to be imported."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for index, name in enumerate(rooms.ROOMS):
        if index % 2:
            (folder / name).mkdir()
        (folder / name / "__init__.py" if index % 2 else folder / f"{name}.py").write_text(HOSTILE)
    return folder


def test_it_serves_beside_modules_of_the_same_names(installed: Installed, mine: Path, tmp_path: Path) -> None:
    (mine / "config.py").write_text("MINE = True\n")
    (mine / "my_runtime.py").write_text(RUNTIME)
    (mine / "mine-1.dist-info").mkdir()
    (mine / "mine-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (mine / "mine-1.dist-info" / "entry_points.txt").write_text(
        "[ssmprov.runtimes]\nmy-runtime = my_runtime:open_runtime\n"
    )
    home = tmp_path / "home"
    toml = scripted_toml(home).replace('runtime = "scripted"', 'runtime = "my-runtime"')
    (home / "ssmprov.toml").write_text(
        toml
        + '[[model]]\nname = "hello"\nruntime = "scripted"\npath = "@hello"\n'
        + '[[bridge]]\nport = 0\nmodel = "talk"\n'
    )
    environment = {
        "PATH": os.defpath, "HOME": str(tmp_path), "SSMPROV_HOME": str(home), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(mine), *installed.path]),
    }  # fmt: skip

    def run(line: list[str], text: str = "") -> str:
        done = subprocess.run(
            line, input=text, env=environment, cwd=mine, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    ssmprov = installed.program("ssmprov")
    assert run([*ssmprov, "--version"]) == f"ssmprov {__version__}\n"
    up = Process("up", [*ssmprov, "up", "--ready-file", "ready.json"], environment, home)
    try:
        up.expect(r" up \| serving ")
        assert set(json.loads((home / "ready.json").read_text())["pids"]) == {"broker", "talk/0", "hello/0", "bridge/0"}
        status = json.loads(run([*ssmprov, "status", "--json"]))
        assert {model["name"] for model in status["models"]} == {"talk", "hello"}
        pipe = [*installed.program("PIPE"), "--model", "talk", "--in", "USER", "--out", "INTERFACE"]
        assert "hello!" in run([*pipe, "--save", "first"], "hello")
        assert "hello!" in run([*pipe, "--load", "first", "--save", "second"], "again")
        sdk = f"from ssmprov import Client\nwith Client() as client: print(client.turn({TURN!r}, model='talk').text)"
        assert run([installed.python, "-c", sdk]) == "hello!\n"
    finally:
        up.stop()
    assert up.child.returncode == 0
    [store] = (path.parent for path in home.rglob("catalogue*") if "talk" in str(path))
    assert run([*ssmprov, "ckpt", "verify", "--store", str(store)]).endswith(" 0 faults\n")


def test_a_wheel_installs_one_name_and_everything_that_is_ours(wheel: Path, sources: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read(f"ssmprov-{__version__}.dist-info/top_level.txt") == b"ssmprov\n"
    assert {name.partition("/")[0] for name in names} == {"ssmprov"}
    folders = {"ssmprov": "ssmprov"} | {name: f"ssmprov/{rooms.BELOW}/{name}" for name in ("config", *rooms.ROOMS)}
    ours = {
        f"{place}/{path.relative_to(sources / name).as_posix()}"
        for name, place in folders.items()
        for path in (sources / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    pages = {f"ssmprov/{rooms.BELOW}/models/{page}" for page in ("README.md", "asm/README.md")}
    assert ours - names == pages  # documentation for readers of the sources
    assert names - ours == set()


def test_every_package_of_the_checkout_is_a_room() -> None:
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")}
    assert packages == {"ssmprov", *rooms.ROOMS}


# -- names that collide in one program


def python(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a user's program that lies in this folder."""
    program = folder / "program.py"
    program.write_text(text)
    return subprocess.run([sys.executable, program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_a_users_program_keeps_its_own_modules(tmp_path: Path) -> None:
    for name in ("config", "models"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "clients.py").write_text(HOSTILE)
    text = (
        "import sys; before = list(sys.path)\n"
        "from ssmprov import AsyncClient, Client, Look, Reply, Seen, Stream\n"
        "import config, models\n"
        "print(config.MINE and models.MINE, sys.path == before, Client.__module__, AsyncClient.__module__)\n"
    )
    assert python(tmp_path, text).stdout == "True True clients.blocking clients.aio\n"


def test_a_users_module_that_came_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "clients.py").write_text("")
    done = python(tmp_path, "import clients\nfrom ssmprov import Client\n")
    assert done.stderr.splitlines()[-1] == (
        f"ssmprov.rooms.Collision: the module 'clients' was loaded from {tmp_path}/clients.py, but ssmprov needs its "
        "own module of that name: give yours another name"
    )


@pytest.mark.parametrize("text", ["from clients import helper", "import clients; clients.helper()"])
def test_a_users_module_that_comes_later_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "clients.py").write_text("def helper(): pass\n")
    done = python(tmp_path, f"from ssmprov import Client\n{text}\n")
    assert done.stderr.splitlines()[-1] == (
        "ssmprov.rooms.Collision: the module 'clients' in this program is ssmprov's own, without 'helper'. It hides "
        f"{tmp_path}/clients.py: give that one another name"
    )


def test_a_misspelt_name_is_an_ordinary_error(tmp_path: Path) -> None:
    done = python(tmp_path, "import ssmprov, clients\nprint(hasattr(ssmprov, 'Cleint'), hasattr(clients, 'Cleint'))\n")
    assert (done.stdout, done.stderr) == ("False False\n", "")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (["-c", "import sys; from ssmprov.main import main; sys.exit(main())", "status"], 1),
        ([str(rooms.PACKAGE / "start.py"), "-m", "broker"], EXIT_CONFIGURATION),  # it is not started again and again
    ],
)
def test_a_program_that_finds_a_users_module_loaded_names_it(line: list[str], status: int, tmp_path: Path) -> None:
    (tmp_path / "shell").mkdir()
    (tmp_path / "shell" / "__init__.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text("import shell\n")
    done = subprocess.run(
        [sys.executable, "-P", *line], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == (
        f"ssmprov: the module 'shell' was loaded from {tmp_path}/shell/__init__.py, but ssmprov needs its own module "
        "of that name: give yours another name\n"
    )


def test_the_package_alone_loads_nothing_heavy() -> None:
    call = "import ssmprov, sys; print(sorted({'zmq', 'msgspec', 'click', 'clients', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_module_is_started_as_python_would() -> None:
    start = [sys.executable, "-P", str(rooms.PACKAGE / "start.py")]
    done = subprocess.run([*start, "--module", "broker"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: start.py -m MODULE [ARGUMENT]...\n")
    done = subprocess.run(rooms.command("broker", "--help"), capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Usage: ssmprov broker ")
