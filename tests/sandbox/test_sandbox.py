"""Code behind the fence. What a failing fence would let through is harmless: canaries, bounded bombs, unused names."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import busy

from sandbox import bubblewrap, kernel, tree_copy
from sandbox import run as sandbox
from sandbox.run import Ended, Limits, Mechanism, run
from ssmprov import keys
from ssmprov.configuration import home_of
from ssmprov.errors import BadRequest, SsmprovError, Unsupported
from ssmprov.keys import AllowList, Role

Run = Callable[..., Ended]


def _available(name: str) -> Mechanism:
    if name == "bubblewrap":
        program, why = bubblewrap.usable()
        if not program:
            pytest.skip(why)
        return Mechanism("bubblewrap", "")
    if kernel.landlock_version() < kernel.LANDLOCK_NEEDED:
        pytest.skip("this kernel has no Landlock of version 3")
    return Mechanism("landlock", "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    (folder / ".ssh/id").write_text("the private key")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(params=["bubblewrap", "landlock"])
def fenced(request: pytest.FixtureRequest, home: Path, work: Path) -> Run:
    """Runs code in `work` with each mechanism that there is."""
    using = _available(request.param)

    def go(code: str, role: Any = "BASH", directory: Path = work, timeout_s: float = 20, **options: Any) -> Ended:
        limits = options.pop("limits", Limits(timeout_s=timeout_s))
        return run(role, code, directory, limits=limits, using=using, **options)

    return go


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the loopback device of the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def _alive(token: str) -> list[int]:
    """The processes that have the token among their arguments."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if token.encode() in arguments:
            found.append(int(entry))
    return found


# What comes back


def test_output_keeps_the_order_of_both_streams(fenced: Run) -> None:
    lines = "".join(f"o{n}\ne{n}\n" for n in range(50)).encode()
    assert fenced("for i in {0..49}; do echo o$i; echo e$i >&2; done") == Ended(lines, 0)
    code = "import sys\nfor i in range(50):\n    print(f'o{i}')\n    print(f'e{i}', file=sys.stderr)"
    assert fenced(code, "PYTHON") == Ended(lines, 0)


@pytest.mark.parametrize(
    ("code", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137), ("nonesuch", 127)],
)
def test_the_status_is_as_a_shell_gives_it(fenced: Run, code: str, status: int) -> None:
    ended = fenced(code)
    assert (ended.status, ended.reason) == (status, "")


def test_any_bytes_come_back(fenced: Run) -> None:
    assert fenced(r"printf '\xc3\xa9\0\xff\n'").output == b"\xc3\xa9\0\xff\n"
    assert fenced("printf 'ü🌍'").output == "ü🌍".encode()


def test_any_text_is_code(fenced: Run) -> None:
    assert fenced("# " + "x" * 3_000_000 + '\necho "é $(printf \'%s\' "\'")"').output == "é '\n".encode()
    assert fenced("print('é\\\\n'", "PYTHON").status == 1
    assert fenced("import sys\nprint('last line')", "PYTHON").output == b"last line\n"
    assert fenced("") == Ended(b"", 0)


def test_a_pipeline_ends_when_its_reader_has_enough(fenced: Run) -> None:
    assert fenced("yes | head -n 1; echo ${PIPESTATUS[0]}") == Ended(b"y\n141\n", 0)


def test_standard_input_is_empty(fenced: Run) -> None:
    assert fenced("cat; echo end").output == b"end\n"


def test_output_is_handed_on_as_it_comes(fenced: Run) -> None:
    got: list[bytes] = []
    seen = threading.Event()

    def take(data: bytes) -> None:
        got.append(data)
        seen.set()

    ended = fenced("echo first; exec sleep 20", on_output=take, cancelled=seen)
    assert (b"".join(got), ended.output, ended.reason) == (b"first\n", b"first\n", "cancelled")


# The directory


