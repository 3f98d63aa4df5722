"""The scripted runtime as it is specified, and the rwkv runtime's states, batches, options and refusals."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_of
from rwkv_toys import CONFIG, rwkv_file, rwkv_runtime

from models import rwkv7
from ssmprov.errors import BadRequest, Corrupt, NotFound
from workers.runtimes import base, rwkv, scripted
from workers.runtimes.base import Feed, Logits, Plan, Runtime
from workers.runtimes.rwkv import Options
from workers.runtimes.rwkv import runtime as rwkv_module
from workers.runtimes.rwkv.runtime import Model, RwkvRuntime
from workers.runtimes.scripted import FIRST_PIECE, UNLIKELY, ScriptedRuntime

pytestmark = pytest.mark.usefixtures("one_thread")

# -- scripted

SCRIPT = {
    "replies": [
        {"after": "hello", "pieces": ["good ", "day", "\n\n~~~("]},
        {"after": "lo", "pieces": ["never after hello"]},
        {"after": "day", "pieces": ["light"]},
        {"after": "é", "pieces": ["ü"]},
        {"after": "", "pieces": ["?"]},
    ]
}


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., ScriptedRuntime]:
    def make(slots: int = 1, content: object = SCRIPT) -> ScriptedRuntime:
        path = tmp_path / "script.json"
        path.write_text(json.dumps(content))
        return scripted.open_runtime(Plan(path=path, slots=slots))

    return make


OpenScript = Callable[..., ScriptedRuntime]


def expected(logits: Logits) -> list[int]:
    """The one token of each row that is wanted."""
    assert np.isfinite(logits).all()
    assert ((logits == UNLIKELY).sum(axis=1) == logits.shape[1] - 1).all()
    return [int(token) for token in logits.argmax(axis=1)]


def read(runtime: ScriptedRuntime, text: str, slot: int = 0) -> bytes:
    """The piece that is wanted after a text, read as bytes."""
    (token,) = expected(runtime.forward([Feed(slot, runtime.tokenize(text))]))
    return runtime.piece(token)


def speak(runtime: ScriptedRuntime, text: str, slot: int = 0) -> list[str]:
    """What the runtime says after a text, down to its end token."""
    said = []
    (token,) = expected(runtime.forward([Feed(slot, runtime.tokenize(text))]))
    while token not in runtime.end_tokens:
        said.append(runtime.piece(token).decode())
        (token,) = expected(runtime.forward([Feed(slot, [token])]))
    return said


def test_the_first_reply_whose_suffix_fits_is_spoken_to_its_end(script: OpenScript) -> None:
    runtime = script()
    assert speak(runtime, "say hello") == ["good ", "day", "\n\n~~~("]
    assert runtime.save(0)["text"].tobytes() == b"say hellogood day\n\n~~~("
    assert speak(runtime, " hallo, lo") == ["never after hello"]
    assert speak(runtime, "é") == ["ü"]
    assert speak(runtime, "anything") == ["?"]


def test_without_a_reply_that_fits_the_end_token_comes(script: OpenScript) -> None:
    runtime = script(content={"replies": [{"after": "x", "pieces": ["y"]}]})
    assert speak(runtime, "a") == []
    assert speak(runtime, "x") == ["y"]


def test_any_other_token_starts_the_matching_anew(script: OpenScript) -> None:
    runtime = script()
    assert read(runtime, "hello") == b"good "
    assert read(runtime, "é") == "ü".encode()
    assert read(runtime, "hello") == b"good "

    assert read(runtime, "good ") == b"?", "the same text as bytes is not the piece"


def test_matching_compares_ids_and_not_text(script: OpenScript) -> None:
    runtime = script()
    assert read(runtime, "hello") == b"good "
    piece = next(token for token in range(FIRST_PIECE, runtime.vocabulary) if runtime.piece(token) == b"day")
    # `day` is not what is expected now, so the text `helloday` is matched anew
    assert runtime.piece(expected(runtime.forward([Feed(0, [piece])]))[0]) == b"light"
    assert read(runtime, "x") == b"?"
    assert read(runtime, "?") == b"?", "the byte is not the piece that spells it"
    piece = next(token for token in range(FIRST_PIECE, runtime.vocabulary) if runtime.piece(token) == b"?")
    assert expected(runtime.forward([Feed(0, [piece])])) == [0]


def test_prompts_are_byte_tokens_and_pieces_have_ids_of_their_own(script: OpenScript) -> None:
    runtime = script()
    assert runtime.tokenize("aé") == [98, 1 + 0xC3, 1 + 0xA9]
    assert runtime.end_tokens == {0}
    assert runtime.piece(0) == b""
    assert [runtime.piece(1 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    pieces = [runtime.piece(token) for token in range(FIRST_PIECE, runtime.vocabulary)]
    assert len(set(pieces)) == len(pieces) == 7
    assert b"?" in pieces


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20), st.lists(st.integers(1, 12), max_size=6))
def test_slices_make_no_difference(text: str, cuts: list[int]) -> None:
    content = machine(SCRIPT)
    whole, sliced = content(), content()
    tokens = whole.tokenize(text + "hello")
    rest = list(tokens)
    for cut in cuts:
        if len(rest) > cut:
            sliced.forward([Feed(0, rest[:cut])])
            rest = rest[cut:]
    assert np.array_equal(whole.forward([Feed(0, tokens)]), sliced.forward([Feed(0, rest)]))
    assert whole.save(0)["text"].tobytes() == sliced.save(0)["text"].tobytes()


def machine(content: dict[str, object]) -> Callable[[], ScriptedRuntime]:
    replies = [scripted.Reply(**reply) for reply in content["replies"]]  # type: ignore[attr-defined]
    return lambda: ScriptedRuntime(scripted.Script(replies), "0" * 64, 1)


def test_a_state_taken_out_in_mid_reply_goes_on_in_another_slot(script: OpenScript) -> None:
    runtime = script(slots=3)
    assert read(runtime, "hello", slot=0) == b"good "
    good = next(token for token in range(FIRST_PIECE, runtime.vocabulary) if runtime.piece(token) == b"good ")
    runtime.forward([Feed(0, [good])])
    state = runtime.save(0)
    runtime.forward([Feed(0, runtime.tokenize("x"))])
    runtime.load(2, state)
    day = next(token for token in range(FIRST_PIECE, runtime.vocabulary) if runtime.piece(token) == b"day")
    assert runtime.piece(expected(runtime.forward([Feed(2, [day])]))[0]) == b"\n\n~~~("
    assert runtime.save(2)["text"].tobytes() == b"hellogood day"
    assert state["text"].tobytes() == b"hellogood ", "what was saved stands"
    runtime.load(2, {})
    assert runtime.save(2)["text"].tobytes() == b""


def test_a_state_of_another_kind_is_refused_and_the_slot_stands(script: OpenScript) -> None:
    runtime = script()
    read(runtime, "kept")
    place = np.array([-1, 0], np.int32)
    for state in (
        {"wkv": np.zeros(3)},
        {"text": np.zeros(1, np.uint8)},
        {"text": np.zeros(1, np.uint8), "place": np.zeros(3, np.int32)},
        {"text": np.zeros(1, np.uint8), "place": np.array([5, 0], np.int32)},
        {"text": np.zeros(1, np.uint8), "place": np.array([0, 4], np.int32)},
        {"text": np.zeros(1, np.uint8), "place": np.array([0, -1], np.int32)},
        {"text": np.zeros(1, np.uint8), "place": place, "more": place},
    ):
        with pytest.raises(Corrupt):
            runtime.load(0, state)
        assert runtime.save(0)["text"].tobytes() == b"kept"


def test_the_fingerprint_is_that_of_the_script(script: OpenScript) -> None:
    one, same = script(), script()
    other = script(content={"replies": []})
    assert one.identity == same.identity
    assert one.identity.fingerprint != other.identity.fingerprint
    assert len(one.identity.fingerprint) == 64


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"replies": 1}', '{"replies": [{"after": "x"}]}', '{"replies": [], "delay": 1}',
     '{"replies": [{"after": "", "pieces": ["a", ""]}]}', "\udcff"],
)  # fmt: skip
def test_a_broken_script_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadRequest, match=r"odd\.json"):
        scripted.open_runtime(Plan(path=path, slots=1))


def test_a_script_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.json"):
        scripted.open_runtime(Plan(path=tmp_path / "none.json", slots=1))
    with pytest.raises(BadRequest, match="it is a directory"):
        scripted.open_runtime(Plan(path=tmp_path, slots=1))


def test_runtimes_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(SCRIPT))
    assert isinstance(base.load("scripted", Plan(path=path, slots=2)), ScriptedRuntime)
    with pytest.raises(NotFound, match="did you mean scripted"):
        base.load("script", Plan(path=path, slots=2))


# -- rwkv

TEXT = "(Turn 1) [USER]: Grüße an alle\n\n~~~("


def greedy(runtime: Runtime, slot: int, logits: Logits, count: int) -> list[int]:
    """The tokens that a context says, the end token among them."""
    said = []
    for _ in range(count):
        said.append(int(logits.argmax()))
        logits = runtime.forward([Feed(slot, said[-1:])])[0]
    return said


def distance(a: Logits, b: Logits) -> float:
    return float(np.abs(a - b).max())


def test_a_state_is_saved_and_loaded_bit_for_bit() -> None:
    runtime = rwkv_runtime(3)
    runtime.forward([Feed(0, runtime.tokenize(TEXT)), Feed(1, runtime.tokenize("other"))])
    state = runtime.save(0)
    assert {name: (array.shape, array.dtype) for name, array in state.items()} == {
        "shifts": ((CONFIG.layers, 2, CONFIG.channels), np.float32),
        "wkv": ((CONFIG.layers, CONFIG.heads, CONFIG.head_size, CONFIG.head_size), np.float32),
    }
    assert sum(array.nbytes for array in state.values()) == runtime.state_bytes
    runtime.load(2, state)
    for slot in (0, 2):
        again = runtime.save(slot)
        assert all(np.array_equal(again[name], state[name]) for name in state)
    assert not np.array_equal(runtime.save(1)["wkv"], state["wkv"])


def test_a_loaded_state_goes_on_exactly_as_the_original() -> None:
    runtime = rwkv_runtime(2)
    (logits,) = runtime.forward([Feed(0, runtime.tokenize(TEXT))])
    runtime.load(1, runtime.save(0))
    for token in greedy(rwkv_runtime(1), 0, logits, 5) + runtime.tokenize("and on"):
        (one,) = runtime.forward([Feed(0, [token])])
        (two,) = runtime.forward([Feed(1, [token])])
        assert np.array_equal(one, two)


def test_what_was_saved_does_not_change_when_the_slot_reads_on() -> None:
    runtime = rwkv_runtime(1)
    runtime.forward([Feed(0, runtime.tokenize(TEXT))])
    state = runtime.save(0)
    before = {name: array.copy() for name, array in state.items()}
    runtime.forward([Feed(0, [9])])
    runtime.forward([Feed(0, [9, 10])])
    assert all(np.array_equal(state[name], before[name]) for name in state)
    frozen = {name: array.copy() for name, array in state.items()}
    for array in frozen.values():
        array.flags.writeable = False
    runtime.load(0, frozen)
    runtime.forward([Feed(0, [9])])
    assert all(np.array_equal(frozen[name], before[name]) for name in state)


def test_an_emptied_slot_has_read_nothing() -> None:
    runtime = rwkv_runtime(1)
    first = runtime.forward([Feed(0, runtime.tokenize(TEXT))])
    runtime.load(0, {})
    assert not any(array.any() for array in runtime.save(0).values())
    assert np.array_equal(runtime.forward([Feed(0, runtime.tokenize(TEXT))]), first)


def test_a_batch_says_what_each_context_says_alone() -> None:
    together = rwkv_runtime(5)
    texts = [TEXT, "x", "two words", "é" * 20, "(Turn"]
    feeds = [Feed(slot, together.tokenize(text)) for slot, text in enumerate(texts)]
    rows = together.forward(feeds)
    alone = [rwkv_runtime(1) for _ in texts]
    singles = [runtime.forward([Feed(0, feed.tokens)])[0] for runtime, feed in zip(alone, feeds, strict=True)]
    said: list[list[int]] = [[] for _ in texts]
    for step in range(100):
        for row, single in zip(rows, singles, strict=True):
            assert distance(row, single) <= 1e-5 * np.abs(single).max(), step
        tokens = [int(row.argmax()) for row in rows]
        assert tokens == [int(single.argmax()) for single in singles]
        for context, token in zip(said, tokens, strict=True):
            context.append(token)
        rows = together.forward([Feed(slot, [token]) for slot, token in enumerate(tokens)])
        singles = [runtime.forward([Feed(0, [token])])[0] for runtime, token in zip(alone, tokens, strict=True)]
    assert all(len(set(context)) > 1 for context in said), "the contexts say something"


def test_only_the_fed_slots_read_and_in_any_order() -> None:
    runtime, alone = rwkv_runtime(4), rwkv_runtime(1)
    for slot in range(4):
        runtime.forward([Feed(slot, runtime.tokenize(f"slot {slot}"))])
    before = [runtime.save(slot) for slot in range(4)]
    rows = runtime.forward([Feed(3, [5]), Feed(1, [6, 7, 8]), Feed(0, [5, 9])])
    assert np.array_equal(runtime.save(2)["wkv"], before[2]["wkv"])
    for row, (slot, tokens) in zip(rows, [(3, [5]), (1, [6, 7, 8]), (0, [5, 9])], strict=True):
        alone.load(0, before[slot])
        assert distance(alone.forward([Feed(0, tokens)])[0], row) <= 1e-5
        for name in before[slot]:
            assert np.allclose(alone.save(0)[name], runtime.save(slot)[name], atol=1e-5)


def test_a_prompt_in_slices_is_the_prompt_in_one_go() -> None:
    whole, sliced = rwkv_runtime(1), rwkv_runtime(1)
    tokens = whole.tokenize(TEXT * 4)
    (at_once,) = whole.forward([Feed(0, tokens)])
    for width in (1, 7, 16, 50):
        sliced.load(0, {})
        for at in range(0, len(tokens), width):
            (last,) = sliced.forward([Feed(0, tokens[at : at + width])])
        assert distance(last, at_once) <= 1e-4
        for name, array in whole.save(0).items():
            assert np.allclose(sliced.save(0)[name], array, atol=1e-4)


def test_prefills_beyond_the_bound_are_split_into_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    together, split = rwkv_runtime(4), rwkv_runtime(4)
    feeds = [Feed(slot, together.tokenize("word " * (slot + 1))) for slot in range(4)]
    at_once = together.forward(feeds)
    monkeypatch.setattr(rwkv_module, "MAX_BATCH_TOKENS", 12)
    assert distance(split.forward(feeds), at_once) <= 1e-5


@pytest.mark.parametrize("fault", ["missing", "more", "shape", "layers", "dtype", "empty"])
def test_a_state_that_does_not_fit_is_refused_and_the_slot_stands(fault: str) -> None:
    runtime = rwkv_runtime(1)
    runtime.forward([Feed(0, runtime.tokenize(TEXT))])
    state = dict(runtime.save(0))
    kept = {name: array.copy() for name, array in state.items()}
    odd = {
        "missing": {"shifts": state["shifts"]},
        "more": {**state, "kv": state["wkv"]},
        "shape": {**state, "wkv": state["wkv"][..., :-1]},
        "layers": {**state, "shifts": np.concatenate([state["shifts"]] * 2)},
        "dtype": {**state, "wkv": state["wkv"].astype(np.float64)},
        "empty": {"shifts": state["shifts"][:0], "wkv": state["wkv"][:0]},
    }[fault]
    with pytest.raises(Corrupt, match="this model's state is"):
        runtime.load(0, odd)
    after = runtime.save(0)
    assert all(np.array_equal(after[name], kept[name]) for name in kept)


def test_ids_that_spell_nothing_are_control_tokens(tmp_path: Path) -> None:
    runtime = rwkv_runtime(1)
    assert runtime.end_tokens == {0}
    assert runtime.control_tokens == frozenset()
    assert all(runtime.piece(token) for token in range(1, runtime.vocabulary))
    world = rwkv7.random_weights(dataclasses.replace(CONFIG, layers=1, channels=32, vocabulary=65536), seed=1)
    large = RwkvRuntime(Model(world, world), "0" * 64, Plan(path=tmp_path, slots=1), Options())
    assert large.control_tokens == frozenset(range(65530, 65536))
    assert large.end_tokens == {0}
    assert not any(large.piece(token) for token in (0, *large.control_tokens))
    assert b"".join(map(large.piece, large.tokenize(TEXT))).decode() == TEXT


# -- opening a model


def test_a_file_is_opened_with_its_fingerprint_and_layout(tmp_path: Path) -> None:
    path = rwkv_file(tmp_path)
    runtime = rwkv.open_runtime(Plan(path=path, slots=2))
    assert runtime.identity.fingerprint == rwkv7.fingerprint(path)
    assert runtime.identity.layout == "rwkv7 L2 C64 H2 N32"
    assert runtime.identity.dtype == "fp32"
    assert runtime.vocabulary == 257
    (logits,) = runtime.forward([Feed(0, runtime.tokenize(TEXT))])
    assert np.array_equal(logits, rwkv_runtime(2).forward([Feed(0, runtime.tokenize(TEXT))])[0])
    other = rwkv.open_runtime(Plan(path=rwkv_file(tmp_path, "other.safetensors", seed=6), slots=2))
    assert other.identity.fingerprint != runtime.identity.fingerprint


@pytest.mark.parametrize(
    ("options", "name", "bound"),
    [
        ({"dtype": "bf16"}, "bf16", 0.2),
        ({"quantize": "int8"}, "fp32+int8", 0.35),
        ({"prefill_dtype": "bf16"}, "fp32+bf16", 0.06),
        ({"dtype": "bf16", "prefill_dtype": "fp32"}, "bf16+fp32", 0.2),
    ],
)
def test_the_options_run_within_a_measured_error(
    tmp_path: Path, options: dict[str, str], name: str, bound: float
) -> None:
    """The largest error over a prefill and 30 decoded tokens, relative to the spread of the logits.

    Measured: .13, .24, .04 and .13 (random weights of this size are coarser than trained ones).
    """
    path = rwkv_file(tmp_path)
    exact, runtime = rwkv.open_runtime(Plan(path=path, slots=1)), rwkv.open_runtime(plan_of(path, **options))
    assert runtime.identity.dtype == name
    assert runtime.identity.layout == exact.identity.layout
    assert runtime.identity.fingerprint == exact.identity.fingerprint
    tokens = exact.tokenize(TEXT)
    pairs = [(exact.forward([Feed(0, tokens)])[0], runtime.forward([Feed(0, tokens)])[0])]
    for token in exact.tokenize("a further thirty bytes of text"):
        pairs.append((exact.forward([Feed(0, [token])])[0], runtime.forward([Feed(0, [token])])[0]))
    errors = [distance(wanted, found) / float(wanted.std()) for wanted, found in pairs]
    assert 0 < max(errors) <= bound, max(errors)
    assert all(array.dtype == np.float32 for array in runtime.save(0).values())


def test_a_state_of_one_dtype_is_read_by_another(tmp_path: Path) -> None:
    path = rwkv_file(tmp_path)
    exact, coarse = (
        rwkv.open_runtime(Plan(path=path, slots=1)),
        rwkv.open_runtime(Plan(path=path, slots=1, dtype="bf16")),
    )
    exact.forward([Feed(0, exact.tokenize(TEXT))])
    state = exact.save(0)
    coarse.load(0, state)
    assert all(np.array_equal(coarse.save(0)[name], state[name]) for name in state)


@pytest.mark.parametrize("fault", ["missing", "cut", "garbage", "keys", "shape", "pickle", "folder", "vocabulary"])
def test_a_broken_model_file_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    path = rwkv_file(tmp_path, "model.pth")
    tensors = rwkv7.random_tensors(CONFIG, seed=5)
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif fault == "garbage":
        path.write_bytes(b"\x00garbage" * 100)
    elif fault == "keys":
        tensors.pop("head.weight")
        rwkv7.save(tensors, path)
    elif fault == "shape":
        tensors["head.weight"] = tensors["head.weight"][:, :-1].contiguous()
        rwkv7.save(tensors, path)
    elif fault == "pickle":
        path.write_bytes(pickle.dumps({"a": Path}))
    elif fault == "folder":
        path.unlink()
        path.mkdir()
    else:
        rwkv7.save(rwkv7.random_tensors(dataclasses.replace(CONFIG, vocabulary=300), seed=5), path)
    with pytest.raises(BadRequest) as refused:
        rwkv.open_runtime(Plan(path=path, slots=1))
    assert fault == "vocabulary" or path.name in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"dtype": "fp8"}, BadRequest, "fp8"),
        ({"prefill_dtype": "half"}, BadRequest, "half"),
        ({"quantize": "int4"}, BadRequest, "int4"),
        ({"device": "gpu"}, BadRequest, "gpu"),
        ({"device": "meta"}, BadRequest, "meta"),
        ({"device": "cpu:x"}, BadRequest, "cpu:x"),
        ({"device": "cuda:99"}, BadRequest, "cuda:99"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_value(
    tmp_path: Path, options: dict[str, str], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        rwkv.open_runtime(plan_of(rwkv_file(tmp_path), **options))
