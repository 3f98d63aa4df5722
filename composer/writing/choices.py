"""The files behind the drop-downs: reads and watches `.s1.txt`, `.s2.txt` and `.s3.txt` of the directory.

Each line that is not empty contains one Python string literal. A bad line is reported and skipped.
"""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

from PyQt6.QtCore import QFileSystemWatcher, QObject, QTimer, pyqtSignal

from composer.writing.draft import unsendable
from ssmprov.causes import explained
from ssmprov.encoding import without_bom
from ssmprov.transcript import FENCE, HALF_FENCE

OPENING, DIVIDER, REPLY = LISTS = ("s1", "s2", "s3")
ROLES = (
    "ANALYSIS", "BASH", "CONTEXT", "FILE", "INTERFACE", "OUTPUT", "PLAN",
    "PYTHON", "QUERY", "QUOTE", "RECAP", "USER", "VISITOR",
)  # fmt: skip
MAX_BYTES = 64 * 1024
MAX_LINES = 500
SETTLE_MS = 80
"""How long to wait after a change: an editor that truncates and then writes makes two changes."""
_ROLE = re.compile(r"\[([^\[\]\r\n]{1,64})\]: \Z")
_LABEL_LENGTH = 28


def role_literal(role: str) -> str:
    return f"[{role}]: "


def defaults(name: str) -> list[str]:
    """The entries of a list without a file. install.sh writes the same."""
    return [HALF_FENCE, FENCE] if name == DIVIDER else [role_literal(role) for role in ROLES]


def default_text(name: str) -> str:
    """The content of a file with the default entries."""
    return "".join(f"{quoted(value)}\n" for value in defaults(name))


def quoted(value: str) -> str:
    """A value as a line of the file."""
    inner = repr(value)[1:-1]
    return f'"{inner}"' if '"' not in value and "'" not in value else repr(value)


def label(value: str) -> str:
    """How a value is shown in the drop-down."""
    if found := _ROLE.match(value):
        return found[1]
    known = {"": "(none)", HALF_FENCE: "half step", FENCE: "full step"}
    if value in known:
        return known[value]
    shown = repr(value)
    return shown if len(shown) <= _LABEL_LENGTH else shown[: _LABEL_LENGTH - 1] + "…"


def read_line(line: str) -> str:
    """The value of one line. Raises ValueError with a message that says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape keeps its backslash
            value = ast.literal_eval(line.strip())
    except SyntaxError as error:
        raise ValueError(f"this is not a string in quotes ({error.msg})") from None
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise ValueError("this is not a string in quotes") from None
    if not isinstance(value, str):
        raise ValueError(f"this has the type {type(value).__name__}: put it in quotes to make it a string")
    if found := unsendable(value):
        raise ValueError(f"this contains {found[1]}")
    return value


def read_lines(data: bytes) -> tuple[list[str], list[tuple[int, str]]]:
    """The values of a file in order and without duplicates, and its bad lines as (line number, problem)."""
    values: dict[str, None] = {}
    troubles: list[tuple[int, str]] = []
    if len(data) > MAX_BYTES:
        return [], [(1, f"the file is larger than {MAX_BYTES // 1024} KiB, so it is not read")]
    for number, raw in enumerate(without_bom(data).split(b"\n"), 1):
        if not raw.strip():
            continue
        if number > MAX_LINES:
            troubles.append((number, f"only the first {MAX_LINES} lines are read"))
            break
        try:
            values[read_line(raw.decode("utf-8"))] = None
        except UnicodeDecodeError:
            troubles.append((number, "this is not valid UTF-8"))
        except ValueError as error:
            troubles.append((number, str(error)))
    values.pop("", None)  # every drop-down begins with a blank entry anyway
    return list(values), troubles


class Choices(QObject):
    """The entries of the three drop-downs, kept up to date with their files."""

    changed = pyqtSignal(str)  # the name of the list: "s1", "s2" or "s3"

    def __init__(self, directory: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.directory = directory
        self._values: dict[str, list[str]] = {}
        self._troubles: dict[str, list[str]] = {}
        self._watcher = QFileSystemWatcher(self)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.refresh)
        self._watcher.directoryChanged.connect(lambda _: self._settle.start())
        self._watcher.fileChanged.connect(lambda _: self._settle.start())
        self.refresh()

    def path(self, name: str) -> Path:
        return self.directory / f".{name}.txt"

    def values(self, name: str) -> list[str]:
        return list(self._values[name])

    def troubles(self) -> list[str]:
        """One sentence for each problem in the files."""
        return [trouble for name in LISTS for trouble in self._troubles[name]]

    def refresh(self) -> None:
        """Read the files now."""
        self._watch()
        for name in LISTS:
            values, troubles = self._read(name)
            former = self._values.get(name), self._troubles.get(name)
            self._values[name], self._troubles[name] = values, troubles
            if former not in ((None, None), (values, troubles)):
                self.changed.emit(name)

    def _watch(self) -> None:
        """Watch the directory and the files. A replaced file is no longer watched, so all are added again."""
        watched = {*self._watcher.files(), *self._watcher.directories()}
        for path in (self.directory, *map(self.path, LISTS)):
            if str(path) not in watched and path.exists():
                self._watcher.addPath(str(path))

    def _read(self, name: str) -> tuple[list[str], list[str]]:
        path = self.path(name)
        try:
            if path.exists() and not path.is_file():
                return defaults(name), [f"{path.name} is not a file, so the default list is shown."]
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return defaults(name), []
        except OSError as error:
            return defaults(name), [
                explained(error, f"{path.name} cannot be read, so the default list is shown").message
            ]
        values, troubles = read_lines(data)
        if len(data) > MAX_BYTES:
            values = defaults(name)
        return values, [f"{path.name}, line {number}: {what}." for number, what in troubles]
