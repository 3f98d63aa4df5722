"""Probes through the broker: they tell what the model's own mathematics tell, and leave no trace."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster import Cluster
from slotted import FILE, HEADS, LAYERS, MODEL, SLOTS

from clients import Client
from clients.aio import AsyncClient
from clients.calls import Call
from clients.exchange import Result
from models import asm
from ssmprov import ops
from ssmprov.errors import BadRequest, Cancelled, NotFound, SsmprovError, Unsupported
from ssmprov.probes import Look

READ, TEXT = "Once upon a time", " there was"
TOO_LONG = ops.MAX_PROBE_TEXT + 1
LOOKS = (Look("top1"), Look("topk", 3), Look(masked=(0, 3)), Look("topk", 2, (1,), "slotspace_only"))
GREEDY = {"temp": 0.0, "pen_freq": 0.0, "pen_pres": 0.0, "pen_rep": 1.0}
ENDLESS: Any = {"max_tokens": ops.MAX_TOKENS, "max_chars": ops.MAX_CHARS, "values": GREEDY}


@pytest.fixture(scope="module")
def client(slotted: Cluster) -> Client:
    return slotted.client()


@pytest.fixture
def context(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A context that has read READ, under a name of the test's own."""
    name = f"probes/{request.node.name.partition('[')[0]}"[:100]
    client.turn(READ, model=MODEL, save=name, max_tokens=0, seed=1)
    yield f"{MODEL}:{name}"
    client.rm([name], model=MODEL)


@pytest.fixture(scope="module")
def model(slotted: Cluster) -> asm.ASMLanguageModel:
    torch.set_num_threads(1)  # as in a worker: of so small a model several threads only wait for each other
    return asm.load_checkpoint(slotted.home / FILE, variant="baseline").model.eval()


def told(model: asm.ASMLanguageModel, text: str, look: Look) -> tuple[torch.Tensor, list[asm.Info]]:
    """Log-probabilities [V] and the info of each layer by the model itself: all of READ plainly, the text by `look`."""
    keep = torch.ones(SLOTS)
    keep[list(look.masked)] = 0
    flags: dict[str, Any] = {"routing_mode": look.routing, "slot_mask_where": look.where}
    flags |= {"routing_topk": look.topk} if look.routing == "topk" else {}
    with torch.no_grad():
        _, state = model(tokens(READ))
        logits, _, infos = model(tokens(text), state, slot_mask=keep, return_info=True, last_logits=True, **flags)
    return logits[0].double().log_softmax(-1), infos


def tokens(text: str) -> torch.Tensor:
    return torch.tensor([[1 + byte for byte in text.encode()]])  # [1, T]


@pytest.mark.parametrize("look", [Look(), *LOOKS])
def test_a_probe_tells_what_the_model_itself_tells(
    client: Client, context: str, model: asm.ASMLanguageModel, look: Look
) -> None:
    found = client.probe(TEXT, context, look=look, top=7).result
    logs, infos = told(model, TEXT, look)
    assert (found.tokens, found.context_tokens, found.prefill_tokens) == (len(TEXT), len(READ), 0)
    assert (found.heads, found.slots, len(found.layers)) == (HEADS, SLOTS, LAYERS)
    assert found.max_entropy == pytest.approx(math.log(SLOTS))
    assert found.object == client.show(context).row.object
    best = logs.topk(7)
    assert [token.token for token in found.next] == best.indices.tolist()
    assert [token.probability for token in found.next] == pytest.approx(best.values.exp().tolist(), abs=1e-4)
    for layer, info in zip(found.layers, infos, strict=True):
        weights = info["read_weights"][0]  # [H, T, K]
        entropy = torch.special.entr(weights).sum(-1)  # [H, T]
        assert layer.entropy == pytest.approx(float(entropy[:, -1].mean()), abs=1e-4)
        assert layer.mean_entropy == pytest.approx(float(entropy.mean()), abs=1e-4)
        assert [weight for _, _, weight in layer.top] == sorted((w for _, _, w in layer.top), reverse=True)
        for head, slot, weight in layer.top:
            assert weight == pytest.approx(float(weights[head, -1, slot]), abs=1e-4)
        assert layer.gate == pytest.approx(float(info["slotspace_gate"]))
        assert layer.gamma == pytest.approx(float(info["content_read_gamma"]))
        assert layer.strength == pytest.approx(float(info["alibi_strength"]))


@pytest.mark.parametrize("look", LOOKS[1:])
def test_another_reading_is_held_against_the_plain_one(
    client: Client, context: str, model: asm.ASMLanguageModel, look: Look
) -> None:
    found = client.probe(TEXT, context, look=look).result
    plain, other = told(model, TEXT, Look())[0], told(model, TEXT, look)[0]
    assert found.intervened
    assert found.divergence == pytest.approx(float((plain.exp() * (plain - other)).sum()), rel=1e-2, abs=1e-5)
    assert found.divergence > 1e-4
    assert found.plain_next == client.probe(TEXT, context).result.next != found.next


def test_a_plain_probe_diverges_from_nothing(client: Client, context: str) -> None:
    for look in (Look(), Look(where="slotspace_only")):  # which says where no slot is left out
        found = client.probe(TEXT, context, look=look, reply_tokens=3)
        assert (found.result.intervened, found.result.divergence, found.result.plain_next) == (False, 0.0, [])
        assert found.plain_reply == ""
    assert client.probe(TEXT, context, look=Look("topk", SLOTS)).result.divergence == pytest.approx(0, abs=1e-6)


