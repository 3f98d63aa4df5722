"""What is looked at after every fault: nothing acknowledged is lost, nothing is left over, nobody is orphaned."""

from __future__ import annotations

import os

import psutil
from house import PATIENCE_S, House, until

from clients.blocking import Client


class Aftermath:
    """Remembers what a quiet house has open, and compares when a test is done."""

    def __init__(self, house: House) -> None:
        self.house = house.warm()
        self.open_files = house.open_files()

    def check(self) -> None:
        if not self.house.supervised:
            self.house.mend()
        self.processes()
        with self.house.client() as client:
            self.texts(client)
            self.stores(client)
        self.files()

    def texts(self, client: Client) -> None:
        """The text of each context is what was acknowledged, byte for byte."""
        for key, text in self.house.acknowledged.items():
            assert client.text(key) == text, f"{key} is not what was acknowledged"

    def stores(self, client: Client) -> None:
        """Every object hashes to its name and every lineage adds up."""
        for model in self.house.models:
            assert client.verify(model=model).faults == []

    def processes(self) -> None:
        """The house has its own processes, each of them once, and no other."""
        expected = set(self.house.ready["pids"].values())
        until(lambda: self.house.processes() == expected, f"the house has {expected} as its processes, and no other")

    def files(self) -> None:
        """Processes that lived through it have no more files open than before, and no temporary file stays."""
        survivors = self.open_files.keys() & self.house.open_files().keys()

        def back() -> bool:
            now = self.house.open_files()
            return all(now[pid] <= self.open_files[pid] for pid in survivors)

        names = {pid: name for name, pid in self.house.ready["pids"].items()}
        until(back, f"open files are back: {self.open_files} became {self.house.open_files()} of {names}", PATIENCE_S)
        for model in self.house.models:
            objects = self.house.home / ".checkpoints" / model / "objects"
            left = [path for path in objects.rglob("*.tmp") if _is_survivors(path)]
            assert left == [], "a temporary file of a living process stays"


def _is_survivors(path: os.PathLike[str]) -> bool:
    """Whether a process has the file open: one of a killed process is garbage for `gc`, one that is open a leak."""
    for process in psutil.process_iter():
        try:
            if any(file.path == os.fspath(path) for file in process.open_files()):
                return True
        except psutil.Error:
            continue
    return False
