"""How a supervised child is started, heard and started again."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.children import LONGEST_DELAY_S, Child, delay_s, ending
from ssmprov.process import EXIT_CONFIGURATION, SUPERVISED


def run_to_its_end(child: Child) -> tuple[int, list[str]]:
    lines: list[str] = []
    with selectors.DefaultSelector() as selector:
        selector.register(child.output, selectors.EVENT_READ)
        while selector.select() and child.relay(lambda who, what: lines.append(f"{who} | {what}")):
            pass
    assert child.process is not None
    child.process.wait()
    status = child.ended(now=1.0)
    assert status is not None
    return status, lines


def program(tmp_path: Path, text: str) -> dict[str, str]:
    """A module `child_program` that says what the test says, and the environment that finds it."""
    (tmp_path / "child_program.py").write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_delays_double_up_to_a_bound() -> None:
    assert [delay_s(n) for n in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert delay_s(7) == delay_s(10**6) == LONGEST_DELAY_S


def test_endings_in_words() -> None:
    assert ending(3) == "ended with status 3"
    assert ending(-9) == "was killed by SIGKILL"
    assert ending(-99) == "was killed by signal 99"


def test_lines_of_both_outputs_are_relayed_whole(tmp_path: Path) -> None:
    environment = program(
        tmp_path, "import os\nos.write(1, b'on')\nos.write(2, b'e\\ntwo\\xff\\n')\nos.write(2, b'without an end')\n"
    )
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(environment, now=0.0)
    assert run_to_its_end(child) == (0, ["w/0 | one", "w/0 | two�", "w/0 | without an end"])
    assert child.last_line == "without an end"


def test_a_logged_line_is_relayed_as_it_is_and_its_text_kept(tmp_path: Path) -> None:
    text = (
        "import logging\nfrom ssmprov import logs\nlogs.start('w/0')\nlogging.getLogger('ssmprov').error('the disk')\n"
    )
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(program(tmp_path, text), now=0.0)
    status, [line] = run_to_its_end(child)
    assert status == 0
    assert line.startswith("w/0 | 20")
    assert line.endswith(" error w/0 | the disk")
    assert child.last_line == "the disk"


def test_a_line_without_end_does_not_grow_without_bound(tmp_path: Path) -> None:
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(program(tmp_path, "print('x' * 1_000_000)"), now=0.0)
    _, lines = run_to_its_end(child)
    assert sum(line.count("x") for line in lines) == 1_000_000
    assert max(map(len, lines)) < 200_000


def test_a_lost_child_is_due_again_and_a_good_life_forgives(tmp_path: Path) -> None:
    environment = program(tmp_path, "from ssmprov.process import ready; ready(); raise SystemExit(3)")
    environment[SUPERVISED] = str(os.getpid())
    child = Child(name="w/0", arguments=["child_program"], rank=1, failures=4)
    child.start(environment, now=0.0)
    assert run_to_its_end(child)[0] == 3
    assert (child.failures, child.due) == (5, 1.0 + delay_s(5))
    child.start(environment, now=-40.0)
    assert run_to_its_end(child)[0] == 3
    assert (child.failures, child.due) == (1, 1.0 + delay_s(1))


def test_a_child_that_cannot_be_configured_is_not_due_again(tmp_path: Path) -> None:
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(program(tmp_path, f"raise SystemExit({EXIT_CONFIGURATION})"), now=0.0)
    assert run_to_its_end(child)[0] == EXIT_CONFIGURATION
    assert child.due is None


def test_a_child_that_crashes_at_every_start_is_given_up(tmp_path: Path) -> None:
    environment = program(tmp_path, "import os\nos.abort()")
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    for _ in range(2):
        child.start(environment, now=0.0)
        assert run_to_its_end(child)[0] == -signal.SIGABRT
        assert child.due is not None
    child.start(environment, now=0.0)
    assert run_to_its_end(child)[0] == EXIT_CONFIGURATION
    assert child.due is None
    assert "SIGABRT after each of 3 starts" in child.last_line
    assert "models check" in child.last_line


READY = "from ssmprov.process import ready\nready()\n"


@pytest.mark.parametrize("more", ["", "ready()\n", "os.environ['SSMPROV_READY_FD'] = 'x'\nready()\n"])
def test_a_child_that_has_served_is_started_again_however_it_crashes(tmp_path: Path, more: str) -> None:
    """It need not say anything: the signal counts, and a second one does no harm."""
    environment = program(tmp_path, f"import os\n{READY}{more}os.abort()") | {"SSMPROV_SUPERVISED": str(os.getpid())}
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    for _ in range(5):
        child.start(environment, now=0.0)
        assert run_to_its_end(child) == (-signal.SIGABRT, [])
        assert child.due is not None


def test_a_child_that_only_says_that_it_serves_has_not_served(tmp_path: Path) -> None:
    environment = program(tmp_path, "import os\nprint('w/0 serves m', flush=True)\nos.abort()")
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    statuses = []
    for _ in range(3):
        child.start(environment, now=0.0)
        statuses.append(run_to_its_end(child)[0])
    assert statuses == [-signal.SIGABRT, -signal.SIGABRT, EXIT_CONFIGURATION]


def test_a_grandchild_cannot_say_that_the_child_serves(tmp_path: Path) -> None:
    """It does not inherit the descriptor, and the supervisor is not its parent."""
    grandchild = (
        "import os\nfrom ssmprov.process import ready\ndescriptor = os.environ['SSMPROV_READY_FD']\nready()\n"
        "print(os.path.exists(f'/proc/self/fd/{descriptor}'), flush=True)\n"
    )
    text = (
        "import os, subprocess, sys\nfrom ssmprov.process import die_with_parent\ndie_with_parent()\n"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}], close_fds=False, check=True)\nos.abort()\n"
    )
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(program(tmp_path, text) | {"SSMPROV_SUPERVISED": str(os.getpid())}, now=0.0)
    assert run_to_its_end(child) == (-signal.SIGABRT, ["w/0 | False"])
    assert not child.served


def test_kill_reaches_what_the_child_has_started(tmp_path: Path) -> None:
    environment = program(
        tmp_path,
        "import subprocess, sys\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(grandchild.pid, flush=True)\ngrandchild.wait()\n",
    )
    child = Child(name="w/0", arguments=["child_program"], rank=1)
    child.start(environment, now=0.0)
    lines: list[str] = []
    with selectors.DefaultSelector() as selector:
        selector.register(child.output, selectors.EVENT_READ)
        while not lines:
            selector.select()
            child.relay(lambda _who, what: lines.append(what))
    child.signal(signal.SIGKILL)
    status, _ = run_to_its_end(child)  # the pipe ends when the grandchild is gone too
    assert status == -signal.SIGKILL
    child.signal(signal.SIGKILL)  # nobody is left: nothing happens


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_supervised_process_dies_with_its_supervisor() -> None:
    """The parent starts a child that asks to die with it, and is killed; the child's end closes the pipe."""
    inner = "from ssmprov.process import die_with_parent; die_with_parent(); print('up', flush=True); input()"
    outer = (
        "import os, subprocess, sys; "
        "env = os.environ | {'SSMPROV_SUPERVISED': str(os.getpid())}; "
        f"p = subprocess.Popen([sys.executable, '-c', {inner!r}], env=env, stdin=subprocess.PIPE); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == b""  # returns only when the child, which holds the pipe too, is gone
    parent.stdout.close()


def test_a_process_whose_supervisor_is_gone_already_ends_at_once() -> None:
    code = "from ssmprov.process import die_with_parent; die_with_parent(); print('lives on')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "SSMPROV_SUPERVISED": "1"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (EXIT_CONFIGURATION, b"")
    alone = subprocess.run(
        [sys.executable, "-c", code], env={k: v for k, v in os.environ.items() if k != "SSMPROV_SUPERVISED"},
        capture_output=True, check=False,
    )  # fmt: skip
    assert alone.stdout == b"lives on\n"
