"""The probe's numbers against other ways to compute them, and its options."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asm_cases import tiny_model
from torch import Tensor

from models.asm import ASMLanguageModel, InputError, save_checkpoint
from research.asm import probe
from research.asm.probing import knockout, steering, wording
from research.asm.probing.prompts import texts
from research.asm.probing.reading import attention_of, look, next_tokens, read_prompts
from ssmprov.main import main

ASKED = [[5, 1, 9, 30, 2, 2, 7], [3], [8, 8, 20, 4]]


def model_of(**options: Any) -> ASMLanguageModel:
    return tiny_model(**{"num_layers": 3, **options}).double()


def margin(logs: Tensor) -> Tensor:
    return logs[:, 6] - logs[:, 11]


@torch.no_grad()
def alone(model: ASMLanguageModel) -> np.ndarray[Any, Any]:
    """Log probabilities after each prompt, which is read alone and at once."""
    rows = [model(torch.tensor([ids]))[0][0, -1].numpy() for ids in ASKED]
    return np.stack([row - np.log(np.exp(row).sum()) for row in rows])


def hidden_of(model: ASMLanguageModel, layer: int) -> list[np.ndarray[Any, Any]]:
    """The outputs [T,C] of one block, prompt by prompt, by running the blocks below it by hand."""
    found = []
    for ids in ASKED:
        x = model.token_emb(torch.tensor([ids]))
        for block in model.layers()[: layer + 1]:
            x, _ = block(x)
        found.append(x[0].detach().numpy())
    return found


def of_numpy(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The first three principal axes [3,D], their largest entry positive."""
    axes = np.linalg.svd(samples - samples.mean(axis=0))[2][:3]
    return np.stack([axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes])


@pytest.mark.parametrize("scan", ["exact", "chunked:3"])
@pytest.mark.parametrize("whole", [False, True])
def test_prompts_read_together_up_to_their_last_token_are_read_as_alone(scan: str, whole: bool) -> None:
    model = model_of(scan=scan)
    found = next_tokens(model, read_prompts(model, ASKED), whole=whole)
    np.testing.assert_allclose(found.numpy(), alone(model), atol=1e-9)


def test_principal_components_are_those_of_numpy() -> None:
    samples = torch.randn(20, 7, generator=torch.Generator().manual_seed(2)).double()
    space = steering.Subspace.of(samples)
    axes = of_numpy(samples.numpy())
    variances = np.linalg.eigvalsh(np.cov(samples.numpy().T))[::-1]
    np.testing.assert_allclose(space.axes.numpy(), axes, atol=1e-9)
    np.testing.assert_allclose(space.shares.numpy(), (variances / variances.sum())[:3], atol=1e-9)
    z = space.coordinates(samples)
    np.testing.assert_allclose(z.numpy(), (samples - samples.mean(0)).numpy() @ axes.T, atol=1e-9)
    np.testing.assert_allclose(space.coordinates(space.decoded(z)).numpy(), z.numpy(), atol=1e-9)


def test_a_slope_is_that_of_the_line_through_the_first_three_points() -> None:
    margins = [0.3, 0.1, 0.9, 7.0, -5.0]
    assert steering.slope(steering.SWEEP, margins) == pytest.approx(
        np.polyfit(steering.SWEEP[:3], margins[:3], 1)[0], abs=1e-9
    )


def test_steering_the_last_layer_is_steering_what_the_head_reads() -> None:
    """Gradient by automatic differentiation, margins by the norm and the head alone."""
    model = model_of()
    found = steering.compare(model, read_prompts(model, ASKED), 2, margin)
    hidden = hidden_of(model, 2)
    axes = torch.from_numpy(of_numpy(np.concatenate([one[-5:] for one in hidden])))
    last = torch.from_numpy(np.stack([one[-1] for one in hidden]))

    def at(z: Tensor) -> Tensor:
        return margin(model.lm_head(model.ln_f(last + z @ axes)).log_softmax(-1)).mean()

    gradient = torch.autograd.functional.jacobian(at, torch.zeros(3).double())
    direction = torch.tensor(found.residual.gradient).double()
    np.testing.assert_allclose(direction.numpy(), gradient.numpy(), rtol=1e-3, atol=1e-5)
    direction = direction / direction.norm()
    with torch.no_grad():
        expected = [float(at(eps * direction)) for eps in steering.SWEEP]
    np.testing.assert_allclose(found.residual.margins, expected, atol=1e-9)
    np.testing.assert_allclose(found.residual_frozen.margins, expected, atol=1e-9)  # no layer behind it routes
    assert found.unforced == pytest.approx(float(margin(torch.from_numpy(alone(model))).mean()), abs=1e-9)
    assert found.residual.margins[0] == found.unforced
    assert found.residual.slope == pytest.approx(float(gradient.norm()), rel=0.1)


