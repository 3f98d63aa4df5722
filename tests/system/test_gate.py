"""Invariants 3, 7 and 8 on real processes, and bad input: nothing is lost or changed by it."""

from __future__ import annotations

import ast
import pickle
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml

from ssmprov.errors import BadRequest, Busy, Conflict, Corrupt, NotFound, SsmprovError, WrongModel

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ssmprov", "broker", "workers", "clients", "bridge_tcp", "models", "training", "demo")


def object_file(home: Path, model: str, object_id: str) -> Path:
    return next((home / ".checkpoints" / model / "objects").rglob(f"*{object_id[2:]}*"))


def test_a_damaged_checkpoint_is_read_again_from_its_tokens(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    with cluster.client() as client:
        client.turn("one ", save="ctx")
        head = client.turn("two", context="ctx", save="ctx").result.object
    cluster.processes["talk/0"].stop()
    path = object_file(cluster.home, "talk", head)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    cluster.worker("talk", 0)
    with cluster.client() as client:
        with pytest.raises(Corrupt):
            client.turn("!", context="ctx")
        rescued = client.replay("ctx", save="rescued")
        assert rescued.text_equal
        assert client.text("rescued") == client.text("ctx") == "one hello!twohello!"
        assert client.turn("!", context="rescued").text == "hello!"
        client.export("rescued", cluster.home / "rescued.ssm")


def test_a_text_is_primed_into_a_context_of_another_model(house: Cluster) -> None:
    with house.client() as client:
        client.turn("said once ", model="talk", save="source")
        text = client.text("talk:source")
        primed = client.replay(model="tiny", save="target", prime=text)
        assert primed.tokens == len(text.encode())
        assert client.text("tiny:target") == text
        assert client.replay(model="tiny", prime=text).object == ""


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_rest_stands(
    make_cluster: Callable[[str], Cluster], damage: str
) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    with cluster.client() as client:
        head = client.turn("victim", save="victim").result.object
        client.turn("beside", save="beside")
    cluster.processes["talk/0"].stop()
    path = object_file(cluster.home, "talk", head)
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    cluster.worker("talk", 0)
    with cluster.client() as client:
        with pytest.raises(Corrupt) as refused:
            client.turn("more", context="victim", save="victim")
        assert head[2:12] in str(refused.value)
        assert client.show("victim").row.object == head
        assert client.turn("!", context="beside", save="beside").text == "hello!"
        assert any(head[2:12] in fault for fault in client.verify().faults)


def test_a_checkpoint_of_other_weights_is_refused_by_name(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    with cluster.client() as client:
        client.turn("old", save="ctx")
        client.export("ctx", cluster.home / "ctx.ssm")
    cluster.processes["talk/0"].stop()
    other = {"replies": [{"after": "", "pieces": ["another"]}]}
    cluster.config.write_text(scripted_toml(cluster.home, script=other))
    cluster.worker("talk", 0)
    with cluster.client() as client:
        client.turn("mine", save="mine")
        with pytest.raises(WrongModel):
            client.turn("more", context="ctx", save="ctx")
        with pytest.raises(WrongModel):
            client.import_(cluster.home / "ctx.ssm", "stolen")
        assert client.turn("!", context="mine", save="mine").text == "another"
        with pytest.raises(NotFound):
            client.show("stolen")


def test_export_and_import_carry_a_context_with_its_lineage(make_cluster: Callable[[str], Cluster]) -> None:
    here, there = make_cluster(""), make_cluster("")
    for cluster in (here, there):
        cluster.config.write_text(scripted_toml(cluster.home))
        cluster.up()
    with here.client() as a, there.client() as b:
        for word in ("one ", "two ", "three "):
            a.turn(word, context="trip", save="trip", create=True)
        a.export("trip", here.home / "trip.ssm")
        b.import_(here.home / "trip.ssm", "landed")
        assert b.text("landed") == a.text("trip")
        assert len(b.log("landed").steps) == 3
        going_on = [c.turn("on", context=n, values={"temp": 0}) for c, n in ((a, "trip"), (b, "landed"))]
        assert going_on[0].text == going_on[1].text
        assert going_on[1].result.prefill_tokens == 0
        broken = bytearray((here.home / "trip.ssm").read_bytes())
        broken[len(broken) // 2] ^= 1
        (here.home / "broken.ssm").write_bytes(broken)
        with pytest.raises(SsmprovError):
            b.import_(here.home / "broken.ssm", "broken")
        with pytest.raises(Conflict):
            b.import_(here.home / "trip.ssm", "landed")


def test_a_full_queue_answers_busy_and_recovers(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    slow = {"replies": [{"after": "", "pieces": ["."] * 40}], "token_delay_s": 0.01}
    cluster.config.write_text("[broker]\nqueue_per_client = 4\n" + scripted_toml(cluster.home, script=slow, slots=1))
    cluster.up()
    with cluster.client(patience_s=0.0) as client:
        refused: list[Busy] = []
        answers: list[str] = []

        def ask() -> None:
            try:
                answers.append(client.turn("x").text)
            except Busy as error:
                refused.append(error)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) + len(answers) == 12
        assert refused
        assert all(error.retry_ms > 0 for error in refused)
        assert client.turn("x").text == "." * 40


def test_hot_states_stay_within_their_budget(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home, hot_bytes="64 KiB"))
    cluster.up()
    with cluster.client() as client:
        for i in range(30):
            client.turn("y" * 8000, save=f"c{i}", max_tokens=0)
        first = client.turn("", context="c0", max_tokens=1)
        assert first.result.restored == "disk"
        assert 0 < client.status().workers[0].hot_bytes <= 64 * 1024


def test_no_module_of_ours_reads_pickles_or_evaluates_text() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                module = node.module if isinstance(node, ast.ImportFrom) else ""
                assert not {"cPickle", "dill", "marshal", "shelve"} & {*names, module}, path
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                    admitted = {"UnpicklingError"}  # the error of a refused file, not a reader
                    if path.name == "kv_pickle.py":  # an old runner's file, through a reader that imports nothing
                        admitted |= {"Unpickler", "HIGHEST_PROTOCOL"}
                    assert node.attr in admitted, path
                assert module != "pickle", path
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), path
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path


def test_a_pickle_in_place_of_weights_is_not_unpickled(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(str(tmp_path / "sprung")),))  # type: ignore[return-value]

    weights = tmp_path / "trap.pth"
    weights.write_bytes(pickle.dumps(Trap()))
    cluster = make_cluster("")
    cluster.config.write_text(f'[[model]]\nname = "trap"\nruntime = "rwkv"\npath = "{weights}"\n')
    process = cluster.worker("trap", wait=False)
    process.expect("trap.pth")
    assert process.wait() == 78
    assert not (tmp_path / "sprung").exists()


