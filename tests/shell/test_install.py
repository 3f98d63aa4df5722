"""`install.sh` in a temporary HOME: what it makes, keeps, backs up and takes away again."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ssmprov import __version__, transcript
from ssmprov.configuration import NOTE, home_of, load

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "install.sh"
VENV = Path(sys.executable).parents[1]
PROGRAMS = ["ssmprov", "PIPE", "GET_FILE", "PUT_FILE", "RUN", "QUOTE", "GET", "PUT"]
LAUNCHERS = [*PROGRAMS, "MODEL", "COMPOSER"]
DOT_FILES = [".s1.txt", ".s2.txt", ".s3.txt", ".counter"]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

SAYS_ITSELF = '#!/bin/sh\nprintf "%s|" "${0##*/}" "$PWD" "${SSMPROV_HOME-none}" "$@"\n'
PYTHON_STAND_IN = """\
#!/bin/sh
printf '%s\\n' "$*|${CMAKE_ARGS-}" >>"$LOG"
case "$*" in
  "-m venv -- "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/pip" && touch "$4/pyvenv.cfg" ;;
  "-m pip "*) ls -R >>"$LOG.sources"; touch "${0%/*}/ssmprov" ;;
esac
"""

Log = Callable[..., list[str]]
Tree = dict[str, tuple[int, bytes]]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Person:
    """Somebody with a home directory, who installs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "it's a home"
        self.home.mkdir()
        self.bin = self.home / "bin"
        self.work = self.home / "work place"
        self.environment = {"HOME": str(self.home), "PATH": SYSTEM_PATH, "SHELL": "/bin/bash"}
        self.venv = self.home / "stand in"
        for name in PROGRAMS:
            program(self.venv / "bin" / name, SAYS_ITSELF)

    def start(self, *command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **environment}
        return subprocess.run(
            command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip

    def call(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.start(str(SCRIPT), *words, cwd=self.home, **environment)

    def launch(self, name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.start(str(self.bin / name), *words, cwd=Path("/"), **environment)

    def install(self, *words: str, venv: Path | None = None, **environment: str) -> str:
        chosen = ("--no-install", "--venv", str(venv or self.venv), "--home", str(self.work))
        done = self.call(*chosen, *words, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def said(self, name: str, *words: str, **environment: str) -> list[str]:
        """What a stand-in behind a launcher was called with: its name, folder, SSMPROV_HOME, arguments."""
        return self.launch(name, *words, **environment).stdout.split("|")[:-1]

    def tree(self) -> Tree:
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.home)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


# -- what is there afterwards


def test_a_fresh_install_has_launchers_a_configuration_and_the_dot_files(person: Person) -> None:
    person.install()
    assert sorted(path.name for path in person.bin.iterdir()) == sorted(LAUNCHERS)
    assert all(os.access(path, os.X_OK) for path in person.bin.iterdir())
    assert (person.work / ".checkpoints").is_dir()
    assert [model.name for model in load(home=person.work).tables.model] == ["rwkv7-mini"]
    roles = (person.work / ".s1.txt").read_text()
    names = "ANALYSIS BASH CONTEXT FILE INTERFACE OUTPUT PLAN PYTHON QUERY QUOTE RECAP USER VISITOR"
    assert [ast.literal_eval(line) for line in roles.splitlines()] == [f"[{name}]: " for name in names.split()]
    assert (person.work / ".s3.txt").read_text() == roles
    dividers = (person.work / ".s2.txt").read_text().splitlines()
    assert [ast.literal_eval(line) for line in dividers] == [transcript.HALF_FENCE, transcript.FENCE]
    assert (person.work / ".counter").read_text() == "0"


def test_launchers_start_the_programs_of_the_environment_in_the_home_that_was_chosen(person: Person) -> None:
    person.install()
    for name in PROGRAMS:
        assert person.said(name, "a b", "$c") == [name, "/", str(person.work), "a b", "$c"]
    assert person.said("PIPE", SSMPROV_HOME="/elsewhere")[2] == "/elsewhere"
    assert person.said("MODEL", "--x") == ["ssmprov", str(person.work), str(person.work), "up", "--x"]


def test_composer_opens_the_window_in_the_working_directory(person: Person) -> None:
    person.install()
    assert person.said("COMPOSER", "--context", "x") == [
        "ssmprov", str(person.work), str(person.work), "composer", "--context", "x"
    ]  # fmt: skip


def test_the_application_answers_behind_its_launchers(person: Person) -> None:
    person.install(venv=VENV)
    assert person.launch("ssmprov", "--version").stdout == f"ssmprov {__version__}\n"
    (person.work / "ssmprov.toml").write_text("nonsense")
    assert f"{person.work}/ssmprov.toml" in person.launch("MODEL").stderr


@pytest.mark.skipif(not (VENV / "bin" / "PIPE").exists(), reason="this environment is older than the program PIPE")
def test_pipe_answers_behind_its_launcher(person: Person) -> None:
    person.install(venv=VENV)
    assert person.launch("PIPE", "--help").stdout.startswith("Usage: PIPE ")


def test_the_home_is_where_ssmprov_looks_by_itself_or_where_the_launchers_say(person: Person) -> None:
    before = person.tree()
    said = person.call("--no-install", "--venv", str(person.venv), "--dry-run").stdout
    allowed = os.access("/_" if Path("/_").exists() else "/", os.W_OK)
    expected = "/_" if allowed else f"{person.home}/.local/share/ssmprov/home"
    assert f"would make {expected}/.checkpoints" in said or (Path(expected) / ".checkpoints").is_dir()
    assert person.tree() == before
    if not allowed:
        assert home_of(person.environment) == Path(expected)


def test_a_home_that_was_chosen_is_found_by_every_program(person: Person) -> None:
    person.install()
    assert home_of(person.environment) == person.work  # `make up` in a checkout, a program of the environment, cron
    assert home_of({"HOME": str(person.home), "XDG_CONFIG_HOME": "/other", "XDG_DATA_HOME": "/other"}) == person.work
    person.install("--home", "elsewhere")
    assert home_of(person.environment) == person.home / "elsewhere"
    assert person.said("MODEL")[2] == str(person.home / "elsewhere")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_without_the_shared_home_finds_the_one_that_was_made() -> None:
    if Path("/_").exists():
        pytest.skip("this machine has a /_")
    with tempfile.TemporaryDirectory() as folder:
        person = Person(Path(folder))
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 12345, 12345)
        done = subprocess.run(
            [str(SCRIPT), "--no-install", "--no-source", "--venv", str(person.venv)],
            env=person.environment, cwd=folder, user=12345, group=12345, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        work = person.home / ".local/share/ssmprov/home"
        assert (work / "ssmprov.toml").exists()
        assert (person.said("MODEL")[2], home_of(person.environment)) == (str(work), work)
        (person.home / NOTE).unlink()
        child = os.fork()
        if child == 0:  # this user: where programs look by themselves
            os.setresuid(12345, 12345, 12345)
            os._exit(home_of(person.environment) != work)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_home_of_the_environment_is_taken_and_noted(person: Person) -> None:
    done = person.call("--no-install", "--venv", str(person.venv), SSMPROV_HOME=str(person.home / "from the shell"))
    assert (done.returncode, done.stderr) == (0, "")
    assert home_of(person.environment) == person.home / "from the shell"
    assert person.said("PIPE")[2] == str(person.home / "from the shell")


def test_contexts_that_are_there_already_are_kept_in_use(person: Person) -> None:
    if os.access("/_" if Path("/_").exists() else "/", os.W_OK):
        pytest.skip("this user may use /_")
    (person.home / ".local/share/ssmprov/.checkpoints").mkdir(parents=True)  # of `make up`, before
    done = person.call("--no-install", "--venv", str(person.venv))
    assert (done.returncode, done.stderr) == (0, "")
    assert home_of(person.environment) == person.home / ".local/share/ssmprov"
    assert person.said("PIPE")[2] == str(person.home / ".local/share/ssmprov")


def test_the_service_starts_the_launcher_which_knows_the_home(person: Person) -> None:
    person.install()
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string((ROOT / "config/ssmprov.service").read_text())
    program, *words = unit["Service"]["ExecStart"].replace("%h", str(person.bin.parent)).rsplit(" ", 1)
    assert program == str(person.bin / "ssmprov")
    assert person.said("ssmprov", *words) == ["ssmprov", "/", str(person.work), "up"]
    assert "Environment" not in unit["Service"]


# -- the source


def test_a_copy_of_the_source_is_kept_and_brought_up_to_date(person: Person) -> None:
    source = person.home / "src" / "ssmprov"
    person.install("--no-source")
    assert not source.exists()
    person.install()
    for name in ("install.sh", "ssmprov/main.py", "config/ssmprov.service", "docs/shell.md"):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    assert not [path for path in source.rglob("*") if path.name in (".git", ".venv", "__pycache__")]
    before = person.tree()
    person.install()
    assert person.tree() == before
    assert person.call("--uninstall").returncode == 0
    assert (source / "install.sh").exists()


def test_a_source_that_somebody_changed_is_kept_beside_it(person: Person) -> None:
    source = person.home / "src" / "ssmprov"
    source.mkdir(parents=True)
    (source / "mine").write_text("my own")
    person.install()
    (source / "README.md").write_text("changed")
    person.install()
    kept = sorted(source.parent.glob("ssmprov.bak-*"))
    assert [(kept[0] / "mine").read_text(), (kept[1] / "README.md").read_text()] == ["my own", "changed"]
    assert (source / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


def test_the_copy_installs_too(person: Person) -> None:
    person.install()
    copy = person.home / "src" / "ssmprov" / "install.sh"
    done = person.start(str(copy), "--no-install", "--venv", str(person.venv), cwd=person.home)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (person.home / "src").joinpath("ssmprov.new").exists()


# -- what is kept


def test_running_it_again_changes_nothing(person: Person) -> None:
    person.install()
    before = person.tree()
    said = person.install()
    assert person.tree() == before
    assert said.startswith("ssmprov: launchers in ")
    noted = person.call("--no-install")  # environment and home need not be said again
    assert (noted.returncode, noted.stdout, noted.stderr) == (0, said, "")
    assert person.tree() == before


def test_files_of_the_home_are_kept(person: Person) -> None:
    person.work.mkdir()
    kept = {name: f"my own {name}" for name in ("ssmprov.toml", ".transcript.txt", *DOT_FILES)}
    for name, text in kept.items():
        (person.work / name).write_text(text)
    person.install()
    assert {name: (person.work / name).read_text() for name in kept} == kept


def test_a_foreign_program_is_kept_beside_ours(person: Person) -> None:
    program(person.bin / "PIPE", "the old one")
    (person.bin / "RUN").symlink_to("/nowhere")
    program(person.bin / "OTHER", "not ours to touch")
    person.install()
    person.install()
    [pipe] = person.bin.glob("PIPE.bak-*")
    [run] = person.bin.glob("RUN.bak-*")
    assert re.fullmatch(r"PIPE\.bak-[0-9]{8}", pipe.name)
    assert (pipe.read_text(), run.readlink()) == ("the old one", Path("/nowhere"))
    assert person.said("PIPE")[0] == "PIPE"
    program(person.bin / "PIPE", "another one, on the same day")
    person.install()
    kept = sorted(path.read_text() for path in person.bin.glob("PIPE.bak-*"))
    assert kept == ["another one, on the same day", "the old one"]
    assert (person.bin / "OTHER").read_text() == "not ours to touch"


def test_our_own_launcher_is_brought_up_to_date_without_a_backup(person: Person) -> None:
    person.install()
    person.install("--home", str(person.home / "moved"))
    assert person.said("PIPE")[2] == str(person.home / "moved")
    assert sorted(path.name for path in person.bin.iterdir()) == sorted(LAUNCHERS)


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(person: Person) -> None:
    program(person.bin / "PIPE", "the old one")
    before = person.tree()
    said = person.install("--dry-run")
    assert person.tree() == before
    assert not person.work.exists()
    assert all(line.startswith("would ") for line in said.splitlines())
    for name in (*LAUNCHERS, *DOT_FILES, "ssmprov.toml", ".bashrc", "PIPE.bak-"):
        assert name in said
    person.install()
    before = person.tree()
    assert "would remove" in person.install("--dry-run", "--uninstall")
    assert person.tree() == before


# -- PATH


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_a_new_terminal_finds_the_launchers(shell: str, file: str, person: Person) -> None:
    (person.home / file).write_text("# mine, without a last line feed: true")
    person.install(SHELL=f"/usr/bin/{shell}")
    first, line = (person.home / file).read_text().splitlines()
    assert first == "# mine, without a last line feed: true"
    assert "PATH" in line
    assert not (person.home / (".zshrc" if shell == "bash" else ".bashrc")).exists()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    found = person.start(shell, "-ic", "command -v PIPE", cwd=person.home)
    assert found.stdout == f"{person.bin}/PIPE\n"


def test_the_line_stands_in_each_file_that_is_there_and_in_that_of_the_shell_in_use(person: Person) -> None:
    real = person.home / "dotfiles"
    real.write_text("")
    (person.home / ".bashrc").symlink_to(real)
    person.install(SHELL="/usr/bin/zsh")
    assert (person.home / ".bashrc").is_symlink()
    assert real.read_text() == (person.home / ".zshrc").read_text() != ""


@pytest.mark.parametrize(
    "line",
    [
        'export PATH="$HOME/bin:$PATH"',
        "PATH=$PATH:~/bin",
        'if [ -d "$HOME/bin" ] ; then PATH="${HOME}/bin:$PATH"; fi',
        "path+=(~/bin) # PATH",
    ],
)
def test_a_folder_that_is_on_path_there_is_not_put_there_again(line: str, person: Person) -> None:
    (person.home / ".bashrc").write_text(line + "\n")
    person.install()
    assert (person.home / ".bashrc").read_text() == line + "\n"


@pytest.mark.parametrize("line", ["# PATH=~/bin:$PATH", "PATH=$HOME/binaries:$PATH", "alias x=~/bin/x", ""])
def test_a_line_that_does_not_put_it_there_is_not_taken_for_one(line: str, person: Person) -> None:
    (person.home / ".bashrc").write_text(line + "\n")
    person.install()
    assert (person.home / ".bashrc").read_text() != line + "\n"


def test_a_shell_without_a_start_file_of_ours_is_told_what_to_do(person: Person) -> None:
    said = person.install(SHELL="/usr/bin/tcsh")
    assert f"put {person.bin} on the PATH of your shell, /usr/bin/tcsh\n" in said


def test_fish_finds_the_launchers_through_a_file_of_their_own(person: Person) -> None:
    file = person.home / ".config/fish/conf.d/ssmprov.fish"
    person.install(SHELL="/usr/bin/fish")
    [line] = file.read_text().splitlines()
    assert line.startswith("contains -- ")
    before = person.tree()
    person.install(SHELL="/usr/bin/fish")
    assert person.tree() == before
    if shutil.which("fish"):
        found = person.start("fish", "-ic", "command -v PIPE", cwd=person.home)
        assert found.stdout == f"{person.bin}/PIPE\n"
    assert person.call("--uninstall", SHELL="/usr/bin/fish").returncode == 0
    assert not file.exists()


def test_zsh_finds_the_launchers_where_its_files_are(person: Person) -> None:
    folder = person.home / "zsh files"
    folder.mkdir()
    person.install(SHELL="/usr/bin/zsh", ZDOTDIR=str(folder))
    assert "PATH" in (folder / ".zshrc").read_text()
    assert not (person.home / ".zshrc").exists()
    assert person.call("--uninstall", SHELL="/usr/bin/zsh", ZDOTDIR=str(folder)).returncode == 0
    assert (folder / ".zshrc").read_text() == ""


# -- taking it away


def test_uninstall_takes_away_what_is_ours_and_keeps_the_work(person: Person) -> None:
    (person.home / ".bashrc").write_text("# mine\n")
    program(person.bin / "OTHER", "other")
    person.install()
    program(person.bin / "QUOTE", "put here later")
    (person.work / ".checkpoints" / "context").write_text("precious")
    (person.work / ".transcript.txt").write_text("(Turn 1) [USER]: keep me")
    work = {path: path.read_bytes() for path in person.work.rglob("*") if path.is_file()}
    done = person.call("--uninstall")
    assert done.returncode == 0
    assert f"kept: {person.work}, with" in done.stdout
    assert f"kept: {person.venv}, which install.sh did not install" in done.stdout
    left = {path.name: path.read_text() for path in person.bin.iterdir()}
    assert left == {"OTHER": "other", "QUOTE": "put here later"}
    assert (person.home / ".bashrc").read_text() == "# mine\n"
    assert {path: path.read_bytes() for path in person.work.rglob("*") if path.is_file()} == work
    assert (person.venv / "bin" / "ssmprov").exists()
    assert person.call("--uninstall").returncode == 0


def test_uninstall_of_one_prefix_leaves_another_on_path(person: Person) -> None:
    person.install()
    line = (person.home / ".bashrc").read_text()
    person.install("--prefix", "other")
    assert (person.home / "other/bin/PIPE").exists()
    assert person.call("--uninstall", "--prefix", "other").returncode == 0
    assert (person.home / ".bashrc").read_text() == line
    assert list((person.home / "other/bin").iterdir()) == []
    assert (person.bin / "PIPE").exists()


# -- the environment


@pytest.fixture
def python(person: Person) -> Log:
    """Installs with a stand-in for Python, and tells what that was called with."""
    stand_in = program(person.home / "python stand in", PYTHON_STAND_IN)
    log = person.home / "log"

    def install(*words: str) -> list[str]:
        log.write_text("")
        environment = {"PYTHON": str(stand_in), "LOG": str(log), "CXX": "true"}
        done = person.call("--home", str(person.work), *words, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return [line for line in log.read_text().splitlines() if not line.startswith("-c ")]

    return install


def test_the_environment_is_made_filled_and_left_alone_until_something_changes(person: Person, python: Log) -> None:
    venv = person.home / ".local/share/ssmprov/venv"
    made, filled = python()
    assert made == f"-m venv -- {venv}|"
    assert filled.endswith("-c constraints.txt .[rwkv,metrics,composer]|")
    sources = (person.home / "log.sources").read_text().split()
    assert {"pyproject.toml", "LICENSE", "transcript.py", "default.toml", "rwkv7-mini.safetensors"} <= set(sources)
    assert not {"tests", "__pycache__", "build"} & {word.strip("./:") for word in sources}
    assert python() == []
    [filled] = python("--extras", "")
    assert filled.endswith("-c constraints.txt .|")
    assert python() == []  # extras, too, are as they were
    assert not (ROOT / "build").exists()
    person.call("--uninstall")
    assert not venv.exists()


def test_the_environment_has_pip_settings_of_its_own(person: Person, python: Log) -> None:
    python()
    settings = person.home / ".local/share/ssmprov/venv/pip.conf"
    assert settings.read_bytes() == (ROOT / "tools/pip.conf").read_bytes()
    assert "cp tools/pip.conf $(VENV)/pip.conf" in (ROOT / "Makefile").read_text()


def test_a_users_own_pip_settings_do_not_send_packages_elsewhere(person: Person, tmp_path: Path) -> None:
    venv, elsewhere = person.home / "venv", person.home / "elsewhere"
    settings = person.home / ".config/pip/pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[global]\nuser = true\nrequire-virtualenv = true\n[install]\ntarget = {elsewhere}\n")
    wheel = tmp_path / "nothing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("nothing.py", "")
        file.writestr("nothing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
        file.writestr("nothing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.dist-info/RECORD", "")
    made = person.start(sys.executable, "-m", "venv", str(venv), cwd=person.home)
    assert made.returncode == 0, made.stderr
    shutil.copy(ROOT / "tools/pip.conf", venv)
    install = (str(venv / "bin/python"), "-m", "pip", "install", "--no-index", str(wheel))
    done = person.start(*install, cwd=person.home)
    assert done.returncode == 0, done.stderr
    assert list(venv.glob("lib/python*/site-packages/nothing.py"))
    assert not elsewhere.exists()


def test_llama_is_built_as_in_the_makefile_and_tried(person: Person, python: Log) -> None:
    *_, filled, tried = python("--extras", "llama")
    [flags] = re.findall(r"^LLAMA_FLAGS := (.*?) \$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert filled.endswith(f".[llama]|{flags} ")
    assert tried.startswith("-P -m ssmprov.start -m workers.runtimes.llama.probe 0|")


# -- what goes wrong says what to do


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--prefix"], 2, "--prefix needs a value"),
        (["--prefix", ""], 2, "--prefix needs a folder"),
        (["--unistall"], 2, "unknown option --unistall"),
        (["--extras", "llama;x"], 2, "--extras takes names separated by commas"),
        (["--prefix", "file"], 1, "file/bin: choose another folder with --prefix DIR"),
        (["--venv", "file"], 1, "file: choose another folder with --venv DIR"),
        (["--home", "file/x"], 1, "file/x: choose another folder with --home DIR"),
        (
            ["--venv", "full"],
            1,
            "full is not a virtual environment, and not empty: choose another folder with --venv DIR",
        ),
        (["--venv", "none", "--no-install"], 1, "leave --no-install out"),
        ([], 1, "false is not Python 3.11 or newer: name another one"),
        (["--extras", "llama"], 1, "sudo apt install g++"),
    ],
)
def test_a_fault_is_one_sentence_and_leaves_everything_as_it_was(
    words: list[str], code: int, says: str, person: Person
) -> None:
    (person.home / "file").write_text("in the way")
    program(person.home / "full" / "something", "else")
    before = person.tree()
    python = "python3" if "llama" in words else "false"
    chosen = words if "--home" in words else ["--home", str(person.work), *words]
    done = person.call("--dry-run", *chosen, PYTHON=shutil.which(python) or python, CXX="no-compiler")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("install.sh:") == 1
    assert person.tree() == before


def test_no_python_at_all_says_how_to_get_one(person: Person) -> None:
    few = person.home / "few"
    few.mkdir()
    for name in ("bash", "dirname", "env", "sed", "cat", "head", "grep"):
        (few / name).symlink_to(shutil.which(name) or name)
    done = person.call("--home", str(person.work), PATH=str(few))
    assert done.returncode == 1
    assert "ssmprov needs Python 3.11 or newer: install it" in done.stderr
    assert not person.work.exists()


def test_help_names_every_option(person: Person) -> None:
    done = person.call("--help")
    assert done.returncode == 0
    options = re.findall(r"^ +(?:-h \| )?(--[a-z-]+)", SCRIPT.read_text(), re.MULTILINE)
    assert {"--prefix", "--dry-run", "--uninstall"} <= set(options)
    assert all(option in done.stdout for option in options)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed here")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, "")
