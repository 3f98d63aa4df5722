"""What the window remembers from one start to the next: `.composer.json` in the directory of the transcript."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from ssmprov import durable

FILE = ".composer.json"
MAX_BYTES = 4 * 1024 * 1024


class Session(msgspec.Struct, kw_only=True):
    """One window's state. Unknown keys of a file are passed over, so an older window reads a newer one's file.

    `geometry` and `layout` are Qt's, in base64 (the latter knows which docks are shown); `compose` and `sampling`
    belong to the panels of those names. `trouble` says what happened to the file when it was read, and is not kept.
    """

    geometry: str = ""
    layout: str = ""
    tab: str = "rendered"
    zoom: int = 0
    compose: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    model: str = ""
    context: str = ""
    send_key: str = ""
    trouble: str = ""


def load(directory: Path) -> Session:
    """The session of a directory; a new one where there is none, or none that can be read."""
    path = directory / FILE
    try:
        if not path.is_file():
            return Session()
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Session(trouble=f"The last session was not restored: {path} cannot be read ({error.strerror}).")
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        session = msgspec.json.decode(data, type=Session)
    except (ValueError, RecursionError) as error:
        return Session(trouble=_set_aside(path, str(error)))
    session.trouble = ""
    return session


def _set_aside(path: Path, why: str) -> str:
    aside = path.with_name(path.name + ".bad")
    where = ""
    with contextlib.suppress(OSError):
        path.replace(aside)
        where = f" It is kept as {aside.name}."
    return f"The last session was not restored: {path.name} is damaged ({why}).{where}"


def save(directory: Path, session: Session) -> str:
    """Write the session; '' or a sentence that says why it was not kept."""
    path = directory / FILE
    try:
        data = msgspec.json.encode(msgspec.structs.replace(session, trouble=""))
    except (TypeError, ValueError, RecursionError) as error:
        return f"The session was not saved: {error}."
    if len(data) > MAX_BYTES:
        return f"The session was not saved: it would take more than {MAX_BYTES // 2**20} MiB. Shorten the unsent text."
    try:
        durable.replace(path, data)
    except OSError as error:
        return f"The session was not saved in {path}: {error.strerror or error}."
    return ""