def test_no_sentence_is_too_long_for_its_answer(house: Cluster) -> None:
    """An error that quotes its request must not end the worker that sends it."""
    with house.client() as client:
        before = [worker.epoch for worker in client.status().workers]
        with pytest.raises(BadRequest):
            client.turn("x", model="talk", values={"\x01" * 20_000: 1.0})
        assert [worker.epoch for worker in client.status().workers] == before


BAD_TURNS = [
    ({"model": "nope"}, NotFound, "tiny|talk"),
    ({"model": "talk", "context": "nowhere"}, NotFound, "nowhere"),
    ({"model": "talk", "save": "../escape"}, BadRequest, "name"),
    ({"model": "talk", "save": "a/.hidden"}, BadRequest, "name"),
    ({"model": "talk", "save": "x" * 129}, BadRequest, "name"),
    ({"model": "talk", "settings": "gredy"}, NotFound, "greedy"),
    ({"model": "talk", "values": {"tmp": 1.0}}, BadRequest, "temp"),
    ({"model": "talk", "values": {"temp": 99.0}}, BadRequest, "between 0 and 10"),
    ({"model": "talk", "values": {"top_p": float("nan")}}, BadRequest, "top_p"),
    ({"model": "talk", "context": "base~999"}, NotFound, "step"),
    ({"model": "talk", "context": "base", "save": "base", "if_head": "0" * 64}, Conflict, "was expected at"),
]


