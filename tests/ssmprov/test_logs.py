"""What a service logs, on real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssmprov.logs import text_of

PROGRAM = """
import logging, sys
from ssmprov import logs
logs.start("talk/0")
log = logging.getLogger("workers.worker")
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("a %s", level)
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("trouble")
"""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
MAIN = "import sys; from ssmprov.main import main; sys.exit(main())"


def said(program: str, level: str = "") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "SSMPROV_LOG"}
    if level:
        environment["SSMPROV_LOG"] = level
    return subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["a debug", "a info", "a warning", "a error", "trouble"]),
        ("", ["a info", "a warning", "a error", "trouble"]),
        ("warning", ["a warning", "a error", "trouble"]),
        ("error", ["a error", "trouble"]),
    ],
)
def test_each_record_is_one_line_with_time_level_and_service(level: str, heard: list[str]) -> None:
    lines = said(PROGRAM, level).stderr.splitlines()
    assert [text_of(line) for line in lines] == heard
    assert re.fullmatch(rf"{TIME} error talk/0 \| a error", lines[-2])


def test_what_others_sent_stays_on_its_line() -> None:
    sent = "x\n2026-01-01T00:00:00.000+00:00 info up | forged \x1b[2J"
    done = said(PROGRAM + f"log.error('%s', {sent!r})")
    last = done.stderr.splitlines()[-1]
    assert text_of(last) == r"x\n2026-01-01T00:00:00.000+00:00 info up | forged \x1b[2J"


def test_a_traceback_stays_on_its_line() -> None:
    done = said(PROGRAM + "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('it failed')\n")
    last = done.stderr.splitlines()[-1]
    assert str(text_of(last)).startswith("it failed\\nTraceback")
    assert "ZeroDivisionError" in last


def test_other_lines_are_not_records() -> None:
    assert text_of("Traceback (most recent call last):") is None
    assert text_of("talk/0 | 2026-01-01T00:00:00.000+00:00 info up | x") is None


@pytest.mark.parametrize(
    "words",
    [["-m", "broker"], ["-m", "workers", "--model", "m"], ["-m", "bridge_tcp"], ["-c", MAIN, "up"]],
    ids=["broker", "worker", "bridge", "up"],
)
def test_a_level_that_does_not_exist_is_a_clear_error(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", *words],
        env={**os.environ, "SSMPROV_HOME": str(tmp_path), "SSMPROV_LOG": "loud"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SSMPROV_LOG is 'loud': use debug, info, warning, error or leave it unset" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_log_that_nobody_reads_ends_nothing() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM + "print('on')"], stderr=write_end, stdout=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.stdout == b"on\n"
