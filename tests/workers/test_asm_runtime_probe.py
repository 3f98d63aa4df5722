"""A probe shows what the model itself says of its slots, reads as it is asked to, and touches nothing served."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asm_toys import KINDS, asm_model, asm_runtime

from models import asm
from ssmprov.errors import BadRequest, Corrupt, SsmprovError
from workers.runtimes.asm import probing
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Feed, Probe, Probes, Reading

TEXT = "(Turn 1) [USER]: Grüße an alle\n\n~~~("
READINGS = (
    (Reading(), {}),
    (Reading("top1"), {"routing_mode": "top1"}),
    (Reading("topk", 3), {"routing_mode": "topk", "routing_topk": 3}),
    (Reading(masked=(0, 3)), {"slot_mask": [0, 1, 1, 0, 1]}),
    (Reading(masked=(4,), where="content_read_only"), {"slot_mask": [1, 1, 1, 1, 0], "where": "content_read_only"}),
    (Reading(masked=(1,), where="slotspace_only"), {"slot_mask": [1, 0, 1, 1, 1], "where": "slotspace_only"}),
    (Reading("topk", 2, (2,)), {"routing_mode": "topk", "routing_topk": 2, "slot_mask": [1, 1, 0, 1, 1]}),
)


def flags(wanted: dict[str, Any]) -> dict[str, Any]:
    found = dict(wanted)
    if "slot_mask" in found:
        found["slot_mask"] = torch.tensor(found["slot_mask"])
        found["slot_mask_where"] = found.pop("where", "read")
    return found


@torch.no_grad()
def told(model: asm.ASMLanguageModel, tokens: list[int], **options: Any) -> tuple[Any, list[asm.Info]]:
    """Logits [V] and the info of all layers by the model itself, the whole text in one call."""
    logits, _, infos = model(torch.tensor([tokens]), return_info=True, last_logits=True, **options)
    return logits[0], infos


def near(found: Any, wanted: torch.Tensor, tolerance: float = 2e-4) -> bool:
    return bool(np.allclose(found, wanted.detach().numpy(), atol=tolerance))


@pytest.mark.parametrize(("reading", "wanted"), READINGS)
@pytest.mark.parametrize("kind", ["exact", "chunked", "cyclic"])
def test_the_numbers_are_the_models_own(tmp_path: Path, kind: str, reading: Reading, wanted: dict[str, Any]) -> None:
    runtime, model = asm_runtime(tmp_path, 1, kind), asm_model(**KINDS[kind])
    assert isinstance(runtime, Probes)
    tokens = runtime.tokenize(TEXT)
    logits, infos = told(model, tokens, **flags(wanted))
    seen = runtime.probe({}, tokens, reading, 0)
    assert near(seen.logits, logits, 1e-3)
    assert len(seen.layers) == len(infos) == 2
    for layer, info in zip(seen.layers, infos, strict=True):
        weights = info["read_weights"][0]  # (H, T, K)
        entropy = -(weights * weights.clamp_min(1e-30).log()).sum(dim=-1)
        assert near(layer.weights, weights[:, -1])
        assert near(layer.entropy, entropy[:, -1], 1e-3)
        assert near(layer.mean_entropy, entropy.mean(dim=1), 1e-3)
        scalars = (info["slotspace_gate"], info["content_read_gamma"], info["alibi_strength"])
        assert (layer.gate, layer.gamma, layer.strength) == pytest.approx([float(x) for x in scalars])
    masked = list(reading.masked) if reading.where == "read" else []
    assert not any(layer.weights[:, masked].any() for layer in seen.layers)
    assert all(np.allclose(layer.weights.sum(axis=1), 1, atol=1e-5) for layer in seen.layers)


def test_readings_show_in_the_logits(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    tokens = runtime.tokenize(TEXT)
    rows = [runtime.probe({}, tokens, reading, 0).logits for reading, _ in READINGS]
    for i, one in enumerate(rows):
        assert all(np.abs(one - other).max() > 1e-3 for other in rows[:i]), READINGS[i]


@pytest.mark.parametrize("kind", ["exact", "chunked", "cyclic"])
def test_it_goes_on_from_a_state_and_in_slices(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, model = asm_runtime(tmp_path, 1, kind), asm_model(**KINDS[kind])
    tokens = runtime.tokenize(TEXT * 2)
    (row,) = runtime.forward([Feed(0, tokens[:11])])
    _, infos = told(model, tokens)
    at_once = runtime.probe(runtime.save(0), tokens[11:], Reading(), 0)
    monkeypatch.setattr(probing, "SLICE_TOKENS", 7)
    sliced = runtime.probe(runtime.save(0), tokens[11:], Reading(), 0)
    for seen in (at_once, sliced):
        for layer, info in zip(seen.layers, infos, strict=True):
            assert near(layer.weights, info["read_weights"][0, :, -1], 1e-3)
            entropy = torch.special.entr(info["read_weights"][0, :, 11:]).sum(dim=-1).mean(dim=1)
            assert near(layer.mean_entropy, entropy, 1e-3)
    assert np.array_equal(runtime.forward([Feed(0, tokens[11:12])]), asm_after(tmp_path, kind, tokens))
    assert not np.array_equal(row, at_once.logits)


def asm_after(folder: Path, kind: str, tokens: list[int]) -> Any:
    """The logits of a runtime that nobody probed."""
    runtime = asm_runtime(folder, 1, kind)
    runtime.forward([Feed(0, tokens[:11])])
    return runtime.forward([Feed(0, tokens[11:12])])


def test_the_reply_is_what_the_likeliest_tokens_make(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    tokens = runtime.tokenize(TEXT)
    (row,) = runtime.forward([Feed(0, tokens)])
    said: list[int] = []
    while len(said) < 20 and int(row.argmax()) not in runtime.end_tokens:
        said.append(int(row.argmax()))
        (row,) = runtime.forward([Feed(0, said[-1:])])
    assert list(runtime.probe({}, tokens, Reading(), 20).reply) == said
    assert list(runtime.probe({}, tokens, Reading(), 0).reply) == []


def test_the_reply_is_read_as_the_prompt_was(tmp_path: Path) -> None:
    runtime, model = asm_runtime(tmp_path, 1), asm_model()
    tokens = runtime.tokenize(TEXT)
    masked = flags({"slot_mask": [0, 0, 1, 0, 1]})
    reply = list(runtime.probe({}, tokens, Reading(masked=(0, 1, 3)), 12).reply)
    wanted = [int(told(model, tokens + reply[:i], **masked)[0].argmax()) for i in range(len(reply))]
    plain = [int(told(model, tokens + reply[:i])[0].argmax()) for i in range(len(reply))]
    assert reply == wanted != plain
    assert sum(one != other for one, other in zip(wanted, plain, strict=True)) > 2


def test_a_reply_ends_before_an_end_token(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    tokens = runtime.tokenize(TEXT)
    reply = list(runtime.probe({}, tokens, Reading(), 20).reply)
    runtime.end_tokens = frozenset({reply[3]})
    assert list(runtime.probe({}, tokens, Reading(), 20).reply) == reply[: reply.index(reply[3])]


def test_a_context_that_ends_bounds_prompt_and_reply(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    limit = runtime.context_tokens
    assert limit == 2048
    runtime.forward([Feed(0, [5] * (limit - 4))])
    held = runtime.save(0)
    assert len(runtime.probe(held, [7, 8], Reading(), 50).reply) == 2
    with pytest.raises(BadRequest, match=r"holds 2044 tokens and the prompt 5, .* end at 2048"):
        runtime.probe(held, [7] * 5, Reading(), 0)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        (Reading("external"), "softmax, top1, topk"),
        (Reading("topk", 0), r"topk = 0.*1 to 5"),
        (Reading("topk", 6), r"topk = 6.*1 to 5"),
        (Reading(masked=(5,)), r"slot 5 .*0\.\.4"),
        (Reading(masked=(-1,)), r"slot -1 .*0\.\.4"),
        (Reading(masked=(0, 1, 2, 3, 4, 4)), r"all slots 0\.\.4"),
        (Reading(masked=(0,), where="write"), "read, content_read_only, slotspace_only"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(tmp_path: Path, reading: Reading, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        asm_runtime(tmp_path, 1).probe({}, [5], reading, 0)


def test_a_model_without_a_part_cannot_be_asked_about_it(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no refinement"):
        asm_runtime(tmp_path, 1, "plain").probe({}, [5], Reading(masked=(0,), where="slotspace_only"), 0)
    assert asm_runtime(tmp_path, 1, "plain").probe({}, [5], Reading(masked=(0,)), 3).layers[0].gate == 0


def test_tokens_and_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    for tokens, says in (([], "read something"), ([257], r"0\.\.256"), ([-1], r"0\.\.256")):
        with pytest.raises(BadRequest, match=says):
            runtime.probe({}, tokens, Reading(), 0)
    runtime.forward([Feed(0, [5, 6])])
    state = dict(runtime.save(0))
    with pytest.raises(Corrupt):
        runtime.probe({**state, "m": state["m"] * np.float32(np.nan)}, [5], Reading(), 0)
    huge = {**state, "num": np.full_like(state["num"], 3e38)}
    with pytest.raises(SsmprovError, match="overflowed"):
        runtime.probe(huge, [5], Reading(), 0)


def test_probes_run_beside_the_model(tmp_path: Path) -> None:
    """From other threads, while slots read: neither changes what the other finds."""
    runtime, alone = asm_runtime(tmp_path, 2), asm_runtime(tmp_path, 2)
    tokens = runtime.tokenize(TEXT)
    wanted = alone.probe({}, tokens, Reading(), 5)
    found: list[Probe] = []

    def look(runtime: AsmRuntime) -> None:
        found.extend(runtime.probe({}, tokens, Reading(), 5) for _ in range(5))

    threads = [threading.Thread(target=look, args=(runtime,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for token in tokens:
        feeds = [Feed(0, [token]), Feed(1, [token + 1])]
        assert np.array_equal(runtime.forward(feeds), alone.forward(feeds))
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for seen in found:
        assert list(seen.reply) == list(wanted.reply)
        assert np.array_equal(seen.logits, wanted.logits)
