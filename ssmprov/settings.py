"""Sampling settings: their ranges, and the named sets that come with a model or that a user saves.

A set is a JSON object with the keys in `KEYS`. A missing key takes its value from the model's default set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from ssmprov import durable, encoding
from ssmprov.errors import BadRequest, NotFound, nearest
from ssmprov.names import check_name
from ssmprov.rooms import CONFIG

SUFFIX = ".json"
MAX_SET_BYTES = 64 * 1024


class Settings(msgspec.Struct, frozen=True, omit_defaults=False, kw_only=True):
    """One sampling set. Temperature 0 means greedy. top_k 0, top_p 1, min_p 0 and penalties 0, 0, 1 switch these off.

    `max` is the longest reply in characters.
    """

    temp: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    pen_freq: float = 0.0
    pen_pres: float = 0.0
    pen_rep: float = 1.0
    max: int = 8192


RANGES: dict[str, tuple[float, float]] = {
    "temp": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "pen_freq": (-10.0, 10.0),
    "pen_pres": (-10.0, 10.0),
    "pen_rep": (0.01, 10.0),
    "max": (1, 1 << 20),
}
KEYS = tuple(RANGES)
WHOLE = frozenset({"top_k", "max"})


def check_value(key: str, value: object) -> float:
    """The value of one setting as a number. Raises BadRequest, which names the key and its range."""
    if key not in RANGES:
        raise BadRequest(f"{key!r} is not a setting{nearest(key, KEYS)}")
    low, high = RANGES[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_nan(value):
        raise BadRequest(f"{key} must be a number from {low:g} to {high:g}, not {value!r:.40}")
    if not low <= value <= high:  # integers of any size can be compared, but not all of them can become a float
        raise BadRequest(f"{key} must be between {low:g} and {high:g}")
    if key in WHOLE:
        if value != int(value):
            raise BadRequest(f"{key} must be a whole number, not {value:g}")
        return int(value)
    return float(value)


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def parse_value(key: str, text: str) -> float:
    """The value of one setting as a person typed it. Raises BadRequest if it is invalid."""
    try:
        number = int(text) if key in WHOLE else float(text)
    except ValueError:  # also of an integer with more digits than Python reads
        raise BadRequest(f"{key} must be a number, not {text[:40]!r}") from None
    return check_value(key, number)


def apply(base: Settings, values: Mapping[str, object]) -> Settings:
    """`base` with the given values, each checked."""
    return msgspec.structs.replace(base, **{key: check_value(key, value) for key, value in values.items()})


def as_values(settings: Settings) -> dict[str, float]:
    return {key: getattr(settings, key) for key in KEYS}


def set_name(text: str) -> str:
    """A set's name as a person may type it: `coder` or `coder.json`."""
    return check_name(text.removesuffix(SUFFIX) or text, of="a set")


def parse_set(text: str, base: Settings, where: str) -> Settings:
    """A base set, changed by a set's JSON. Raises BadRequest, which names `where`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{where} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadRequest(f"{where} must hold a JSON object with settings")
    try:
        return apply(base, values)
    except BadRequest as error:
        raise BadRequest(f"{where}: {error}") from None


def dump_set(settings: Settings) -> str:
    return json.dumps(as_values(settings), indent=1) + "\n"


class Sets:
    """The named sets that a model may use: first the user's own in `folder`, then the shipped ones."""

    def __init__(self, folder: Path | None, default: str = "") -> None:
        self.folder = folder
        self.default_name = set_name(default) if default else ""

    def names(self) -> list[str]:
        own = [] if self.folder is None else [str(p.relative_to(self.folder)) for p in _files(self.folder)]
        return sorted({name.removesuffix(SUFFIX) for name in (*own, *shipped())})

    def default(self) -> Settings:
        return self.load(self.default_name) if self.default_name else Settings()

    def load(self, name: str) -> Settings:
        """A set by name; what it leaves out comes from the model's default. Raises NotFound, which suggests a name."""
        name = set_name(name)
        text, where = self._read(name)
        base = Settings() if name == self.default_name or not self.default_name else self.default()
        return parse_set(text, base, where)

    def resolve(self, name: str, values: Mapping[str, object]) -> Settings:
        """The set `name` ('' for the model's default) with the given values changed."""
        return apply(self.load(name) if name else self.default(), values)

    def save(self, name: str, settings: Settings) -> tuple[str, int]:
        """Write a set into the user's folder, atomically and durably. Returns its name and its size in bytes."""
        assert self.folder is not None, "only sets with a folder can be saved"
        name = set_name(name)
        path = self.folder / (name + SUFFIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise BadRequest(
                f"{name!r} cannot be the name of a set, because a part of it already names one: choose another name"
            ) from None
        if path.is_dir():
            raise BadRequest(
                f"{name!r} cannot be the name of a set, because other sets have names below it: choose another name"
            )
        data = dump_set(settings).encode()
        try:
            durable.write(path, data)
        except OSError as error:
            error.filename = str(path)
            raise
        for folder in (path.parent, *path.parent.parents):  # up to the store's folder, because they may be new
            durable.sync(folder)
            if folder == self.folder.parent:
                break
        return name, len(data)

    def _read(self, name: str) -> tuple[str, str]:
        if self.folder is not None:
            path = self.folder / (name + SUFFIX)
            if path.is_file() and not path.is_symlink():
                if path.stat().st_size > MAX_SET_BYTES:
                    raise BadRequest(
                        f"{path} is too large for a sampling set: at most {MAX_SET_BYTES} bytes are allowed"
                    )
                return encoding.read(path), str(path)
        if name in shipped():
            return _shipped_text(name), name
        raise NotFound(f"there is no sampling set {name!r}{nearest(name, self.names())}")


def _files(folder: Path) -> list[Path]:
    return (
        sorted(p for p in folder.rglob("*" + SUFFIX) if p.is_file() and not p.is_symlink()) if folder.is_dir() else []
    )


@cache
def shipped() -> list[str]:
    """The names of the sets that come with ssmprov."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in CONFIG.iterdir() if entry.name.endswith(SUFFIX))


@cache
def _shipped_text(name: str) -> str:
    return (CONFIG / (name + SUFFIX)).read_text(encoding="utf-8")
