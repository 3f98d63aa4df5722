"""A client process with several threads, each of which runs one turn after the other.

`python -P -m benchmarks.fleet_client ENDPOINT THREADS`: it is idle until it gets a command.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from benchmarks.serving import obey
from benchmarks.streams import GREEDY
from clients import Client
from ssmprov.process import die_with_parent


class Asker:
    def __init__(self, endpoint: str, threads: int) -> None:
        self._client = Client(endpoint, patience_s=60.0)
        self._threads = threads

    def turns(self, model: str, turns: int, save: bool) -> dict[str, Any]:
        """Run turns of one token in each thread. With `save`, each thread saves under its own name."""
        done = [0] * self._threads

        def run(row: int) -> None:
            name = f"{model}-{os.getpid()}-{row}" if save else ""
            for _ in range(turns):
                self._client.turn("x", model=model, save=name, max_tokens=1, values=GREEDY)
                done[row] += 1

        threads = [threading.Thread(target=run, args=(row,)) for row in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"turns": sum(done)}


def main(endpoint: str, threads: str) -> None:
    die_with_parent()
    obey({"turns": Asker(endpoint, int(threads)).turns})


if __name__ == "__main__":
    main(*sys.argv[1:])
