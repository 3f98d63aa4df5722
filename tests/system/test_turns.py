"""Invariants 1, 2 and 4 on real processes: truthful text, truthful restore, isolation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from cluster import Cluster, rwkv_toml

from clients.blocking import Client
from ssmprov.errors import Cancelled, SsmprovError, TimedOut

GREEDY = {"temp": 0.0}
WARM = {"temp": 0.9, "top_k": 50, "pen_rep": 1.2}
MODELS = ["tiny", "talk"]


@pytest.fixture
def client(house: Cluster) -> Iterator[Client]:
    with house.client() as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", ["plain", "(Turn 1) [ECHO]: ", "(Turn 1) [FILE]: x\n\n~~~(", "é ü 漢字 🦀 ", " "])
def test_the_state_has_read_exactly_prompt_and_reply(
    client: Client, model: str, values: dict[str, float], prompt: str
) -> None:
    name = f"truth/{model}/{values['temp']:g}/{len(prompt)}"
    first = client.turn(prompt, model=model, save=name, values=values, max_tokens=40, seed=3)
    second = client.turn(prompt, model=model, context=name, save=name, values=values, max_chars=30)
    assert client.text(f"{model}:{name}") == prompt + first.text + prompt + second.text
    assert len(second.text) <= 30
    assert second.result.parent == first.result.object


def test_a_reply_ends_before_a_header_that_the_model_writes(client: Client) -> None:
    stream = client.stream("(Turn 1) [ON]:", model="talk", save="on")
    said = "".join(stream)
    assert (said, stream.reply.result.stop) == (" yes\n\n~~~(end)~~~\n\n", "header")
    assert client.text("talk:on") == "(Turn 1) [ON]:" + said
    free = client.turn("(Turn 1) [ON]:", model="talk", save="on/free", headers=True)
    assert (free.text, free.result.stop) == (" yes\n\n(Turn 3) [USER]: and more", "end")
    assert client.text("talk:on/free") == "(Turn 1) [ON]:" + free.text


@pytest.mark.parametrize("mode", ["keep", "close", "drop"])
@pytest.mark.parametrize("model", MODELS)
def test_a_cancelled_turn_leaves_the_old_context_or_what_it_said(client: Client, model: str, mode: str) -> None:
    name = f"cancel/{model}/{mode}"
    client.turn("before", model=model, save=name, max_tokens=0)
    stream = client.stream(
        "(Turn 1) [LONG]:", model=model, context=name, save=name, values=GREEDY, max_tokens=100_000, max_chars=1_000_000
    )
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
        assert mode == "drop"
        assert text == "before"
    else:  # the model may have ended by itself before the cancel arrived
        assert failure is None
        assert text == "before" + "(Turn 1) [LONG]:" + stream.reply.text
        assert "".join(pieces) == stream.reply.text
        if stream.reply.result.stop == "cancelled" and mode == "close":
            assert text.endswith("\n\n~~~(end)~~~\n\n")


@pytest.mark.parametrize("values", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_context_moved_to_another_worker_goes_on_as_if_uninterrupted(
    client: Client, values: dict[str, float]
) -> None:
    name = f"move/{values['temp']:g}"
    client.turn("Once upon a time", model="tiny", save=name, values=values, seed=11, max_tokens=30)
    client.fork(f"tiny:{name}", [f"{name}/0"], on=["tiny/0"])
    client.fork(f"tiny:{name}", [f"{name}/1"], on=["tiny/1"])
    there = [client.turn("", model="tiny", context=f"{name}/{i}", values=values, max_tokens=60) for i in (0, 1)]
    assert [reply.result.worker for reply in there] == ["tiny/0", "tiny/1"]
    assert there[0].text == there[1].text
    assert [reply.result.prefill_tokens for reply in there] == [0, 0]
    # and turn by turn on alternating workers, against the same turns on one
    for step in range(4):
        client.move(f"tiny:{name}/1", str(step % 2))
        a = client.turn("\nmore", model="tiny", context=f"{name}/0", save=f"{name}/0", values=values, max_tokens=20)
        b = client.turn("\nmore", model="tiny", context=f"{name}/1", save=f"{name}/1", values=values, max_tokens=20)
        assert a.text == b.text
        assert b.result.worker == f"tiny/{step % 2}"
        assert b.result.prefill_tokens == 0


def test_a_reroll_takes_up_its_prompt_and_says_so(client: Client) -> None:
    prompt = "once more, and at some length, as it was" * 3
    client.turn("Rerolls. ", model="tiny", save="reroll", max_tokens=0)
    rerolls = [
        client.turn(prompt, model="tiny", context="reroll", save=f"reroll/{i}", seed=seed, values=WARM, max_tokens=40)
        for i, seed in enumerate((1, 2, 1))
    ]
    assert [reply.result.shared_tokens for reply in rerolls] == [0, *[rerolls[0].result.prompt_tokens] * 2]
    assert rerolls[0].text == rerolls[2].text != rerolls[1].text
    for i, reply in enumerate(rerolls):
        assert client.text(f"tiny:reroll/{i}") == "Rerolls. " + prompt + reply.text
    after = [client.turn(" then", model="tiny", context=f"reroll/{i}", values=WARM, max_tokens=20) for i in (0, 2)]
    assert after[0].text == after[1].text


def test_an_older_step_is_replayed_and_says_so(make_cluster: Callable[[str], Cluster]) -> None:
    cluster = make_cluster("")
    cluster.config.write_text(rwkv_toml(cluster.home) + 'hot_bytes = "20 KiB"\nkeep_steps = 4\n')
    with cluster.up().client() as client:
        for i in range(10):
            client.turn(f"step {i}\n", save="old", **({"context": "old"} if i else {}), values=GREEDY, max_tokens=0)
        kept = client.turn("", context="old~2", values=GREEDY, max_tokens=9)
        before = client.turn("", context="old~8", values=GREEDY, max_tokens=9)
        assert client.gc().objects > 0
        again = client.turn("", context="old~2", values=GREEDY, max_tokens=9)
        old = client.turn("", context="old~8", values=GREEDY, max_tokens=9)
        assert (kept.result.prefill_tokens, before.result.prefill_tokens, again.result.prefill_tokens) == (0, 0, 0)
        assert (old.result.prefill_tokens, old.result.restored) == (len("step 0\nstep 1\n"), "replay")
        assert (again.text, old.text) == (kept.text, before.text)


def test_batched_contexts_say_what_they_say_alone(client: Client) -> None:
    prompts = [f"{'x' * (7 * i)} number {i}" for i in range(16)]
    alone = [client.turn(p, model="tiny", values=GREEDY, max_tokens=60).text for p in prompts]
    together: dict[int, str] = {}

    def ask(i: int) -> None:
        together[i] = client.turn(prompts[i], model="tiny", values=GREEDY, max_tokens=60).text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(prompts))] == alone


def test_thirty_two_clients_stream_at_once(house: Cluster) -> None:
    said: dict[int, tuple[str, str]] = {}

    def ask(i: int) -> None:
        with house.client() as client:
            stream = client.stream(f"{i} [LONG]:", model="talk", save=f"many/{i}")
            said[i] = ("".join(stream), client.text(f"talk:many/{i}"))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = "".join(f" w{i}" for i in range(400))
    assert said == {i: (expected, f"{i} [LONG]:" + expected) for i in range(32)}


def test_a_turn_whose_time_runs_out_changes_nothing(client: Client) -> None:
    client.turn("before", model="tiny", save="late", max_tokens=0)
    with pytest.raises(TimedOut):
        client.turn("x" * 60_000, model="tiny", context="late", save="late", max_tokens=0, ttl_s=0.05)
    assert client.text("tiny:late") == "before"


@pytest.mark.parametrize("model", MODELS)
def test_turns_that_end_together_are_each_saved_or_answered_alone(client: Client, model: str) -> None:
    client.turn("base ", model=model, save="together/base", max_tokens=0)
    client.fork("together/base", ["together/taken"], model=model)
    replies: dict[int, str] = {}
    errors: dict[int, str] = {}

    def ask(i: int) -> None:
        save = {0: "", 2: "together/taken"}.get(i, f"together/{i}")
        try:
            reply = client.turn(
                f"{i}: ",
                model=model,
                context="together/base",
                save=save,
                if_head="none" if i == 2 else None,
                values=GREEDY,
                max_tokens=6,
                seed=i,
            )
        except SsmprovError as error:
            errors[i] = error.code
        else:
            replies[i] = reply.text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == {2: "conflict"}
    for i in {*range(16)} - {0, 2}:
        assert client.text(f"{model}:together/{i}") == f"base {i}: {replies[i]}"
    assert client.text(f"{model}:together/taken") == "base "
    assert client.verify(model=model).faults == []
