"""A file as the content of a turn."""

from __future__ import annotations

from pathlib import Path

from ssmprov import encoding
from ssmprov.errors import BadRequest, NotFound

MAX_FILE_BYTES = 8 << 20


def bytes_of(file: Path, most: int) -> bytes:
    """The content of a file, at most `most` bytes of it (-1: all). A pipe or a device does not tell its size."""
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}") from None


def text_of(file: Path) -> str:
    """A file as the content of a turn, byte for byte. Raises BadRequest if it is not text."""
    data = bytes_of(file, MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise BadRequest(f"{file} has more than {MAX_FILE_BYTES >> 20} MiB, the limit for a turn")
    text = encoding.exactly(data, str(file))
    if "\0" in text:
        raise BadRequest(f"{file} has U+0000 at byte {text.encode().index(0)}, which a turn cannot contain")
    return text