def test_new_changed_and_removed_files_come_back(fenced: Run, work: Path) -> None:
    for name in ("changed", "removed", "becomes_folder", "same"):
        (work / name).write_text("old")
    (work / "folder/deep").mkdir(parents=True)
    (work / "folder/deep/file").write_text("old")
    (work / "folder_removed").mkdir()
    (work / "folder_removed/file").write_text("old")
    same = (work / "same").stat()
    ended = fenced(
        "set -e; printf new > changed; rm removed; mkdir -p made/deep; printf 1 > made/deep/x; mv folder/deep moved\n"
        "rm becomes_folder; mkdir becomes_folder; touch becomes_folder/y; rm -r folder_removed; ln -s changed link\n"
        "printf '#!/bin/sh' > tool; chmod 750 tool; touch made/.nested; mkdir folder/.git; touch folder/.git/config"
    )
    assert ended == Ended(b"", 0)
    found = {str(p.relative_to(work)) for p in work.rglob("*")}
    assert found == {
        *("changed", "same", "made", "made/deep", "made/deep/x", "made/.nested", "folder", "folder/.git"),
        *("folder/.git/config", "moved", "moved/file", "becomes_folder", "becomes_folder/y", "link", "tool"),
    }
    assert (work / "changed").read_text() == "new"
    assert (work / "moved/file").read_text() == "old"
    assert os.readlink(work / "link") == "changed"
    assert (work / "tool").stat().st_mode & 0o777 == 0o750
    assert (work / "same").stat().st_ino == same.st_ino


@pytest.mark.parametrize("name", ["with space", "ünï 🌍", "-dash", "quo'te\"$x", "new\nline"])
def test_a_directory_of_any_name(fenced: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    assert fenced("touch made", directory=folder) == Ended(b"", 0)
    assert (folder / "made").exists()


def test_a_directory_behind_a_link(fenced: Run, tmp_path: Path, work: Path) -> None:
    (tmp_path / "link").symlink_to(work)
    (work / ".dot").write_text("kept")
    fenced("touch made; echo x > .dot", directory=tmp_path / "link")
    assert (work / "made").exists()
    assert (work / ".dot").read_text() == "kept"


def test_the_directory_of_temporary_files(fenced: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(work))
    assert fenced("touch made; pwd >&2; exit 3").status == 3
    assert [p.name for p in work.iterdir()] == ["made"]


def test_a_directory_inside_the_home(fenced: Run, home: Path) -> None:
    (home / "project").mkdir()
    ended = fenced("touch made; cat ~/.ssh/id ../.ssh/id", directory=home / "project")
    assert b"private key" not in ended.output
    assert (home / "project/made").exists()


def test_the_home_itself_as_directory(fenced: Run, home: Path) -> None:
    ended = fenced("touch made; cat .ssh/id; rm -rf .ssh; mkdir -p .ssh; echo x > .ssh/id", directory=home)
    assert b"private key" not in ended.output
    assert (home / "made").exists()
    assert (home / ".ssh/id").read_text() == "the private key"


# Dot files


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > .transcript.txt; echo x >> .transcript.txt",
        "rm -rf .transcript.txt .git",
        "mv .transcript.txt other; mv .git other; mv .git .other",
        "echo x > other; mv -f other .transcript.txt; cp other .git/config",
        "ln .transcript.txt hard; echo x > hard; ln -s .transcript.txt soft; echo x > soft",
        "echo x > .git/config; touch .git/new; rm -rf .git/config; mv .git/config .git/other",
        "chmod 777 .transcript.txt .git; truncate -s 0 .transcript.txt; touch -d 2001-01-01 .transcript.txt",
        "rm .link; ln -s /etc .link; echo x > .link",
        "echo x > .new; mkdir -p .made/deep; touch .made/deep/x; ln -s / .away; mkfifo .fifo",
        "unshare -Urm sh -c 'umount .transcript.txt; echo x > .transcript.txt'; umount .transcript.txt; umount -l .git",
    ],
)
def test_dot_files_stay_as_they_are(fenced: Run, work: Path, attempt: str) -> None:
    (work / ".git").mkdir()
    (work / ".git/config").write_text("config")
    (work / ".transcript.txt").write_text("(Turn 0)")
    (work / "target").write_text("target")
    (work / ".link").symlink_to("target")

    def look() -> dict[str, object]:
        return {
            str(p.relative_to(work)): os.readlink(p)
            if p.is_symlink()
            else (p.lstat().st_mode, p.is_file() and p.read_bytes())
            for p in work.rglob("*")
            if p.relative_to(work).parts[0].startswith(".")
        } | {"time": (work / ".transcript.txt").stat().st_mtime_ns}

    before = look()
    fenced(attempt)
    assert look() == before


