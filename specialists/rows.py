"""The data format of a specialist: a file of rows, one sample per line, each with a prompt and its answer.

The grammar of its track defines a row (`specialists.grammars`). In a row, `\n` is a line break, `\t` a tab and `\\` a
backslash, so an answer of several lines is still one row. A row may end with `<eos>`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from specialists.grammars import Grammar, Offended
from ssmprov import encoding
from ssmprov.errors import BadRequest

MAX_FILE_BYTES = 256 << 20
MAX_ROW_BYTES = 1 << 20
SHOWN = 8
"""How many offences a report lists. It only counts the others."""

EOS = "<eos>"
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_UNESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Row:
    """One sample without escapes. `line` counts from 1."""

    line: int
    prompt: str
    answer: str
    tags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return _sha256(f"{self.prompt}\0{self.answer}")

    @property
    def prompt_digest(self) -> str:
        return _sha256(self.prompt)


@dataclass(frozen=True, slots=True)
class Offence:
    """Where a file is not valid: line and column (in bytes) from 1, and the byte there (-1: the line's end)."""

    line: int
    column: int
    byte: int
    why: str

    def __str__(self) -> str:
        what = f" (byte 0x{self.byte:02x})" if self.byte >= 0 else ""
        return f"line {self.line}, column {self.column}{what}: {self.why}"


@dataclass(slots=True, kw_only=True)
class Report:
    """The findings in a file of rows. `offended` counts the wrong rows, and `offences` has the first few."""

    path: str
    track: str
    ascii: bool
    sha256: str = ""
    bytes: int = 0
    lines: int = 0
    rows: int = 0
    repeated: int = 0
    longest_bytes: int = 0
    tags: dict[str, int] = field(default_factory=dict)
    offended: int = 0
    offences: list[Offence] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.offended and self.rows > 0

    def refuse(self) -> None:
        """Raises BadRequest with the first offences if the file has any."""
        if self.passed:
            return
        if not self.rows and not self.offended:
            raise BadRequest(f"{self.path} has no rows: write one sample per line")
        told = "\n".join(f"  {offence}" for offence in self.offences)
        more = f"\n  and {self.offended - len(self.offences)} more" if self.offended > len(self.offences) else ""
        raise BadRequest(f"{self.path} has rows that are not valid {self.track} rows:\n{told}{more}")


def read_rows(path: Path, grammar: Grammar, *, ascii_only: bool = True) -> tuple[list[Row], Report]:
    """All valid rows of a file, and a report on the invalid ones.

    Raises BadRequest if the file is too large, and OSError if it cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BadRequest(f"{path} has {size} bytes; a file of rows may have at most {MAX_FILE_BYTES}: split it")
    report = Report(path=str(path), track=grammar.name, ascii=ascii_only)
    hashed, tags, seen = hashlib.sha256(), Counter[str](), set[str]()
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            hashed.update(line)
            report.bytes += len(line)
            report.lines += 1
            if number == 1:
                encoding.check_not_utf16(line, str(path))
                line = encoding.without_bom(line)
            data = line.removesuffix(b"\n").removesuffix(b"\r")
            report.longest_bytes = max(report.longest_bytes, len(data))
            if not data.strip():
                continue
            try:
                row = _row(number, data, grammar, ascii_only)
            except _Broken as broken:
                report.offended += 1
                if len(report.offences) < SHOWN:
                    report.offences.append(broken.offence)
                continue
            rows.append(row)
            tags.update(row.tags)
            report.repeated += row.digest in seen
            seen.add(row.digest)
    report.rows = len(rows)
    report.sha256 = hashed.hexdigest()
    report.tags = dict(sorted(tags.items()))
    return rows, report


def escaped(text: str) -> str:
    """A text with the escapes of a row."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


class _Broken(Exception):
    def __init__(self, offence: Offence) -> None:
        super().__init__(str(offence))
        self.offence = offence


def _row(number: int, data: bytes, grammar: Grammar, ascii_only: bool) -> Row:
    if len(data) > MAX_ROW_BYTES:
        raise _broken(number, data, MAX_ROW_BYTES, f"a row may have at most {MAX_ROW_BYTES} bytes")
    if (at := data.find(b"\0")) >= 0:
        raise _broken(number, data, at, "a NUL is not allowed in text")
    if ascii_only and not data.isascii():
        at = next(i for i, byte in enumerate(data) if byte > 127)
        raise _broken(number, data, at, "not ASCII: set ascii = false to allow it, or replace the character")
    try:
        line = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(number, data, error.start, "not UTF-8") from None
    line = line.removesuffix(EOS)
    try:
        prompt, answer, tags = grammar.take_apart(line)
        return Row(number, unescaped(prompt, line), unescaped(answer, line), tags)
    except Offended as offended:
        at = len(line[: offended.at].encode())
        raise _broken(number, data, at, offended.why) from None


def unescaped(text: str, line: str) -> str:
    """A text from the row `line`, without its escapes. Raises Offended."""

    def undo(match: re.Match[str]) -> str:
        if match[1] not in _UNESCAPED or not match[1]:
            at = line.find(text) + match.start()
            raise Offended(at, f"{match[0]!r} is not a valid escape: write \\n, \\t or \\\\")
        return _UNESCAPED[match[1]]

    return _ESCAPE.sub(undo, text)


def _broken(number: int, data: bytes, at: int, why: str) -> _Broken:
    return _Broken(Offence(number, at + 1, data[at] if at < len(data) else -1, why))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
