"""What the window remembers between two starts: `.composer.json` in the transcript's directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from ssmprov import durable
from ssmprov.causes import explained

FILE = ".composer.json"
MAX_BYTES = 4 * 1024 * 1024


class Session(msgspec.Struct, kw_only=True):
    """The state of one window. Unknown keys in the file are ignored, so an older window can read a newer file.

    `geometry` and `layout` come from Qt, in base64 (`layout` includes which docks are shown). `compose` and `sampling`
    belong to the panels with these names. `trouble` says what went wrong while reading the file; it is not saved.
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
    """The session of a directory. A new one if there is no file, or if the file cannot be read."""
    path = directory / FILE
    try:
        if not path.is_file():
            return Session()
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Session(trouble=explained(error, "The last session was not restored", path).message)
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
    """Write the session. Returns '' or a sentence that says why it was not saved."""
    path = directory / FILE
    try:
        data = msgspec.json.encode(msgspec.structs.replace(session, trouble=""))
    except (TypeError, ValueError, RecursionError) as error:
        return f"The session was not saved: {error}."
    if len(data) > MAX_BYTES:
        return f"The session was not saved: it is larger than {MAX_BYTES // 2**20} MiB. Shorten the unsent text."
    try:
        durable.replace(path, data)
    except OSError as error:
        return explained(error, "The session was not saved", path).message
    return ""
