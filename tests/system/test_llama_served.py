"""The invariants on GGUF models, served by real processes: four recurrent kinds and a transformer, side by side."""

from __future__ import annotations

import ctypes
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp")

from cluster import Cluster, llama_toml, rwkv_toml, scripted_toml
from llama_cpp import llama_cpp as library

from clients.blocking import Client
from ssmprov import wire
from ssmprov.errors import BadRequest, Cancelled, Conflict, NotFound, SsmprovError, WrongModel
from workers.prompt import characters
from workers.runtimes.base import Feed, Plan
from workers.runtimes.llama import open_runtime

GREEDY = {"temp": 0.0}
WARM = {"temp": 0.9, "top_k": 50, "pen_rep": 1.2}
RECURRENT = ["rwkv7", "mamba", "mamba2", "falcon-mamba"]
MODELS = [*RECURRENT, "transformer"]
N_CTX = 512


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Seven workers of six models: rwkv7 twice, one of each other kind, and a torch model."""
    home = tmp_path_factory.mktemp("zoo")
    toml = llama_toml(home, "rwkv7", workers=2) + rwkv_toml(home)
    toml += "".join(llama_toml(home, kind) for kind in RECURRENT[1:])
    toml += llama_toml(home, "transformer", kind="llama", n_ctx=N_CTX)
    cluster = Cluster(home, toml).up()
    yield cluster
    cluster.close()


@pytest.fixture
def client(zoo: Cluster) -> Iterator[Client]:
    with zoo.client() as client:
        yield client


def test_every_model_says_what_it_is(client: Client) -> None:
    cards = {card.name: card for card in client.models()}
    assert set(cards) == {*MODELS, "tiny"}
    assert {cards[name].runtime for name in MODELS} == {"llama"}
    assert len({card.fingerprint for card in cards.values()}) == len(cards)
    assert (cards["rwkv7"].settings, cards["falcon-mamba"].settings, cards["mamba"].settings) == (
        "rwkv7",
        "falcon-mamba",
        "general",
    )
    assert client.settings_show(model="falcon-mamba").values["min_p"] == 0.12
    assert all(card.state_bytes > 1000 for name, card in cards.items() if name in MODELS)


PROMPTS = [
    "plain",
    "(Turn 1) [ECHO]: ",
    "(Turn 1) [FILE]: x\n\n~~~(",
    "é ü 漢字 🦀 ",
    " ",
    "a <s> b</s> [PAD280]<|sep|>",
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_state_has_read_exactly_prompt_and_reply(
    client: Client, model: str, values: dict[str, float], prompt: str
) -> None:
    name = f"truth/{values['temp']:g}/{PROMPTS.index(prompt)}"
    first = client.turn(prompt, model=model, save=name, values=values, max_tokens=40, seed=3)
    second = client.turn(prompt, model=model, context=name, save=name, values=values, max_chars=30)
    assert client.text(f"{model}:{name}") == prompt + first.text + prompt + second.text
    assert len(second.text) <= 30
    assert second.result.parent == first.result.object
    again = client.replay(f"{model}:{name}")
    assert again.text_equal
    assert again.largest_difference is not None
    assert again.largest_difference < 1e-2


@pytest.mark.parametrize("mode", ["keep", "close", "drop"])
@pytest.mark.parametrize("model", MODELS)
def test_a_cancelled_turn_leaves_the_old_context_or_what_it_said(client: Client, model: str, mode: str) -> None:
    name = f"cancel/{mode}"
    client.turn("before", model=model, save=name, max_tokens=0)
    stream = client.stream("go on:", model=model, context=name, save=name, values=GREEDY, max_chars=1_000_000)
    pieces = []
    failure: SsmprovError | None = None
    try:
        for piece in stream:
            pieces.append(piece)
            if len(pieces) == 3:
                stream.cancel(mode)
    except SsmprovError as error:
        failure = error
    text = client.text(f"{model}:{name}")
    if isinstance(failure, Cancelled):
        assert (mode, text) == ("drop", "before")
    else:  # the transformer may have come to its end before the cancel arrived
        assert failure is None
        assert text == "before" + "go on:" + stream.reply.text
        if stream.reply.result.stop == "cancelled" and mode == "close":
            assert text.endswith("\n\n~~~(end)~~~\n\n")


@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_context_moved_to_another_worker_goes_on_as_if_uninterrupted(
    client: Client, values: dict[str, float]
) -> None:
    name = f"move/{values['temp']:g}"
    client.turn("Once upon a time", model="rwkv7", save=name, values=values, seed=11, max_tokens=30)
    for i in (0, 1):
        client.fork(f"rwkv7:{name}", [f"{name}/{i}"], on=[f"rwkv7/{i}"])
    there = [client.turn("", model="rwkv7", context=f"{name}/{i}", values=values, max_tokens=60) for i in (0, 1)]
    assert [reply.result.worker for reply in there] == ["rwkv7/0", "rwkv7/1"]
    assert there[0].text == there[1].text
    assert [reply.result.prefill_tokens for reply in there] == [0, 0]


@pytest.mark.parametrize("model", MODELS)
def test_batched_contexts_say_what_they_say_alone(client: Client, model: str) -> None:
    prompts = [f"{'x' * (7 * i)} number {i}" for i in range(10)]  # more than there are slots
    alone = [client.turn(p, model=model, values=GREEDY, max_tokens=40).text for p in prompts]
    together: dict[int, str] = {}

    def ask(i: int) -> None:
        together[i] = client.turn(prompts[i], model=model, values=GREEDY, max_tokens=40).text

    run_all([lambda i=i: ask(i) for i in range(len(prompts))])
    assert [together[i] for i in range(len(prompts))] == alone


def run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("model", MODELS)
def test_many_forks_go_their_own_ways(client: Client, model: str) -> None:
    client.turn("primed ", model=model, save="root", max_tokens=0)
    names = [f"fork/{i}" for i in range(12)]
    client.fork(f"{model}:root", names)
    said: dict[str, str] = {}

    def ask(name: str, seed: int) -> None:
        reply = client.turn("", model=model, context=name, save=name, values=WARM, seed=seed, max_tokens=20)
        assert reply.result.prefill_tokens == 0
        said[name] = reply.text

    run_all([lambda n=name, i=i: ask(n, i) for i, name in enumerate(names)])
    assert len(set(said.values())) > 6
    assert all(client.text(f"{model}:{name}") == "primed " + said[name] for name in names)
    assert client.text(f"{model}:root") == "primed "


@pytest.mark.parametrize("model", ["falcon-mamba", "transformer"])
def test_of_two_writers_one_commits_and_a_resent_turn_has_one_effect(client: Client, model: str) -> None:
    head = client.turn("root", model=model, save="cas", max_tokens=0).result.object
    outcomes: list[str] = []

    def write(word: str) -> None:
        try:
            client.turn(word, model=model, context="cas", save="cas", if_head=head, max_tokens=0)
            outcomes.append(word)
        except Conflict:
            outcomes.append("conflict")

    run_all([lambda: write("a"), lambda: write("b")])
    assert outcomes.count("conflict") == 1
    assert client.text(f"{model}:cas") == "root" + next(word for word in outcomes if word != "conflict")
    key = wire.new_id()
    first = client.turn("once", model=model, context="one", save="one", create=True, request_id=key, max_tokens=9)
    second = client.turn("once", model=model, context="one", save="one", create=True, request_id=key, max_tokens=9)
    assert (second.text, second.result.object) == (first.text, first.result.object)
    assert client.text(f"{model}:one") == "once" + first.text


@pytest.mark.parametrize(("mine", "other"), [("rwkv7", "tiny"), ("tiny", "rwkv7"), ("mamba", "falcon-mamba")])
def test_another_models_checkpoint_is_refused_with_the_way_out(
    client: Client, tmp_path: Path, mine: str, other: str
) -> None:
    client.turn("told to one", model=mine, save=f"for-{other}", max_tokens=5, values=GREEDY)
    client.export(f"{mine}:for-{other}", tmp_path / "ctx.ssm")
    with pytest.raises(WrongModel, match="ckpt replay THEIRS:NAME --to OURS"):
        client.import_(tmp_path / "ctx.ssm", "stolen", model=other)
    with pytest.raises(NotFound):
        client.show(f"{other}:stolen")
    text = client.text(f"{mine}:for-{other}")
    client.replay(model=other, save=f"from-{mine}", prime=text)  # which is what the command does
    assert client.text(f"{other}:from-{mine}") == text


# -- the end of a transformer's context


def test_a_prompt_longer_than_n_ctx_is_refused_and_changes_nothing(client: Client) -> None:
    client.turn("kept", model="transformer", save="full", max_tokens=0)
    for prompt in ("x" * N_CTX, "y" * 5000):
        with pytest.raises(BadRequest, match=rf"contexts end at {N_CTX}.*raise n_ctx"):
            client.turn(prompt, model="transformer", context="full", save="full", max_tokens=5)
    assert client.text("transformer:full") == "kept"
    assert client.turn("x" * 5000, model="mamba", max_tokens=1).result.prompt_tokens > N_CTX


def test_a_reply_ends_before_n_ctx_and_the_context_can_still_be_forked(client: Client) -> None:
    reply = client.turn(
        "on and on", model="transformer", save="long", values=GREEDY | {"pen_rep": 1.3}, max_chars=100_000
    )
    assert reply.result.stop in ("limit", "end", "fence")
    assert reply.result.tokens <= N_CTX
    assert client.text("transformer:long") == "on and on" + reply.text
    if reply.result.stop == "limit":
        with pytest.raises(BadRequest, match="n_ctx"):
            client.turn("more", model="transformer", context="long")
    client.fork("transformer:long", ["long/2"])


# -- kv.pkl


@pytest.mark.parametrize("model", RECURRENT)
def test_an_old_runners_state_is_taken_over_and_goes_on_as_there(
    zoo: Cluster, client: Client, tmp_path: Path, model: str
) -> None:
    runtime = open_runtime(Plan(path=zoo.home / f"{model}-0.gguf", slots=1, cache=tmp_path))
    tokens = runtime.tokenize("what the old runner had read")
    runtime.forward([Feed(0, tokens)])
    size = library.llama_state_get_size(runtime._context.pointer)
    buffer = (ctypes.c_uint8 * size)()
    written = library.llama_state_get_data(runtime._context.pointer, buffer, size)
    path = tmp_path / "kv.pkl"
    path.write_bytes(pickle.dumps({"blob": bytes(buffer[:written]), "n_tokens": len(tokens)}, pickle.HIGHEST_PROTOCOL))
    row = client.import_(path, "old", model=model, trust=True)
    assert (row.opaque, row.tokens, row.exact) == (True, len(tokens), False)
    with pytest.raises(BadRequest, match="does not know what it has read"):
        client.text(f"{model}:old")
    with pytest.raises(BadRequest, match="nothing to continue"):
        client.turn("", model=model, context="old")
    expected = runtime.forward([Feed(0, runtime.tokenize("?"))])[0]
    readable = [token for token in range(runtime.vocabulary) if characters(b"", runtime.piece(token)) is not None]
    likeliest = max((token for token in readable if token not in runtime.control_tokens), key=lambda t: expected[t])
    here = client.turn("?", model=model, context="old", save="old", values=GREEDY, max_tokens=1)
    runtime.close()
    assert here.text.encode().startswith(runtime.piece(likeliest))  # b'' where it is the end
    assert (here.result.stop == "end") == (likeliest in runtime.end_tokens)
    with pytest.raises(SsmprovError):
        client.import_(path, "old2", model="transformer", trust=True)
    with pytest.raises(Conflict):
        client.import_(path, "old", model=model, trust=True)


# -- faults


def ends_in_error(stream: Any) -> bool:
    try:
        for _ in stream:
            pass
    except SsmprovError:
        return True
    return False


def test_two_models_serve_on_while_a_third_is_killed(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    tables = [llama_toml(cluster.home, name) for name in ("rwkv7", "mamba", "falcon-mamba")]
    cluster.config.write_text("".join(tables))
    cluster.up()
    values = WARM | {"pen_pres": 0.5}
    started = threading.Barrier(9)
    said: dict[tuple[str, int], Any] = {}

    def ask(model: str, i: int) -> None:
        with cluster.client() as client:
            name = f"load/{i}"
            stream = client.stream(f"{i}: ", model=model, save=name, values=values, seed=i, max_tokens=150)
            try:
                pieces = [next(stream)]
                started.wait(30)
                said[model, i] = "".join([*pieces, *stream])
            except SsmprovError as error:
                said[model, i] = error

    models = ("rwkv7", "mamba")
    tasks = [lambda m=m, i=i: ask(m, i) for m in models for i in range(4)]
    threads = [threading.Thread(target=task) for task in tasks]
    with cluster.client() as client:
        client.turn("safe", model="falcon-mamba", save="safe", max_tokens=4, values=GREEDY)
        for thread in threads:
            thread.start()
        started.wait(30)
        doomed = [
            client.stream("gone", model="falcon-mamba", save=f"gone/{i}", values=values, seed=i, max_chars=1_000_000)
            for i in range(4)
        ]
        for stream in doomed:
            next(stream)
        cluster.processes["falcon-mamba/0"].kill()
        lost = [stream for stream in doomed if ends_in_error(stream)]
        assert lost  # each may by itself have come to its end token before
        for thread in threads:
            thread.join()
        cluster.worker("falcon-mamba")
        assert client.turn("?", model="falcon-mamba", context="safe", max_tokens=2).result.prefill_tokens == 0
        for stream in lost:
            with pytest.raises(NotFound):
                client.show(f"falcon-mamba:gone/{doomed.index(stream)}")
        for (model, i), text in said.items():
            assert isinstance(text, str), text
            assert client.text(f"{model}:load/{i}") == f"{i}: " + text


def test_contexts_outlive_every_process_and_go_on_exactly(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(
        llama_toml(cluster.home, "mamba2", slots=2) + llama_toml(cluster.home, "transformer", kind="llama", n_ctx=256)
    )
    cluster.up()
    straight = {}
    with cluster.client() as client:
        for model in ("mamba2", "transformer"):
            client.turn("It was", model=model, save="ctx", values=WARM, seed=2, max_tokens=10)
            straight[model] = client.turn("", model=model, context="ctx", values=WARM, max_tokens=20).text
    for process in cluster.processes.values():
        process.child.kill()
    # other slots and a larger n_ctx: states do not depend on them
    cluster.config.write_text(
        llama_toml(cluster.home, "mamba2", slots=5)
        + llama_toml(cluster.home, "transformer", kind="llama", n_ctx=512, slots=3)
    )
    cluster.up()
    with cluster.client() as client:
        for model, text in straight.items():
            reply = client.turn("", model=model, context="ctx", values=WARM, max_tokens=20)
            assert (reply.text, reply.result.prefill_tokens, reply.result.restored) == (text, 0, "disk")


@pytest.mark.parametrize("fault", ["cut", "foreign", "unknown"])
def test_a_gguf_that_cannot_be_served_ends_its_worker_with_a_sentence(
    make_cluster: Callable[[str], Cluster], fault: str
) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(llama_toml(cluster.home, "mamba") + scripted_toml(cluster.home))
    path = cluster.home / "mamba-0.gguf"
    data = path.read_bytes()
    broken = {"cut": data[:-1000], "foreign": b"PK" + data[2:], "unknown": data.replace(b"mamba", b"zamba")}
    path.write_bytes(broken[fault])
    says = {"cut": "cut short", "foreign": "download it again", "unknown": "zamba"}[fault]
    cluster.broker()
    cluster.worker("mamba", wait=False).expect(rf"mamba-0\.gguf.*{says}")
    cluster.worker("talk")
    with cluster.client() as client:
        assert client.turn("hi", model="talk").text == "hello!"