@pytest.mark.parametrize(("arguments", "kind", "says"), BAD_TURNS, ids=lambda value: str(value)[:40])
def test_bad_turns_say_what_to_do_and_change_nothing(
    house: Cluster, arguments: dict[str, object], kind: type[SsmprovError], says: str
) -> None:
    with house.client() as client:
        client.turn("base", model="talk", context="base", save="base", create=True, max_tokens=0)
        before = client.ls(model="talk").rows
        with pytest.raises(kind, match=says):
            client.turn("hello", **arguments)  # type: ignore[arg-type]
        assert client.ls(model="talk").rows == before


@pytest.mark.parametrize(
    ("prompt", "says"), [("a\0b", "U.0000"), ("z" * 10_000_000, "MiB"), ("", "nothing to continue")], ids=str.__len__
)
def test_bad_prompts_are_refused(house: Cluster, prompt: str, says: str) -> None:
    with house.client() as client, pytest.raises(BadRequest, match=says):
        client.turn(prompt, model="talk", save="bad")


def test_unknown_workers_are_refused_with_those_there_are(house: Cluster) -> None:
    with house.client() as client:
        client.turn("w", model="tiny", save="w", max_tokens=0)
        with pytest.raises(NotFound, match="tiny/1"):
            client.fork("tiny:w", ["w2"], on=["7"])
        with pytest.raises(NotFound, match="tiny/"):
            client.move("tiny:w", "9")


def test_a_second_store_under_one_model_is_refused(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    cluster.config.write_text(scripted_toml(cluster.home, checkpoints="elsewhere"))
    second = cluster.worker("talk", 1, wait=False)
    second.expect("store")
    assert second.wait() != 0
    with cluster.client() as client:
        assert client.turn("still").text == "hello!"


def test_a_broken_catalogue_stops_the_worker_with_a_sentence(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(scripted_toml(cluster.home))
    cluster.up()
    with cluster.client() as client:
        client.turn("x", save="x")
    cluster.processes["talk/0"].stop()
    catalogue, good = cluster.home / ".checkpoints/talk/catalogue.sqlite", cluster.home / "good"
    good.mkdir()
    for file in catalogue.parent.glob("catalogue.sqlite*"):  # with its log, if the worker left one
        file.rename(good / file.name)
    catalogue.write_bytes(b"this is no database, whatever its name says" * 100)
    process = cluster.worker("talk", wait=False)
    assert "catalogue.sqlite" in process.expect("catalogue")
    assert process.wait() == 78
    for file in catalogue.parent.glob("catalogue.sqlite*"):
        file.unlink()
    for file in good.iterdir():
        file.rename(catalogue.parent / file.name)
    with closing(sqlite3.connect(catalogue)) as check:
        assert check.execute("pragma integrity_check").fetchone() == ("ok",)
    cluster.worker("talk")
    with cluster.client() as client:
        assert client.text("x") == "xhello!"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ('name = "m"\nruntime = "rwkv"\npath = "gone.pth"', "gone.pth"),
        ('name = "m"\nruntime = "scripted"\npath = "gone.json"', "gone.json"),
        ('name = "m"\nruntime = "mamba"\npath = "x"', "llama"),
        ('name = "m"\nruntime = "scripted"\npath = "x"\nslotz = 3', "slots"),
    ],
)
def test_a_model_that_cannot_be_served_says_why(make_cluster: Callable[[str], Cluster], broken: str, says: str) -> None:
    cluster = make_cluster("[[model]]\n" + broken)
    process = cluster.worker("m", wait=False)
    line = process.expect(r" error m/0 \| ")
    assert says in line
    assert process.wait() == 78
    assert not any("Traceback" in said for said in process.lines)