def test_forced_routing_is_the_softmax_of_the_decoded_point_at_the_last_token() -> None:
    """By a function in place of a tensor, over whole prompts, one at a time, with axes from numpy."""
    model = model_of(read_temperature=0.7)
    found = steering.compare(model, read_prompts(model, ASKED), 1, margin)
    with torch.no_grad():
        logits = [
            model(torch.tensor([ids]), return_info=True)[2][1]["read_logits"][0].transpose(0, 1).flatten(1).numpy()
            for ids in ASKED
        ]
    samples = np.concatenate([one[-5:] for one in logits])
    mean, axes = samples.mean(axis=0), of_numpy(samples)
    direction = np.array(found.routing.gradient) / np.linalg.norm(found.routing.gradient)
    for eps, steered in zip(steering.SWEEP, found.routing.margins, strict=True):
        margins = []
        for ids, one in zip(ASKED, logits, strict=True):
            point = mean + ((one[-1] - mean) @ axes.T + eps * direction) @ axes
            forced = torch.from_numpy(point).view(2, -1)

            def override(_: int, __: int, plain: Tensor, *rest: Any, forced: Tensor = forced) -> Tensor:
                weights = (plain / 0.7).softmax(-1)
                weights[0, :, -1] = (forced / 0.7).softmax(-1)
                return weights

            attention_of(model, 1).routing_override = override
            with torch.no_grad():
                margins.append(margin(model(torch.tensor([ids]))[0][:, -1].log_softmax(-1)))
        assert steered == pytest.approx(float(torch.stack(margins).mean()), abs=1e-9)
    assert found.routing.slope > 0


def test_frozen_routing_answers_otherwise_to_an_edit_below_it_and_nothing_stays_forced() -> None:
    model = model_of()
    prompts = read_prompts(model, ASKED)
    before = next_tokens(model, prompts)
    found = steering.compare(model, prompts, 0, margin)
    assert found.residual_frozen.margins[0] == pytest.approx(found.unforced, abs=1e-9)
    assert abs(found.residual_frozen.margins[-1] - found.residual.margins[-1]) > 1e-6
    knockout.knock_outs(model, prompts)
    torch.testing.assert_close(next_tokens(model, prompts), before, atol=0, rtol=0)
    assert all(attention_of(model, layer).routing_override is None for layer in range(3))


def test_knocked_out_slots_are_the_most_and_least_read_and_their_divergence_is_that_of_a_masked_softmax() -> None:
    model = model_of(num_slots=7)
    found = knockout.knock_outs(model, read_prompts(model, ASKED))
    plain = alone(model)
    assert [one.layer for one in found] == [0, 1, 2]
    for one in found:
        with torch.no_grad():
            infos = [model(torch.tensor([ids]), return_info=True)[2] for ids in ASKED]
        used = np.concatenate([info[one.layer]["read_weights"][0].mean(0).numpy() for info in infos]).mean(axis=0)
        order = list(np.argsort(-used))
        assert (one.most, one.least) == (order[:3], order[-3:])
        assert (one.most_share, one.least_share) == pytest.approx((used[order[:3]].sum(), used[order[-3:]].sum()))
        for slots, divergence in ((one.most, one.most_kl), (one.least, one.least_kl)):
            attention_of(model, one.layer).routing_override = without(slots)
            changed = alone(model)
            attention_of(model, one.layer).routing_override = None
            expected = (np.exp(plain) * (plain - changed)).sum(axis=1).mean()
            assert divergence == pytest.approx(expected, rel=1e-6)
            assert divergence > 1e-6


def without(slots: list[int]) -> Callable[..., Tensor]:
    def override(_: int, __: int, logits: Tensor, *rest: Any) -> Tensor:
        kept = logits.exp()
        kept[..., slots] = 0
        return kept

    return override


def test_a_model_with_one_slot_has_none_to_knock_out() -> None:
    model = model_of(num_slots=1)
    assert knockout.knock_outs(model, read_prompts(model, ASKED)) == []


def test_padding_is_not_counted_in_the_use_of_slots() -> None:
    model = model_of()
    prompts = read_prompts(model, ASKED)
    infos, hidden = look(model, prompts, 1)
    weights = infos[1]["read_weights"].clone()
    used = knockout.usage(weights, prompts.lengths)
    weights[1, :, 1:] = 99.0
    torch.testing.assert_close(knockout.usage(weights, prompts.lengths), used)
    np.testing.assert_allclose(hidden[0].numpy(), hidden_of(model, 1)[0], atol=1e-9)


def test_the_prompts_are_those_of_the_margin() -> None:
    groups = [group for group, _ in texts()]
    assert len(groups) == 17
    assert groups.count("control") == 3
    assert not any("Paris" in text for _, text in texts())


def saved(path: Path, **options: Any) -> Path:
    save_checkpoint(tiny_model(**options), path)
    return path


