"""A house whose workers fault where a test tells them to: see `plugin/tampered.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from house import House

PLUGIN = Path(__file__).with_name("plugin")
DEVICES = ("first", "second")


def environment() -> dict[str, str]:
    """What lets a worker find the runtime."""
    rest = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(PLUGIN), rest)))}


def order(house: House, index: int, at: str, do: str) -> Path:
    """Tell the worker of that index what to do; the file is gone when it does it."""
    path = house.home / f"tamper-{DEVICES[index]}.json"
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps({"at": at, "do": do}))
    return whole.replace(path)


@contextmanager
def tampered(home: Path, **keys: Any) -> Iterator[House]:
    """A warm house of the model `talk`, which can be tampered with."""
    house = House(home, models=("talk",), environment=environment(), devices=list(DEVICES), **keys)
    text = house.cluster.config.read_text()
    house.cluster.config.write_text(text.replace('runtime = "scripted"', 'runtime = "tampered"'))
    try:
        yield house.open().warm()
    finally:
        house.close()
