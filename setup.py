"""What a wheel holds: one package, `ssmprov`, with the rooms below it. `ssmprov.rooms` finds them there.

An editable install uses the folders of the checkout where they are. Everything else is in pyproject.toml.
"""

import runpy
import sys

from setuptools import find_packages, setup

ROOMS: tuple[str, ...] = runpy.run_path("ssmprov/rooms.py")["ROOMS"]
BELOW = "ssmprov._rooms."

ours = find_packages(include=["ssmprov", "ssmprov.*"])
rooms = find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])
if "editable_wheel" in sys.argv:
    setup(packages=ours + rooms)
else:
    setup(
        packages=[*ours, *(BELOW + package for package in ("config", *rooms))],
        package_dir={BELOW + room: room for room in ("config", *ROOMS)},
    )
