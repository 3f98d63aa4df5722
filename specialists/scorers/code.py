"""Programs: an answer is valid if the language's own parser accepts it. No part of an answer is ever run.

The parsers are `ast` for Python, `json` for JSON, SQLite's compiler for SQL (a missing table is not a syntax error),
`cc -fsyntax-only` for C and `bash -n` for Bash. The last two must be installed; they run in an empty directory, with a
time limit and a memory limit.
"""

from __future__ import annotations

import ast
import json
import re
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing

from specialists.grammars import Offended, element
from specialists.scorers.base import MAX_ANSWER, Expected, Score, text_hits

LIMIT_S = 5
MEMORY_BYTES = 1 << 30
_SPLICE = re.compile(r"\\[ \t\v\f]*\n")
_DIRECTIVE = re.compile(r"(?:#|%:)(?:\s|/\*.*?\*/)*(\w+)[^\n]*", re.DOTALL)
_HEADER = re.compile(
    r"#include <(assert|complex|ctype|errno|float|inttypes|iso646|limits|locale|math|setjmp|signal|stdalign|stdarg|"
    r"stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|tgmath|threads|time|uchar|wchar|wctype)\.h>\Z"
)
"""The headers of the C library, which C may include. Other includes could read any file, or a device without end."""


class _Fault(Exception):
    """Why a parser rejects a text."""


class _Absent(Exception):
    """The parser is not installed on this machine."""


def code(answer: str, expected: Expected) -> Score:
    """An answer `<solution>..</solution>` in the language of the tag `lang`."""
    starts = expected.starts or "<solution>"
    text = answer.lstrip()
    prefix = text.startswith(starts)
    hits = text_hits(answer, expected)
    language = next((tag.partition(":")[2] for tag in expected.tags if tag.startswith("lang:")), "")
    try:
        program, end = element("solution", text, 0)
    except Offended as offended:
        return Score(
            valid=False, prefix=prefix, hits=hits, end=None, why=f"character {offended.at + 1}: {offended.why}"
        )
    end += len(answer) - len(text)
    try:
        check(language, program)
    except _Fault as fault:
        return Score(valid=False, prefix=prefix, hits=hits, end=end, why=str(fault))
    except _Absent as absent:
        return Score(valid=None, prefix=prefix, hits=hits, end=end, why=str(absent))
    return Score(valid=True, prefix=prefix, hits=hits, end=end)


def check(language: str, program: str) -> None:
    """Raises _Fault if the parser rejects the program, and _Absent if the parser is not installed."""
    if language not in PARSERS:
        raise _Fault(f"there is no parser for the language {language!r}: choose from {', '.join(PARSERS)}")
    if len(program) > MAX_ANSWER:
        raise _Fault(f"the program has more than {MAX_ANSWER} characters")
    if "\0" in program:
        raise _Fault("the program contains a NUL")
    PARSERS[language](program)


def _python(program: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings, such as of odd escapes, are not syntax errors
            ast.parse(program)
    except SyntaxError as error:
        raise _Fault(f"line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _Fault(str(error) or type(error).__name__) from None


def _json(program: str) -> None:
    try:
        json.loads(program, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _Fault(str(error)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def _sql(program: str) -> None:
    """Compiles the statements one after the other, and runs none of them."""
    if not sqlite3.complete_statement(program.rstrip().rstrip(";") + ";"):
        raise _Fault("a statement is not complete")
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in _statements(program):
            try:
                connection.execute(f"EXPLAIN {statement}")
            except sqlite3.Error as error:  # only the text distinguishes a missing table from a wrong statement
                if not re.match(r"no such (table|column|function|view|index|module)|.*has no column", str(error)):
                    raise _Fault(str(error)) from None


def _statements(program: str) -> list[str]:
    found, open_ = [], ""
    for part in program.split(";"):
        open_ += part + ";"
        if sqlite3.complete_statement(open_):
            if open_.strip("; \t\r\n"):
                found.append(open_)
            open_ = ""
    return found


def _c(program: str) -> None:
    for directive in _DIRECTIVE.finditer(_SPLICE.sub("", program)):
        if directive[1] == "include" and not _HEADER.match(directive[0].strip()):
            raise _Fault(f"{directive[0].strip()[:60]!r}: only headers of the C library may be included")
        if directive[1] in ("include_next", "import", "embed", "pragma"):
            raise _Fault(f"the directive #{directive[1]} is not allowed")
    _command(["cc", "-fsyntax-only", "-std=gnu17", "-w", "-x", "c", "-"], program)


def _bash(program: str) -> None:
    _command(["bash", "--norc", "--noprofile", "-n"], program)


def _command(command: list[str], program: str) -> None:
    path = shutil.which(command[0])
    if path is None:
        raise _Absent(f"{command[0]} is not installed, so the program cannot be checked")
    with tempfile.TemporaryDirectory(prefix="ssmprov-") as nowhere:
        try:
            done = subprocess.run(
                [path, *command[1:]],
                input=program.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=nowhere,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                timeout=LIMIT_S,
                preexec_fn=_limited,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _Fault(f"{command[0]} did not finish within {LIMIT_S} s") from None
    if done.returncode:
        lines = done.stderr[:4096].decode(errors="replace").splitlines()
        raise _Fault(next((line for line in lines if line.strip()), f"{command[0]} ended with {done.returncode}"))


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24))


PARSERS: dict[str, Callable[[str], None]] = {"python": _python, "json": _json, "sql": _sql, "c": _c, "bash": _bash}
