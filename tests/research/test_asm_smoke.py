"""The smoke entry point: what it says of a sound model, and what it notices."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch
from asm_cases import tiny_model
from safetensors.torch import load_file, save_file

from models.asm import ASMLanguageModel, save_checkpoint
from research.asm import smoke
from research.asm.entry import one_line_errors
from ssmprov.main import main

TOKENS = torch.randint(31, (2, 9), generator=torch.Generator().manual_seed(4))


def checkpoint(directory: Path, **changes: float) -> Path:
    """A file of a tiny model with vectors replaced by one number; `__` in a name stands for the dot."""
    path = directory / "model.safetensors"
    save_checkpoint(tiny_model(), path)
    tensors = load_file(path)
    for name, value in changes.items():
        tensors[name.replace("__", ".")] = torch.full_like(tensors["ln_f.weight"], value)
    save_file(tensors, path, metadata={"cfg": json.dumps(tiny_model().config.to_mapping())})
    return path


def test_it_reads_steps_and_trains_all_variants_under_both_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["asm", "smoke", "--outdir", str(tmp_path / "a" / "b")]) == 0
    found = json.loads((tmp_path / "a" / "b" / "smoke.json").read_text())
    assert [(one["variant"], one["scan"]) for one in found["readings"]] == [
        (variant, scan) for scan in ("exact", "chunked:8") for variant in ("baseline", "online", "intervene")
    ]
    assert all(one["logits"] == [2, 24, 257] for one in found["readings"])
    assert all(one["steps_differ"] < 1e-5 for one in found["readings"])
    # two layers of H (K (d + 2) + M^2 + M) floats; the chunked scan keeps the slots twice
    assert {one["scan"]: one["state_bytes"] for one in found["readings"]} == {
        "exact": 2 * 4 * 4 * (8 * (8 + 2) + 64 + 8),
        "chunked:8": 2 * 4 * 4 * (2 * 8 * (8 + 2) + 64 + 8),
    }
    assert found["training"]["loss_after"] < found["training"]["loss"]
    assert "logits 2x24x257" in capsys.readouterr().out


def test_a_seed_repeats_exactly_and_another_one_differs(tmp_path: Path) -> None:
    texts = []
    for number, seed in enumerate(("3", "3", "4")):
        assert main(["asm", "smoke", "--seed", seed, "--outdir", str(tmp_path / str(number))]) == 0
        texts.append((tmp_path / str(number) / "smoke.json").read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["training"] != json.loads(texts[2])["training"]


def test_a_checkpoint_is_tried_out(tmp_path: Path) -> None:
    assert main(["asm", "smoke", "--checkpoint", str(checkpoint(tmp_path)), "--outdir", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "smoke.json").read_text())["readings"][0]["logits"] == [2, 24, 31]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ln_f__weight": 3e38}, "NaN or infinite values: the logits, variant baseline, scan exact"),
        ({"ln_f__weight": float("nan")}, "ln_f.weight holds 16 values that are NaN or infinite"),
        ({"extra__weight": 1.0}, "the model has no tensor extra.weight"),
    ],
    ids=["overflow", "nan", "unknown key"],
)
def test_a_checkpoint_that_does_not_work_is_one_line_and_exit_code_1(
    changes: dict[str, float], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path, **changes)
    assert main(["asm", "smoke", "--checkpoint", str(path), "--outdir", str(tmp_path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ssmprov: ")
    assert message in line
    assert not (tmp_path / "smoke.json").exists()


def test_gradients_that_are_not_finite_are_noticed() -> None:
    model = tiny_model("online")
    model.blocks[1].ln_2.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(smoke.NotFinite, match=r"the gradient of blocks\.1\.ln_2\.weight"):
        smoke.train_step(model, TOKENS)


def test_the_training_step_is_taken_against_the_next_token() -> None:
    """A model that expects the token it has just read is right only where tokens repeat."""

    def repeating() -> ASMLanguageModel:
        model = tiny_model("online", embed_dim=64)
        with torch.no_grad():
            model.token_emb.weight.copy_(20 * torch.eye(31, 64))
            for name, parameter in model.blocks.named_parameters():
                if "out_proj" in name or "mlp.3" in name:
                    parameter.zero_()
        return model

    assert smoke.train_step(repeating(), TOKENS).loss > 10
    assert smoke.train_step(repeating(), torch.full((2, 9), 5)).loss < 0.1


def test_steps_that_give_other_logits_are_noticed() -> None:
    model = tiny_model(dropout=0.5)
    smoke.read(model, TOKENS)
    with pytest.raises(click.ClickException, match="token by token and at once, variant baseline, scan exact differ"):
        smoke.read(model.train(), TOKENS)


@pytest.mark.parametrize("name", ["smoke", "probe"])
@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["--device", "gpu9"], "torch cannot use the device 'gpu9' on this machine; available: cpu", 2),
        (["--device", "meta"], "torch cannot use the device 'meta' on this machine", 2),
        (["--outdir", "{file}"], "is a file", 2),
        (["--outdir", "{file}/below"], "{file}/below: Not a directory", 1),
        (["--seed", "-1"], "--seed", 2),
        (["--checkpoint", "{file}"], "the name of a checkpoint must end in .safetensors, .pt or .pth", 1),
        (["--checkpoint", "{file}.pt"], "does not exist", 2),
    ],
)
def test_wrong_options_are_one_line(
    name: str,
    words: list[str],
    message: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("kept")
    assert main(["asm", name, *(word.format(file=file) for word in words)]) == code
    line, *rest = capsys.readouterr().err.splitlines()
    assert message.format(file=file) in line
    assert [other.startswith("Try 'ssmprov asm") for other in rest] == [True] * (code == 2)
    assert file.read_text() == "kept"


def test_memory_that_does_not_suffice_is_one_line_and_another_error_is_not_hidden() -> None:
    with pytest.raises(click.ClickException, match="the device does not have enough memory"):
        one_line_errors(lambda: torch.empty(2**55))()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        one_line_errors(lambda: torch.ones(2, 3) @ torch.ones(2, 3))()
