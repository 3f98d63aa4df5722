"""The invariants on an Addressed State Model that two real workers serve; each scan: workers/test_asm_runtime.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from cluster import Cluster, asm_toml

from clients.blocking import Client
from ssmprov.errors import BadRequest

GREEDY = {"temp": 0.0}
WARM = {"temp": 0.9, "top_k": 50, "pen_rep": 1.2}
PROMPTS = ["plain", "(Turn 1) [FILE]: x\n\n~~~(", "é ü 漢字 🦀 "]
END_AT = 2048


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("addressed")
    cluster = Cluster(home, asm_toml(home, workers=2, slots=3)).up()
    yield cluster
    cluster.close()


@pytest.fixture
def client(served: Cluster) -> Iterator[Client]:
    with served.client() as client:
        yield client


def run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_state_has_read_exactly_prompt_and_reply(client: Client, values: dict[str, float], prompt: str) -> None:
    name = f"truth/{values['temp']:g}/{PROMPTS.index(prompt)}"
    first = client.turn(prompt, save=name, values=values, max_tokens=30, seed=3)
    second = client.turn(prompt, context=name, save=name, values=values, max_chars=20)
    assert client.text(name) == prompt + first.text + prompt + second.text
    assert (second.result.parent, second.result.prefill_tokens) == (first.result.object, 0)
    again = client.replay(name)
    assert again.text_equal
    assert again.largest_difference is not None
    assert again.largest_difference < 1e-2


@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_forked_moved_and_taken_up_again_it_goes_on_as_if_uninterrupted(
    client: Client, values: dict[str, float]
) -> None:
    name = f"move/{values['temp']:g}"
    client.turn("Once upon a time", save=name, values=values, seed=11, max_tokens=30)
    straight = client.turn("", context=name, values=values, max_tokens=48).text
    client.fork(name, [f"{name}/fork"])
    pieces = []
    for step in range(6):
        client.move(f"{name}/fork", str(step % 2))
        reply = client.turn("", context=f"{name}/fork", save=f"{name}/fork", values=values, max_tokens=8)
        assert (reply.result.worker, reply.result.prefill_tokens) == (f"asm/{step % 2}", 0)
        pieces.append(reply.text)
    assert "".join(pieces) == straight
    assert len(straight) > 8


def test_batched_contexts_say_what_they_say_alone(client: Client) -> None:
    prompts = [f"{'x' * (7 * i)} number {i}" for i in range(6)]  # more than there are slots
    alone = [client.turn(p, values=GREEDY, max_tokens=20).text for p in prompts]
    together: dict[int, str] = {}

    def ask(i: int) -> None:
        together[i] = client.turn(prompts[i], values=GREEDY, max_tokens=20).text

    run_all([lambda i=i: ask(i) for i in range(len(prompts))])
    assert [together[i] for i in range(len(prompts))] == alone


def test_many_forks_go_their_own_ways(client: Client) -> None:
    client.turn("primed ", save="root", max_tokens=0)
    names = [f"fork/{i}" for i in range(12)]
    client.fork("root", names)
    said: dict[str, str] = {}

    def ask(name: str, seed: int) -> None:
        reply = client.turn("", context=name, save=name, values=WARM, seed=seed, max_tokens=20)
        assert reply.result.prefill_tokens == 0
        said[name] = reply.text

    run_all([lambda n=name, i=i: ask(n, i) for i, name in enumerate(names)])
    assert len(set(said.values())) > 6
    assert all(client.text(name) == "primed " + said[name] for name in names)
    assert client.text("root") == "primed "


def test_a_prompt_beyond_the_end_is_refused_and_a_reply_ends_before_it(client: Client) -> None:
    client.turn("kept", save="full", max_tokens=0)
    with pytest.raises(BadRequest, match=rf'contexts end at {END_AT}.*write pos_mode = "cyclic"'):
        client.turn("x" * END_AT, context="full", save="full", max_tokens=5)
    assert client.text("full") == "kept"
    client.turn("y" * (END_AT - 60), context="full", save="full", max_tokens=0)
    reply = client.turn("z", context="full", save="full", values=GREEDY, max_chars=10_000)
    assert reply.result.stop in ("limit", "end", "fence")
    assert client.show("full").row.tokens <= END_AT


def test_what_was_saved_outlives_a_killed_worker_and_goes_on_exactly(client: Client, served: Cluster) -> None:
    saved = client.turn("It was", save="ctx", values=WARM, seed=2, max_tokens=10)
    client.fork("ctx", ["ctx/1"], on=["asm/1"])
    straight = client.turn("", context="ctx/1", values=WARM, max_tokens=20).text
    process = served.processes["asm/1"]
    process.child.kill()
    process.wait()
    served.config.write_text(served.config.read_text().replace("slots = 3", "slots = 5"))
    served.worker("asm", 1)
    reply = client.turn("", context="ctx/1", values=WARM, max_tokens=20)
    assert (reply.text, reply.result.prefill_tokens, reply.result.restored) == (straight, 0, "disk")
    assert reply.result.worker == "asm/1"
    assert client.text("ctx/1") == "It was" + saved.text