def test_the_likeliest_tokens_follow_as_they_do_in_a_turn(client: Client, context: str) -> None:
    turn = client.turn(TEXT, context=context, max_tokens=12, values=GREEDY)
    found = client.probe(TEXT, context, look=Look(masked=(4,)), reply_tokens=12)
    assert found.plain_reply == turn.text
    assert found.reply != found.plain_reply
    assert (found.result.reply_tokens, found.result.plain_reply_tokens) == (12, 12)


def test_nothing_is_changed_by_a_probe(slotted: Cluster, client: Client, context: str) -> None:
    def everything() -> list[Any]:
        rows = client.ls(model=MODEL, reserved=True).rows
        files = sorted(path.name for path in Path(slotted.home, ".checkpoints", MODEL).rglob("*.safetensors"))
        known = client.status()
        sets = client.settings_show(model=MODEL).values
        return [rows, client.log(context).steps, files, known.contexts, known.pins, sets]

    before = everything()
    assert before[2], "the store's objects are there"
    again: Any = {"context": context, "seed": 7, "max_tokens": 20}
    turn = client.turn(TEXT, **again)
    before = everything()
    for look in (Look(), *LOOKS):
        client.probe(TEXT, context, look=look, reply_tokens=5)
    assert everything() == before
    assert client.turn(TEXT, **again).text == turn.text


def test_a_step_whose_state_is_gone_is_read_again_for_a_probe(client: Client, context: str) -> None:
    name = context.partition(":")[2]
    seen = client.probe(TEXT, context, look=Look(masked=(1, 3)))
    for step in range(5):
        client.turn(f" step {step}", context=context, save=name, max_tokens=0)
    client.gc(model=MODEL)
    again = client.probe(TEXT, f"{context}~5", look=Look(masked=(1, 3)))
    assert (seen.result.prefill_tokens, again.result.prefill_tokens) == (0, len(READ))
    assert again.result.context_tokens == len(READ)
    chances = [token.probability for token in seen.result.next]
    assert [token.probability for token in again.result.next] == pytest.approx(chances, abs=1e-4)
    assert again.result.divergence == pytest.approx(seen.result.divergence, abs=1e-4)
    means = [layer.mean_entropy for layer in seen.result.layers]
    assert [layer.mean_entropy for layer in again.result.layers] == pytest.approx(means, abs=1e-4)


def test_a_probe_waits_for_no_turn_of_its_context(client: Client, context: str) -> None:
    head = client.show(context).row.object
    with client.stream(TEXT, context=context, save=context.partition(":")[2], **ENDLESS) as stream:
        next(stream)
        assert client.probe(TEXT, context).result.object == head
        client.cancel(stream.id, "drop")
        with pytest.raises(SsmprovError):
            _ = stream.reply


def test_a_probe_that_is_cancelled_ends_before_its_next_reading(client: Client) -> None:
    payload = b"a long text " * 500
    first, second = (Call("probe", ops.Probe(routing="top1"), MODEL, payload=payload) for _ in range(2))
    boxes = [client.open(call) for call in (first, second)]
    for call in (second, first):
        client.cancel(call.id)
    for box in boxes:
        end = box.get()
        assert isinstance(end, Result)
        assert isinstance(end.error, Cancelled)


def test_the_asynchronous_client_has_it_too(slotted: Cluster, client: Client, context: str) -> None:
    async def probe() -> Any:
        async with AsyncClient(slotted.endpoint) as other:
            return await other.probe(TEXT, context, top=3)

    found, same = asyncio.run(probe()), client.probe(TEXT, context, top=3)
    assert (found.result.next, found.result.layers) == (same.result.next, same.result.layers)


# -- bad input


def test_a_runtime_without_slots_says_what_has_them_and_serves_on(client: Client) -> None:
    with pytest.raises(Unsupported, match=r"runtime 'scripted' has no addressed slots: .* runtime 'asm'"):
        client.probe("x", model="talk")
    assert client.turn("x", model="talk").text == "hello!"


@pytest.mark.parametrize(
    ("text", "look", "message"),
    [
        ("", Look(), "needs a text"),
        ("x" * TOO_LONG, Look(), f"{TOO_LONG} bytes: at most"),
        ("a\0b", Look(), "U\\+0000 at offset 1"),
        ("\ud800", Look(), "lone surrogate"),
        ("x", Look("top2"), "routing 'top2' is not valid: use softmax, top1, topk"),
        ("x", Look(masked=(0,), where="write"), "where 'write' is not valid: use read, "),
        ("x", Look("topk", SLOTS + 1), f"topk = {SLOTS + 1}: this model has {SLOTS} slots"),
        ("x", Look(masked=(1, SLOTS)), f"slot {SLOTS} cannot be masked: this model's slots are 0..{SLOTS - 1}"),
        ("x", Look(masked=tuple(range(SLOTS))), "all slots"),
        ("x", Look(masked=(-1,)), "masked"),
        ("x", Look("topk", 0), "topk"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_a_sentence(
    client: Client, context: str, text: str, look: Look, message: str
) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        client.probe(text, context, look=look)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "needs a text"),
        (b"x" * TOO_LONG, f"{TOO_LONG} bytes"),
        (b"a\xff", "not valid UTF-8: byte 0xff"),
    ],
)
def test_the_worker_believes_no_client(client: Client, payload: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        client.call("probe", ops.Probe(), model=MODEL, payload=payload)


def test_an_unknown_context_is_not_found_unless_it_may_count_as_empty(client: Client) -> None:
    with pytest.raises(NotFound, match="no context 'nowhere'"):
        client.probe(TEXT, "nowhere", model=MODEL)
    found = client.probe(TEXT, "nowhere", model=MODEL, or_empty=True).result
    assert found == client.probe(TEXT, model=MODEL).result or found.object == ""
    assert (found.context_tokens, found.object) == (0, "")
