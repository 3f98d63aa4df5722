"""`ssmprov asm`: its commands are where its table says, and the group needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from research.cli import ENTRY_POINTS
from ssmprov.main import load_command

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from ssmprov.main import main; sys.exit(main())"


def without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-P", "-c", WITHOUT_TORCH, "asm", *words]
    return subprocess.run(call, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_every_entry_point_is_where_the_table_says_and_takes_the_same_options(name: str) -> None:
    module = ENTRY_POINTS[name][0].partition(":")[0]
    pytest.importorskip(module)
    command = load_command(f"asm {name}", ENTRY_POINTS[name][0])
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--device", "--seed", "--outdir"} <= options


def test_the_group_is_listed_without_torch() -> None:
    done = without_torch("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ENTRY_POINTS)


def test_a_command_without_torch_names_the_extra() -> None:
    done = without_torch("smoke")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "ssmprov: `ssmprov asm smoke` needs the Python module 'torch', which is not installed. "
        "Install the extra that brings it: ssmprov[rwkv]\n"
    )


def test_a_wrong_name_in_the_group_is_answered_with_the_nearest() -> None:
    done = without_torch("smke")
    assert done.returncode == 2
    assert done.stderr == "ssmprov: there is no command 'smke'; did you mean smoke?\nTry 'ssmprov asm --help'.\n"