@pytest.mark.parametrize("inner", ["", "house", "deep/house"], ids=["in it", "above it", "far above it"])
def test_code_changes_nothing_of_ssmprovs_own(
    fenced: Run, work: Path, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = work / inner
    monkeypatch.setenv("SSMPROV_HOME", str(house))
    (house / "run").mkdir(parents=True)
    (house / ".checkpoints").mkdir()
    own = {house / name: name for name in ("ssmprov.toml", "run/bridge-1.json", ".checkpoints/catalogue")}
    for path, text in own.items():
        path.write_text(text)
    attempt = "echo x > ssmprov.toml; rm -rf run/* .checkpoints; mv ssmprov.toml away; ln -sf /etc/passwd ssmprov.toml"
    fenced(f"cd ./{inner}; {attempt}; mv run away2; cd {work}; mv deep house elsewhere; rm -rf deep house; touch plain")
    assert {path: path.read_text() for path in own} == own
    assert (work / "plain").exists()


def test_code_makes_no_configuration(fenced: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMPROV_HOME", str(work))
    assert fenced("echo x > ssmprov.toml; touch plain").dropped == ("ssmprov.toml",)
    assert [path.name for path in work.iterdir()] == ["plain"]


def test_dropped_dot_files_are_named(fenced: Run, work: Path) -> None:
    assert fenced("echo x > .new; mkdir .made; touch .made/x plain").dropped == (".made", ".new")
    assert [p.name for p in work.iterdir()] == ["plain"]


def test_dot_files_can_be_read(fenced: Run, work: Path) -> None:
    (work / ".transcript.txt").write_text("(Turn 0)")
    assert fenced("cat .transcript.txt").output == b"(Turn 0)"


# The rest of the machine


@pytest.mark.parametrize("instead", ["ln -s '{}' here", "touch here"], ids=["a link", "a file"])
def test_a_folder_that_becomes_a_link_leads_no_removal_outside(
    fenced: Run, tmp_path: Path, work: Path, instead: str
) -> None:
    outside = tmp_path / "outside"
    for folder in (work / "here", outside):
        (folder / "papers").mkdir(parents=True)
        (folder / ".profile").write_text("kept")
        (folder / "papers/thesis").write_text("kept")
    assert fenced("rm -r here; " + instead.format(outside)).status == 0
    assert (outside / ".profile").read_text() == (outside / "papers/thesis").read_text() == "kept"
    assert (work / "here").is_symlink() == ("ln" in instead)
    assert not (work / "here").is_dir() or (work / "here").is_symlink()


def test_what_comes_back_goes_through_no_link_that_another_run_has_made(tmp_path: Path, work: Path) -> None:
    outside, copied = tmp_path / "outside", tmp_path / "copied"
    for folder in (work / "here/deep", outside / "deep", copied):
        folder.mkdir(parents=True)
    (work / "here/deep/old").write_text("")
    (outside / "deep/old").write_text("kept")
    before = tree_copy.copy(work, copied)
    (copied / "here/deep/.profile").write_text("new")
    (copied / "here/deep/old").unlink()
    shutil.rmtree(work / "here")
    (work / "here").symlink_to(outside)
    tree_copy.bring_back(copied, work, before)
    assert [path.name for path in (outside / "deep").iterdir()] == ["old"]
    assert (work / "here/deep/.profile").read_text() == "new"


def test_a_pipe_in_the_directory_is_not_replaced_by_what_comes_back(tmp_path: Path, work: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    os.mkfifo(work / "pipe")
    before = tree_copy.copy(work, copied)
    (copied / "pipe").write_text("the code found no pipe here")
    assert tree_copy.bring_back(copied, work, before) == ["pipe"]
    assert (work / "pipe").is_fifo()


@pytest.mark.parametrize("inside", [False, True], ids=["", "below the home directory"])
def test_python3_of_a_version_manager_runs(
    fenced: Run, home: Path, work: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    version, shims = home / ".manager/versions/1", home / ".manager/shims"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", version], check=True)
    shims.mkdir()
    (shims / "python3").write_text(f'#!/bin/sh\nexec {version}/bin/python3 "$@"\n')
    (shims / "python3").chmod(0o755)
    (home / ".manager/secret").write_text("hidden")
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    directory = home / "work" if inside else work
    directory.mkdir(exist_ok=True)
    ended = fenced('python3 -c "import sys, json; print(sys.prefix)"', directory=directory)
    assert (ended.status, ended.output.decode()) == (0, f"{version}\n")
    assert fenced(f"cat {home}/.manager/secret {shims}/python3", directory=directory).status != 0


def test_no_program_that_the_code_may_have_written_is_asked_outside(
    fenced: Run, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "bin").mkdir()
    (work / "bin/python3").write_text(f"#!/bin/sh\ntouch {tmp_path}/outside\n")
    (work / "bin/python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{work}/bin:{os.environ['PATH']}")
    fenced("python3 -c pass")
    assert not (tmp_path / "outside").exists()


def test_nothing_outside_can_be_removed_or_made(fenced: Run, tmp_path: Path, home: Path) -> None:
    canaries = [tmp_path / "_", home, tmp_path / "work/../beside"]
    for canary in canaries:
        canary.mkdir(exist_ok=True)
        (canary / "bird").write_text("alive")
    name = f"canary-{uuid.uuid4().hex}"
    fenced(f"rm -rf ~ {tmp_path}/_ ../beside; mkdir -p {home}; for d in / /*/ /usr/*/ /var/*/; do : > $d{name}; done")
    assert [(canary / "bird").read_text() for canary in canaries] == ["alive"] * 3
    places = [Path("/"), *Path("/").glob("*/"), *Path("/usr").glob("*/"), *Path("/var").glob("*/")]
    assert [place for place in places if os.path.lexists(place / name)] == []


def test_modes_of_files_outside_stay(fenced: Run, tmp_path: Path) -> None:
    (tmp_path / "beside").write_text("x")
    mode = (tmp_path / "beside").stat().st_mode
    fenced(f"chmod 777 {tmp_path}/beside")
    changed = (tmp_path / "beside").stat().st_mode != mode
    if changed and sandbox.mechanism().name != "bubblewrap":
        pytest.skip("Landlock does not hold this where mount namespaces are forbidden")
    assert not changed


def test_kernel_settings_cannot_be_written(fenced: Run) -> None:
    code = "import os\nfor p in ('sys/kernel/core_pattern', 'sys/kernel/modprobe', 'sysrq-trigger'):\n"
    code += "    try: os.close(os.open('/proc/' + p, os.O_WRONLY)); print(p, 'is open')\n    except OSError: pass"
    assert fenced(code, "PYTHON") == Ended(b"", 0)


def test_there_are_no_capabilities(fenced: Run) -> None:
    ended = fenced("grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f 2")
    assert ended.output.split() == [b"0" * 16] * 4
    assert fenced("grep NoNewPrivs /proc/self/status").output.split() == [b"NoNewPrivs:", b"1"]


def test_secrets_cannot_be_read(fenced: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMPROV_KEY", "a secret key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret key")
    ended = fenced(f"env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; cat {home}/.ssh/id ~/.ssh/id; echo looked")
    assert b"secret key" not in ended.output
    assert b"SSMPROV" not in ended.output
    assert b"private key" not in ended.output
    assert ended.output.endswith(b"looked\n")


@pytest.mark.parametrize("inside", [True, False], ids=["where the code works", "elsewhere"])
def test_keys_for_brokers_cannot_be_read_or_changed(
    fenced: Run, work: Path, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access("/opt", os.W_OK):
        pytest.skip("this needs a directory beside the home and the temporary ones, which are hidden anyway")
    outside = tempfile.mkdtemp(prefix="ssmprov-test-", dir="/opt")
    try:
        house, other = work if inside else Path(outside), Path(outside) / "other.key"
        keys.make(house, "broker")
        AllowList(house).allow("broker", "", Role.ADMIN)
        other.write_text("secret-key of mine")
        monkeypatch.setenv("SSMPROV_HOME", str(house))
        monkeypatch.setenv("SSMPROV_KEY", str(other))
        before = {path: path.read_bytes() for path in (house / ".keys").iterdir()}
        attempt = (
            "cat $k/* $o; echo x > $k/broker.pub; mv $k $k.away; mkdir -p $k; echo {} > $k/allowed.json; echo looked"
        )
        ended = fenced(f"k={house}/.keys; o={other}; {attempt}")
        assert b"secret-key" not in ended.output
        assert ended.output.endswith(b"looked\n")
        assert {path: path.read_bytes() for path in (house / ".keys").iterdir()} == before
    finally:
        shutil.rmtree(outside)


def test_a_key_that_is_named_without_a_folder_cannot_be_read(
    fenced: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    (work / "mine.key").write_text("secret-key of mine")
    monkeypatch.setenv("SSMPROV_KEY", "mine.key")
    assert b"secret-key" not in fenced("cat mine.key").output
    assert (work / "mine.key").read_text() == "secret-key of mine"


def test_keys_of_the_usual_working_directory_cannot_be_read_from_another(
    fenced: Run, home: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_DATA_HOME", "SSMPROV_HOME"):
        monkeypatch.delenv(name, raising=False)
    keys.make(home_of(), "client")
    monkeypatch.setenv("SSMPROV_HOME", str(work))
    monkeypatch.setenv("SSMPROV_KEY", "client")
    assert b"secret-key" not in fenced("cat .local/share/ssmprov/home/.keys/*", directory=home).output


def test_a_loopback_server_of_the_host_is_out_of_reach(fenced: Run, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    ended = fenced(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)", "PYTHON")
    assert ended.status == 1
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_network_admits_it(fenced: Run, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).sendall(b'hello')"
    assert fenced(code, "PYTHON", network=True) == Ended(b"", 0)
    with listener.accept()[0] as peer:
        peer.setblocking(True)
        assert peer.recv(5) == b"hello"


@pytest.mark.parametrize("network", [False, True])
def test_unix_sockets_are_out_of_reach(fenced: Run, network: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as short, contextlib.ExitStack() as opened:  # ends at 107 bytes
        for address in (f"{short}/s.sock", f"\0{uuid.uuid4().hex}"):
            server = opened.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
            server.setblocking(False)
            code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({address!r})"
            ended = fenced(code, "PYTHON", network=network)
            assert (ended.status, b"Address family not supported" in ended.output) == (1, True)
            with pytest.raises(BlockingIOError):
                server.accept()


# Limits, and the end of the tree


def test_time_runs_out(fenced: Run) -> None:
    began = time.monotonic()
    ended = fenced("trap '' TERM INT HUP; echo begun; sleep 30 & wait; sleep 30", timeout_s=busy())
    assert ended == Ended(b"begun\n", 137, "timeout")
    assert time.monotonic() - began < 15 * busy()


def test_an_endless_print_is_cut(fenced: Run) -> None:
    ended = fenced("yes", limits=Limits(20, output_bytes=100_001))
    assert (len(ended.output), ended.output[:4], ended.reason) == (100_001, b"y\ny\n", "output")
    assert fenced("printf 12345", limits=Limits(20, output_bytes=5)) == Ended(b"12345", 0)


def test_code_without_output_still_runs_out_of_time(fenced: Run) -> None:
    assert fenced("exec >&- 2>&-; sleep 30", timeout_s=1).reason == "timeout"


BOMB = """
import os, time
end, count = time.monotonic() + 10, 0
try:
    while count < 1200:
        if os.fork() == 0:
            time.sleep(max(0, end - time.monotonic()))
            os._exit(0)
        count += 1
except BlockingIOError:
    pass
print(count, flush=True)
time.sleep(1)
"""


def test_a_fork_bomb_is_bounded(fenced: Run) -> None:
    ended = fenced(BOMB, "PYTHON", limits=Limits(20, processes=40))
    assert ended.reason == "processes" or int(ended.output) <= 340


def test_memory_of_one_process_is_bounded(fenced: Run) -> None:
    ended = fenced("x = bytearray(600 << 20)", "PYTHON", limits=Limits(20, memory_bytes=300 << 20))
    assert ended.status == 1
    assert b"MemoryError" in ended.output


def test_memory_of_the_tree_is_bounded(fenced: Run) -> None:
    code = "import os, time\nfor _ in range(4): os.fork() or (x := b'x' * (90 << 20), time.sleep(20), os._exit(0))"
    ended = fenced(code + "\ntime.sleep(20)", "PYTHON", limits=Limits(25, memory_bytes=200 << 20))
    assert (ended.status, ended.reason) == (137, "memory")


def test_a_file_cannot_grow_for_ever(fenced: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "FILE_BYTES", 1 << 20)
    assert fenced("dd if=/dev/zero of=big bs=1M count=4 2>&1").status == 153  # 128 + SIGXFSZ
    assert (work / "big").stat().st_size <= 1 << 20


DAEMON = """
import os, sys
ready, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        os.write(told, b"the daemon is up")
        os.closerange(3, 20)
        os.execv(sys.executable, ["python", "-c", "import time; time.sleep(60)", TOKEN])
    os._exit(0)
print(os.read(ready, 100).decode())
"""


def test_a_daemon_ends_with_the_code(fenced: Run) -> None:
    token = uuid.uuid4().hex
    assert fenced(f"TOKEN = {token!r}\n{DAEMON}", "PYTHON") == Ended(b"the daemon is up\n", 0)
    assert _alive(token) == []


@pytest.mark.parametrize("kind", ["event", "descriptor", "function"])
def test_cancel(fenced: Run, kind: str) -> None:
    event = threading.Event()
    ready, told = os.pipe()

    def take(_: bytes) -> None:
        event.set()
        os.write(told, b"x")

    try:
        ways: dict[str, Any] = {"event": event, "descriptor": ready, "function": event.is_set}
        ended = fenced("echo begun; sleep 30; echo late", on_output=take, cancelled=ways[kind], timeout_s=30)
    finally:
        os.close(ready)
        os.close(told)
    assert ended == Ended(b"begun\n", 137, "cancelled")


def test_a_fault_of_the_reader_ends_the_tree(fenced: Run) -> None:
    token = uuid.uuid4().hex

    def fail(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fenced(f"echo begun; bash -c 'sleep 30; :' {token}", on_output=fail)
    assert _alive(token) == []


CALLER = """
import sys
from pathlib import Path
from sandbox.run import Limits, Mechanism, run
show = lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush())
using = Mechanism(sys.argv[3], "") if sys.argv[3] else None
run("BASH", sys.argv[1], Path(sys.argv[2]), limits=Limits(60), on_output=show, using=using, unsafe=using is None)
"""


@pytest.mark.parametrize("name", ["bubblewrap", "landlock", ""])
def test_the_tree_ends_when_its_caller_is_killed(tmp_path: Path, work: Path, name: str) -> None:
    if name:
        _available(name)
    token = uuid.uuid4().hex
    code = f"(setsid bash -c 'echo up; sleep 60; :' {token} &); sleep 60"
    root = Path(sandbox.__file__).parents[1]
    caller = [sys.executable, "-c", CALLER, code, str(work), name]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # where it leaves its scratch directory
    with subprocess.Popen(caller, cwd=root, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        watched = [os.pidfd_open(pid) for pid in _alive(token)]
        assert watched
        process.send_signal(signal.SIGKILL)
        for fd in watched:
            assert select.select([fd], [], [], 20)[0] == [fd]
            os.close(fd)


# Where there is no fence


def test_without_a_fence_it_refuses_and_says_what_helps(work: Path) -> None:
    with pytest.raises(Unsupported, match=r"no Landlock.*install bubblewrap.*--unsafe"):
        run("BASH", "touch made", work, using=Mechanism(None, "this kernel has no Landlock"))
    assert list(work.iterdir()) == []


def test_the_mechanism_says_why_it_is_not_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "usable", lambda: ("", "bubblewrap is not installed"))
    monkeypatch.setattr(kernel, "landlock_version", lambda: 2)
    assert sandbox.mechanism().name is None
    assert "only version 2" in sandbox.mechanism().reason
    monkeypatch.setattr(kernel, "landlock_version", lambda: 3)
    assert sandbox.mechanism() == Mechanism("landlock", "bubblewrap is not installed")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "6.2", "", "riscv64")))
    assert sandbox.mechanism().name is None
    monkeypatch.setattr(bubblewrap, "usable", lambda: ("/usr/bin/bwrap", ""))
    assert sandbox.mechanism() == Mechanism("bubblewrap", "")


def test_unsafe_is_plain_but_bounded(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMPROV_KEY", "a secret key")
    token = uuid.uuid4().hex
    assert run("BASH", "echo $SSMPROV_KEY; echo x > .dot; exit 3", work, unsafe=True) == Ended(b"a secret key\n", 3)
    assert (work / ".dot").read_text() == "x\n"
    assert run("PYTHON", f"TOKEN = {token!r}\n{DAEMON}", work, unsafe=True).status == 0
    assert _alive(token) == []
    assert run("BASH", "sleep 30", work, unsafe=True, limits=Limits(0.5)) == Ended(b"", 137, "timeout")
    assert run("PYTHON", BOMB, work, unsafe=True, limits=Limits(20, processes=40)).reason == "processes"


def test_what_cannot_be_run(work: Path) -> None:
    role: Any = "USER"
    with pytest.raises(BadRequest, match="only BASH and PYTHON turns can"):
        run(role, "", work)
    with pytest.raises(BadRequest, match="not a directory"):
        run("BASH", "", work / "nonesuch")
    with pytest.raises(BadRequest, match="not run in /"):
        run("BASH", "", Path("/"))


def test_a_fence_that_cannot_be_set_up_is_no_result_of_the_code(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    using = _available("bubblewrap")
    monkeypatch.setattr(bubblewrap, "view", lambda *_, **__: ["--ro-bind", "/nonesuch", "/"])
    with pytest.raises(SsmprovError, match=r"was not run.*nonesuch"):
        run("BASH", "echo ran", work, using=using)
