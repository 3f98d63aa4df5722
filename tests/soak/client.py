"""One client process of the soak, until SIGTERM: `soak.client KIND INDEX LIFE SEED ENDPOINT PORT FOLDER`."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from pathlib import Path
from random import Random

from soak import aio, blocking, bridge
from soak.choices import Choices
from soak.history import Recorder, load
from soak.player import Play, Scribe, play, unanswered

PLAYERS = {"blocking": 2, "aio": 3}


def main(kind: str, index: int, life: int, seed: int, endpoint: str, port: int, folder: Path) -> None:
    path = folder / f"client-{index}.jsonl"
    former = load([path]).calls if path.exists() else []
    recorder = Recorder(path)
    mark = f"c{index}.{life}"
    random = Random(f"{seed}.{mark}")
    scribe = Scribe(recorder, mark)
    if kind == "bridge":
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        bridge.run(port, scribe, f"c{index}", mark, random, ended)
        return
    leftovers = unanswered(former)
    plays: list[Play] = []
    for player in range(PLAYERS[kind]):
        choices = Choices(Random(random.random()), f"c{index}.{player}", f"{mark}.{player}", folder)
        plays.append(play(choices, Random(random.random()), leftovers[player :: PLAYERS[kind]]))
    if kind == "blocking":
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        blocking.run(endpoint, scribe, plays, random, stop)
    else:
        asyncio.run(_aio(endpoint, scribe, plays, random))


async def _aio(endpoint: str, scribe: Scribe, plays: list[Play], random: Random) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await aio.run(endpoint, scribe, plays, random, stop)


if __name__ == "__main__":
    kind, index, life, seed, endpoint, port, folder = sys.argv[1:]
    main(kind, int(index), int(life), int(seed), endpoint, int(port), Path(folder))
