"""The runtimes that are installed, and the options of each: the keys of a `[[model]]` table that it alone knows.

An entry point in the group `ssmprov.runtimes` names the function `open_runtime` of a module. If the module has a struct
`Options`, its fields are keys of every table that names this runtime. Reading a configuration imports the module, so
it imports its libraries only in `open_runtime`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

import msgspec

from ssmprov.errors import BadRequest, nearest

GROUP = "ssmprov.runtimes"

S = TypeVar("S", bound=msgspec.Struct)


class NoOptions(msgspec.Struct):
    """The options of a runtime that declares none."""


def options_of(runtime: str) -> type[msgspec.Struct] | None:
    """The struct of a runtime's options; None if this runtime cannot be imported here, which its worker will report.

    '' means that the table names no runtime, so it has no options.
    """
    if not runtime:
        return NoOptions
    for entry in entry_points(group=GROUP, name=runtime):
        try:
            found: type[msgspec.Struct] = getattr(import_module(entry.module), "Options", NoOptions)
        except ImportError:
            return None
        return found
    return None


def decode_options(given: Mapping[str, Any], kind: type[S], runtime: str, known: Iterable[str] = ()) -> S:
    """Options as their runtime declares them; `known` are keys of a table that all runtimes share.

    Raises BadRequest that names the key, the nearest one that there is, and what this runtime takes; `details` has the
    `key`.
    """
    own = kind.__struct_fields__
    for key in given:
        if key not in own:
            takes = f" (the runtime {runtime} takes {', '.join(own) or 'no further keys'})" if runtime else ""
            raise BadRequest(f"unknown key {key!r}{nearest(key, (*known, *own))}{takes}", key=key)
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), key=_wrong_key(given, kind)) from None


def _wrong_key(given: Mapping[str, Any], kind: type[msgspec.Struct]) -> str:
    """The first key whose value is wrong by itself, or ''."""
    for key, value in given.items():
        try:
            msgspec.convert({key: value}, kind)
        except msgspec.ValidationError:
            return key
    return ""