def test_the_margin_of_a_checkpoint_is_that_of_its_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(vocab_size=257)
    save_checkpoint(model, tmp_path / "m.pt")
    words = ["asm", "probe", "--checkpoint", str(tmp_path / "m.pt"), "--layer", "0", "--outdir", str(tmp_path)]
    assert main(words) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    margins = []
    with torch.no_grad():
        for _, text in texts():
            logits = model(torch.tensor([[1 + byte for byte in f"{text} ".encode()]]))[0][0, -1]
            margins.append(float(logits[1 + ord("P")] - logits[1 + ord("L")]))
    assert [one["margin"] for one in found["margin"]["prompts"]] == pytest.approx(margins, abs=1e-4)
    assert found["margin"]["all"]["median"] == pytest.approx(float(np.median(margins)), abs=1e-4)
    assert found["margin"]["controls"]["mean"] == pytest.approx(float(np.mean(margins[-3:])), abs=1e-4)
    assert found["margin"]["proxy"] is True
    assert found["steering"]["layer"] == 0
    out = capsys.readouterr().out
    assert "a proxy: logit(" in out
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_a_seed_repeats_exactly_and_says_that_nothing_is_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(probe.FRESH, "num_layers", 1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    texts = []
    for number, seed in enumerate(("3", "3", "4")):
        assert main(["asm", "probe", "--fresh", "--seed", seed, "--outdir", str(tmp_path / str(number))]) == 0
        texts.append((tmp_path / str(number) / "probe.json").read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["margin"] != json.loads(texts[2])["margin"]
    out = capsys.readouterr().out
    assert "freshly initialised from seed 3, untrained" in out
    assert "no plot because matplotlib is not installed: install ssmprov[bench]" in out
    assert not (tmp_path / "0" / "probe.png").exists()


def vocabulary(directory: Path, *words: str) -> int:
    """Files in the form of GPT-2's: all bytes, and merges that build words from the left. Returns the size."""
    tokenizers = pytest.importorskip("tokenizers")
    tokens = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            merges.append(f"{word[: end - 1]} {word[end - 1]}")
            tokens.append(word[:end])
    tokens = list(dict.fromkeys(tokens))
    (directory / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
    return len(tokens)


def test_the_margin_itself_is_measured_with_the_vocabulary_of_gpt2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # nothing to see
    size = vocabulary(tmp_path, "ĠParis", "Ġthe")
    model = tiny_model(vocab_size=size)
    save_checkpoint(model, tmp_path / "m.pt")
    words = ["asm", "probe", "--checkpoint", str(tmp_path / "m.pt"), "--tokenizer", str(tmp_path)]
    assert main([*words, "--outdir", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "probe.json").read_text())["margin"]
    assert found["proxy"] is False
    assert "Paris margin: log P(" in capsys.readouterr().out
    ids = json.loads((tmp_path / "vocab.json").read_text())
    text = [ids[token] for token in "TheĠcapitalĠofĠGermanyĠis"]
    with torch.no_grad():
        logits = model(torch.tensor([text]))[0][0, -1]
    expected = float(logits[ids["ĠParis"]] - logits[ids["Ġthe"]])
    [germany] = [one["margin"] for one in found["prompts"] if "Germany" in one["text"]]
    assert germany == pytest.approx(expected, abs=1e-4)


def test_a_vocabulary_that_does_not_do_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"the model's vocabulary has 31 tokens, so it is not a byte model \(257 tokens\).*--tokenizer"
    ):
        wording.wording_for(31, None)
    with pytest.raises(InputError, match=r"vocab\.json: there is no such file"):
        wording.wording_for(31, tmp_path)
    size = vocabulary(tmp_path, "Ġthe")
    with pytest.raises(InputError, match="' Paris' is 6 tokens in this vocabulary"):
        wording.wording_for(size, tmp_path)
    size = vocabulary(tmp_path, "ĠParis", "Ġthe")
    with pytest.raises(InputError, match=f"this vocabulary has {size} tokens, but the model has {size - 1}"):
        wording.wording_for(size - 1, tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(InputError, match=r"its vocab\.json and merges\.txt cannot be read"):
        wording.wording_for(size, tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match="needs the Python module 'tokenizers'"):
        wording.wording_for(size, tmp_path)


@pytest.mark.parametrize(
    ("options", "words", "message", "code"),
    [
        ({"vocab_size": 257}, ["--layer", "2"], "the model has 2 layers, 0 to 1", 2),
        ({}, [], "the model's vocabulary has 31 tokens", 1),
        ({"vocab_size": 257, "max_seq_len": 20}, [], "tokens are more than max_seq_len 20", 1),
        ({"vocab_size": 257}, ["--scan", "chunk"], "scan must be exact, chunked or chunked:<tokens>", 1),
        (None, ["--scan", "exact"], "--scan needs a --checkpoint", 2),
        ({}, ["--fresh"], "give --checkpoint or --fresh, not both", 2),
    ],
)
def test_a_probe_that_cannot_be_made_is_one_line(
    options: dict[str, Any] | None,
    words: list[str],
    message: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [] if options is None else ["--checkpoint", str(saved(tmp_path / "m.pt", **options))]
    assert main(["asm", "probe", *given, *words, "--outdir", str(tmp_path)]) == code
    assert message in capsys.readouterr().err.splitlines()[0]
    assert not (tmp_path / "probe.json").exists()


def test_weights_so_large_that_logits_overflow_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(vocab_size=257).double()
    with torch.no_grad():
        model.ln_f.weight.fill_(1e308)
        model.lm_head.weight.fill_(1e308)
    with pytest.raises(InputError, match="logits are NaN or infinite"):
        next_tokens(model, read_prompts(model, ASKED))
