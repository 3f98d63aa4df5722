"""How a text file becomes text: UTF-8, with or without the byte-order mark that Windows programs write in front."""

from __future__ import annotations

import codecs
from pathlib import Path

from ssmprov.errors import BadRequest

BOM = codecs.BOM_UTF8
MARK = "\ufeff"
"""The byte-order mark as a character."""

_OTHERS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def without_bom(data: bytes) -> bytes:
    """The bytes of a text without the byte-order mark, which is not part of the text."""
    return data.removeprefix(BOM)


def begin(data: bytes) -> int:
    """Where the text begins: after a byte-order mark, if there is one."""
    return len(BOM) if data.startswith(BOM) else 0


def check_not_utf16(data: bytes, what: str) -> None:
    """Raises BadRequest, which says what to do, if the bytes begin as UTF-16 text does."""
    if data.startswith(_OTHERS):
        raise BadRequest(
            f"{what} is UTF-16 text: save it as UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`", encoding="utf-16"
        )


def exactly(data: bytes, what: str) -> str:
    """The bytes of a text as they are, with any byte-order mark. Raises BadRequest, which names `what`."""
    check_not_utf16(data, what)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{what} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}") from None


def text_of(data: bytes, what: str) -> str:
    """The bytes of a text without a byte-order mark. Raises BadRequest, which names `what`."""
    return exactly(data, what).removeprefix(MARK)


def read(path: Path) -> str:
    """The text of a file; its line ends stay as they are. Raises OSError, and BadRequest, which names the file."""
    return text_of(path.read_bytes(), str(path))
