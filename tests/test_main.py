"""The root command: lazy subcommands, and errors that become one line and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable

import click
import pytest

from ssmprov import __version__, rooms
from ssmprov.errors import BY_CODE, Problem, SsmprovError, error_of
from ssmprov.main import COMMANDS, load_command, main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Adds a subcommand `probe` (in place of ours) that does what the test says."""

    def add(body: Callable[[], object]) -> None:
        module = types.ModuleType("probe_module")
        module.probe = click.command("probe")(body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_module", module)
        monkeypatch.setitem(COMMANDS, "probe", ("probe_module:probe", "A probe."))

    return add


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> None:
        raise error

    return body


def run(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-P", "-c", "import sys; from ssmprov.main import main; sys.exit(main())", *words]
    return subprocess.run(call, check=False, **{"capture_output": True, **options})  # type: ignore[call-overload, no-any-return]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssmprov {__version__}\n"


def test_every_subcommand_is_listed_without_being_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_subcommand_is_where_the_table_says(name: str) -> None:
    found = load_command(name, COMMANDS[name][0])
    assert found.get_short_help_str()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts"], "did you mean status?"),
        (["ckpt", "frok"], "fork"),
        (["--hoem", "x", "status"], "No such option"),
        (["ckpt", "fork", "primed"], "Missing argument"),
        (["ckpt", "fork", "a", "b", "--on", "0", "--spread"], "either --on or --spread"),
        (["pipe", "--out", "INTERFACE"], "--out needs --in"),
        (["settings", "set", "coder", "temp"], "KEY=VALUE"),
        (["ckpt", "replay"], "either a context or --prime"),
        (["ckpt", "move", "primed"], "either a worker or --unpin"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert out == ""
    assert first.startswith("ssmprov: ")
    assert message in first
    assert [line.startswith("Try 'ssmprov") for line in rest] == [True]


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("cls", sorted(BY_CODE.values(), key=lambda cls: cls.code))
def test_an_error_of_the_tree_is_one_line_with_its_exit_code(
    cls: type[SsmprovError], command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(cls("what to do about it")))
    assert main(["probe"]) == cls.exit_code
    assert capsys.readouterr() == ("", "ssmprov: what to do about it\n")


def test_an_unexpected_error_shows_its_traceback_only_when_asked(
    command: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command(raising(ZeroDivisionError("by\nzero")))
    assert main(["probe"]) == 1
    err = capsys.readouterr().err
    assert err == "ssmprov: unexpected ZeroDivisionError: by zero; use `ssmprov --debug ...` to see where it happened\n"
    assert main(["--debug", "probe"]) == 1
    assert "Traceback" in capsys.readouterr().err
    for value, shown in (("1", True), ("yes", True), ("0", False), ("false", False), ("", False)):
        monkeypatch.setenv("SSMPROV_DEBUG", value)
        assert main(["probe"]) == 1
        assert ("Traceback" in capsys.readouterr().err) == shown


def test_a_remote_traceback_is_shown_with_debug(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(error_of(Problem("internal", "it broke", traceback="over there, line 7\n"))))
    assert main(["--debug", "probe"]) == 1
    assert capsys.readouterr().err == "ssmprov: it broke\nover there, line 7\n"


def test_an_interrupt_is_130(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(KeyboardInterrupt()))
    assert main(["probe"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_the_system_names_the_file(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda: os.listdir("/nowhere/at/all"))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "ssmprov: /nowhere/at/all: it or its directory does not exist\n"


def test_global_options_reach_the_subcommand_and_no_further(
    command: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("SSMPROV_BROKER", raising=False)
    monkeypatch.setenv("SSMPROV_HOME", "/before")
    seen: list[tuple[str, str]] = []
    command(lambda: seen.append((os.environ["SSMPROV_HOME"], os.environ["SSMPROV_BROKER"])))
    assert main(["--home", str(tmp_path), "--broker", "tcp://127.0.0.1:1", "probe"]) == 0
    assert seen == [(str(tmp_path), "tcp://127.0.0.1:1")]
    assert os.environ["SSMPROV_HOME"] == "/before"
    assert "SSMPROV_BROKER" not in os.environ


def test_a_missing_extra_is_named(
    command: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(COMMANDS, "window", ("no_such_package.window:window", "A window."))
    assert main(["window"]) == 1
    err = capsys.readouterr().err
    assert "no_such_package" in err
    assert "extra" in err


def test_a_missing_module_of_ours_is_no_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "window", ("shell.window:window", "A window."))
    assert main(["window"]) == 1
    assert capsys.readouterr().err == (
        f"ssmprov: this installation is incomplete: its module 'shell.window' is missing from {rooms.ROOT}. "
        "Install ssmprov again\n"
    )


@pytest.mark.parametrize("words", [["ckpt", "--help"], ["ckpt", "ls", "--help"], ["pipe", "--help"], ["up", "--help"]])
def test_a_subcommand_loads_neither_torch_nor_qt_nor_what_it_does_not_use(words: list[str]) -> None:
    probe = (
        "import sys; from ssmprov.main import main; main(sys.argv[1:]); "
        "print([m for m in ('torch', 'PyQt6', 'rwkv', 'workers', 'clients.aio', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", probe, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_who_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run("--help", stdout=write_end, stderr=subprocess.PIPE, capture_output=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = run("--help", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"the disk is full" in done.stderr
