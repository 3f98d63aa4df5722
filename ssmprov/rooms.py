"""Where the rooms of ssmprov are, and how they are imported ahead of a user's own modules with the same names.

The rooms are the packages of ssmprov: `broker`, `clients`, `models` and so on. In a checkout they are beside the
package `ssmprov`. A wheel has them below it, so that it installs only one name among other people's packages.

This file imports only the standard library: `setup.py` reads it before anything is installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

ROOMS = (
    "benchmarks", "bridge_tcp", "broker", "clients", "composer", "demo", "models", "research", "sandbox", "shell",
    "specialists", "training", "transcripts", "workers",
)  # fmt: skip

PACKAGE = Path(__file__).parent
BELOW = "_rooms"
"""The folder of the package that holds the rooms in a wheel."""
ROOT = PACKAGE / BELOW if (PACKAGE / BELOW).is_dir() else PACKAGE.parent
"""The folder that holds the rooms."""
CONFIG = ROOT / "config"
"""The default configuration, sampling sets and scripts. It is data and no module, so it hides nobody's `config`."""
SHIPPED = CONFIG / "default.toml"
"""The configuration that is served if the working directory has none."""


class Collision(ImportError):
    """A user's module and a room have the same name, and the program needs both."""


def put_first() -> None:
    """Make imports look for the rooms first from now on. Each of our programs calls this when it starts."""
    _check(*ROOMS)
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT))]


def load(name: str) -> ModuleType:
    """Import a module of a room into a user's program, without changing what its other imports find."""
    _check(name.partition(".")[0])
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT))


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of ours in a new process, whatever PYTHONPATH holds."""
    return [sys.executable, "-P", str(PACKAGE / "start.py"), "-m", module, *arguments]


def missing(room: str, attribute: str) -> Exception:
    """The error for an attribute that a room lacks. It names the user's module of the room's name, if there is one."""
    ordinary = AttributeError(f"module {room!r} has no attribute {attribute!r}")
    if attribute.startswith("_") or PathFinder.find_spec(f"{room}.{attribute}", [str(ROOT / room)]):
        return ordinary  # Python asks for a submodule, too, before it imports it
    hidden = PathFinder.find_spec(room, [entry for entry in sys.path if not _is_ours(entry)])
    if hidden is None or hidden.origin is None:
        return ordinary
    return Collision(
        f"the module {room!r} in this program is ssmprov's own, without {attribute!r}. It hides {hidden.origin}: "
        "give that one another name"
    )


def _check(*names: str) -> None:
    """Raises Collision if a module that is not ours was imported under one of these names."""
    for name in names:
        place = _place(sys.modules.get(name))
        if place and not _is_ours(place):
            raise Collision(
                f"the module {name!r} was loaded from {place}, but ssmprov needs its own module of that name: "
                "give yours another name"
            )


def _place(module: ModuleType | None) -> str:
    """The file of a module, the folder of a package without one, or "" if it has neither."""
    folders: Iterable[str] = getattr(module, "__path__", ())
    return getattr(module, "__file__", None) or next(iter(folders), "")


def _is_ours(place: str) -> bool:
    return Path(place).resolve().is_relative_to(ROOT.resolve())
