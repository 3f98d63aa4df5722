"""The kv.pkl of an old runner on real processes: who refuses it, in which words, and that nothing changes."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster

from clients.aio import AsyncClient
from clients.blocking import Client
from ssmprov.errors import BadRequest, Unsupported


class Mark:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "kv.pkl"
    path.write_bytes(pickle.dumps({"blob": bytes(3 << 20), "n_tokens": 7}, protocol=pickle.HIGHEST_PROTOCOL))
    return path


@pytest.fixture
def client(house: Cluster) -> Iterator[Client]:
    """A client; in the end no import has left anything."""
    with house.client() as client:
        yield client
        for model in ("talk", "tiny"):
            assert [row.name for row in client.ls("old", model=model).rows] == []


def ckpt(house: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ssmprov")), "ckpt", *words],
        env=house.environment,
        cwd=house.home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(("model", "runtime"), [("talk", "scripted"), ("tiny", "rwkv")])
def test_a_runtime_without_such_states_says_which_has_them(
    client: Client, saved: Path, model: str, runtime: str
) -> None:
    with pytest.raises(Unsupported, match=f"the {runtime} runtime cannot import a kv.pkl: .* GGUF model"):
        client.import_(saved, "old", model=model, trust=True)


def test_without_trust_it_is_refused_with_the_command(client: Client, saved: Path) -> None:
    with pytest.raises(BadRequest, match=r"does not say which model wrote it.*old --model talk --trust"):
        client.import_(saved, "old", model="talk")


@pytest.mark.usefixtures("client")
def test_the_command_line_says_the_same(house: Cluster, saved: Path) -> None:
    for words, code, told in (
        (["--model", "talk"], 1, "write nonsense"),
        (["--model", "talk", "--trust"], 1, "the scripted runtime cannot"),
        (["--store", str(house.home / ".checkpoints/talk")], 1, "leave --store out"),
        (["--store", str(house.home / ".checkpoints/talk"), "--trust"], 2, "--trust needs a model that is"),
    ):
        done = ckpt(house, "import", str(saved), "old", *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_a_hostile_pickle_is_named_and_not_run(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(pickle.dumps({"blob": Mark(mark), "n_tokens": 7}, protocol=pickle.HIGHEST_PROTOCOL))
    with pytest.raises(BadRequest, match="STACK_GLOBAL at byte"):
        client.import_(hostile, "old", model="talk", trust=True)
    assert not mark.exists()


def test_an_export_is_not_taken_on_trust(client: Client, tmp_path: Path) -> None:
    client.turn("x", model="talk", save="exported", max_tokens=0)
    client.export("talk:exported", tmp_path / "x.ctx")
    with pytest.raises(BadRequest, match=r"only the kv\.pkl of an old runner needs --trust"):
        client.import_(tmp_path / "x.ctx", "old", model="talk", trust=True)
    client.rm(["talk:exported"])


@pytest.mark.usefixtures("client")
def test_the_asyncio_client_passes_it_on(house: Cluster, saved: Path) -> None:
    async def ask() -> None:
        async with AsyncClient(house.endpoint) as client:
            await client.import_(saved, "old", model="talk", trust=True)

    with pytest.raises(Unsupported):
        asyncio.run(ask())


def test_the_worker_goes_on_serving(client: Client, saved: Path) -> None:
    for _ in range(3):
        with pytest.raises(Unsupported):
            client.import_(saved, "old", model="talk", trust=True)
    assert client.turn("x", model="talk").text == "hello!"
