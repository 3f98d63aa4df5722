"""Runs a module of ssmprov as a program: `python -P .../ssmprov/start.py -m MODULE [ARGUMENT]...`.

It is run by its path, so it belongs to the installation that starts it, whatever PYTHONPATH holds. See
`ssmprov.rooms.command`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ssmprov import rooms
    from ssmprov.process import EXIT_CONFIGURATION

    del sys.path[0]
    try:
        rooms.put_first()
    except rooms.Collision as error:
        print(f"ssmprov: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    match sys.argv[1:]:
        case ["-m", module, *arguments]:
            sys.argv[1:] = arguments
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case _:
            sys.exit("usage: start.py -m MODULE [ARGUMENT]...")


if __name__ == "__main__":
    main()
