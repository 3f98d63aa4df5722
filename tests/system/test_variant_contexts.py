"""Contexts that carry trained weights, on real processes: served beside the base model, forked, resumed, refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster import Cluster
from numpy.typing import NDArray

from clients.blocking import Client, Reply
from models import mini, rwkv7
from models.rwkv7 import ByteTokenizer
from ssmprov.errors import Conflict, Corrupt, NotFound
from ssmprov.statefile import Origin, write_state

SLOTS = 2
TABLE = '[[model]]\nname = "{name}"\nruntime = "rwkv"\npath = "@mini"\nslots = 2\n'
PROMPT = "(Turn 1) [USER]: Say hello to the sea.\n\n~~~(end of turn)~~~\n\n(Turn 2) [ECHO]:"
GREEDY = {"temp": 0.0, "pen_rep": 1.0}
COUNT = 12

Weights = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two stores of one model: `far` stands for that of another host."""
    home = tmp_path_factory.mktemp("variants")
    cluster = Cluster(home, TABLE.format(name="near") + TABLE.format(name="far")).up()
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The workers compute beside this process, and torch's threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The shipped model, changed as a little training would."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: (tensor.float() + 0.08 * torch.randn(tensor.shape, generator=generator)).numpy()
        for name, tensor in rwkv7.read_tensors(mini.path()).items()
    }


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return state_file(tmp_path_factory.mktemp("files") / "trained.safetensors", weights)


def state_file(path: Path, weights: Weights) -> Path:
    """A context of these weights that has read nothing."""
    config = rwkv7.load(mini.path()).config
    state = rwkv7.new_state(config, 1)
    arrays = {"shifts": state.shifts[:, :, 0].numpy(), "wkv": state.wkv[:, 0].numpy()}
    write_state(path, arrays, Origin(rwkv7.fingerprint(mini.path()), "rwkv7", config.layout), weights)
    return path


def direct(weights: Weights) -> bytes:
    """What these weights write after the prompt, computed without any of the service."""
    tokenizer = ByteTokenizer()
    model = rwkv7.assemble({name: torch.from_numpy(array) for name, array in weights.items()}, inference=True)
    state = rwkv7.new_state(model.config, 1)
    tokens, text = tokenizer.encode(PROMPT), b""
    logits, state = rwkv7.forward(model, torch.tensor([tokens]), None, state)
    for _ in range(COUNT):
        token = int(logits[0].argmax())
        assert 0 < token < tokenizer.size, "the text goes on"
        text += tokenizer.piece(token)
        logits, state = rwkv7.forward(model, torch.tensor([[token]]), None, state)
    return text


def say(client: Client, context: str, prompt: str = PROMPT, model: str = "near", **options: Any) -> Reply:
    return client.turn(prompt, model=model, context=context, values=GREEDY, max_tokens=COUNT, **options)


def stored(house: Cluster, model: str) -> list[str]:
    """The weights that lie in a model's store."""
    return sorted(path.name for path in (house.home / ".checkpoints" / model / "weights").glob("*"))


def test_it_writes_what_its_weights_write_and_so_do_its_forks(house: Cluster, file: Path, weights: Weights) -> None:
    with house.client() as client:
        row = client.import_(file, "trained", model="near")
        assert (row.opaque, row.tokens, row.exact) == (True, 0, True)
        base = say(client, "")
        trained = say(client, "trained")
        assert trained.text.encode() == direct(weights)
        assert trained.text != base.text
        client.fork("near:trained", ["one", "two"])
        assert {say(client, name).text for name in ("one", "two")} == {trained.text}
        before = stored(house, "near")
        with pytest.raises(Conflict):
            client.import_(file, "trained", model="near")
        assert stored(house, "near") == before
        assert client.verify(model="near").faults == []


def test_both_are_served_at_once(house: Cluster, file: Path) -> None:
    with house.client() as client:
        client.import_(file, "beside", model="near")
        alone = {name: say(client, name).text for name in ("", "beside")}
        found: dict[str, str] = {}

        def ask(name: str) -> None:
            found[name] = say(client, name).text

        threads = [threading.Thread(target=ask, args=(name,)) for name in alone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == alone


def test_a_killed_worker_goes_on_exactly(house: Cluster, file: Path) -> None:
    with house.client() as client:
        client.import_(file, "whole", model="near")
        client.fork("near:whole", ["broken"])
        for name in ("whole", "broken"):
            say(client, name, save=name)
        rest = "\n\n(Turn 3) [USER]: And to the land.\n\n~~~("
        whole = say(client, "whole", rest, save="whole")
        process = house.processes["near/0"]
        process.child.kill()
        process.wait()
        house.worker("near")
        broken = say(client, "broken", rest, save="broken")
        assert broken.text == whole.text
        assert (broken.result.restored, broken.result.prefill_tokens, broken.result.exact) == ("disk", 0, True)


def test_elsewhere_it_says_that_its_weights_are_missing_until_they_come(
    house: Cluster, file: Path, tmp_path: Path
) -> None:
    with house.client() as client:
        client.import_(file, "travels", model="near")
        say(client, "travels", save="travels")
        client.export("near:travels", tmp_path / "export", model="near")
        client.import_(tmp_path / "export", "travels", model="far")
        rest = "\n\n(Turn 3) [USER]: And on.\n\n~~~("
        for _ in range(SLOTS + 1):
            with pytest.raises(NotFound, match="are not here: import its state file first"):
                say(client, "travels", rest, model="far")
        assert say(client, "", model="far").text == say(client, "").text, "nothing else is the worse for it"
        client.import_(file, "root", model="far")
        assert say(client, "travels", rest, model="far").text == say(client, "travels", rest).text


def test_weights_that_are_not_the_models_leave_nothing_behind(house: Cluster, weights: Weights, tmp_path: Path) -> None:
    name = "blocks.0.att.key.weight"
    infinite = weights[name].copy()
    infinite[0, 0] = np.inf
    bad: list[tuple[Weights, str]] = [
        ({key: array for key, array in weights.items() if key != name}, f"lack {name}"),
        (weights | {name: weights[name][:-1]}, f"{name} of shape .*, but this model has"),
        (weights | {name: weights[name].astype(np.float64)}, "write float32 or float16"),
        (weights | {name: infinite}, "infinite"),
    ]
    with house.client() as client:
        rows, files = client.ls(model="near").rows, stored(house, "near")
        for each, why in bad:
            path = state_file(tmp_path / "bad.safetensors", each)
            with pytest.raises(Corrupt, match=why):
                client.import_(path, "refused", model="near")
            assert (client.ls(model="near").rows, stored(house, "near")) == (rows, files)


def test_gc_takes_the_weights_with_the_last_context_that_names_them(
    house: Cluster, weights: Weights, tmp_path: Path
) -> None:
    changed = weights | {"ln_out.bias": weights["ln_out.bias"] + 1}
    with house.client() as client:
        before = stored(house, "near")
        client.import_(state_file(tmp_path / "s", changed), "gone", model="near")
        assert len(stored(house, "near")) == len(before) + 1
        client.gc(model="near")
        assert len(stored(house, "near")) == len(before) + 1
        client.rm(["near:gone"])
        client.gc(model="near")
        assert stored(house, "near") == before
