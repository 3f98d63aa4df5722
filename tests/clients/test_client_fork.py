"""A client in a forked child: every call raises at once, a new client works, and the parent is not affected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PATIENCE_S, Cluster, scripted_toml

SLOW = {"replies": [{"after": "", "pieces": [f" {n}" for n in range(200)]}], "token_delay_s": 0.02}

BLOCKING = """
import multiprocessing, os, sys
from ssmprov import Client
from ssmprov.errors import BadRequest

def refused(call):
    try:
        call()
    except BadRequest as error:
        return error.details["made_by"]
    return None

def child(queue=None):
    found = [refused(lambda: client.models()), refused(lambda: client.stream("b").reply), refused(lambda: list(stream))]
    client.cancel(stream.id)
    client.close()
    with Client() as own:
        found.append(own.models()[0].name)
    if queue is not None:
        queue.put(found)
    return found

client = Client()
stream = client.stream("a")
next(stream)
parent = os.getpid()
pid = os.fork()
if pid == 0:
    os._exit(0 if child() == [parent] * 3 + ["talk"] else 1)
assert os.waitpid(pid, 0)[1] == 0
forking = multiprocessing.get_context("fork")
queue = forking.Queue()
process = forking.Process(target=child, args=(queue,))
process.start()
assert queue.get() == [parent] * 3 + ["talk"]
process.join()
assert process.exitcode == 0
assert "".join(stream).endswith(" 199")
client.close()
print("done")
"""

ASYNCIO = """
import asyncio, os
from ssmprov import AsyncClient
from ssmprov.errors import BadRequest

async def refused(call):
    try:
        await call
    except BadRequest as error:
        return error.details["made_by"]
    return None

async def child():
    found = [await refused(client.models()), await refused(stream.reply())]
    client.cancel(stream.id)
    await client.close()
    async with AsyncClient() as own:
        found.append((await own.models())[0].name)
    return found

async def main():
    global client, stream
    async with AsyncClient() as client:
        stream = await client.stream("a")
        await anext(stream)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if asyncio.run(child()) == [parent] * 2 + ["talk"] else 1)
        status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status[1] == 0
        assert (await stream.reply()).text.endswith(" 199")
    print("done")

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [BLOCKING, ASYNCIO], ids=["blocking", "asyncio"])
def test_a_client_raises_at_once_in_a_forked_child(
    make_cluster: Callable[[str], Cluster], tmp_path: Path, program: str
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "script", script=SLOW)).up()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
