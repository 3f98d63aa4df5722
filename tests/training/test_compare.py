"""Two models measured in one run, shipped by one command, and the control of equal budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from models import asm
from models.mini import ByteTokenizer
from models.rwkv7 import Config
from training import compare, control, evaluate, probes, ship, speeds
from training.asm_mini import asm_mini_config
from training.asm_trainee import ASMTrainee
from training.loop import Point, TrainingError
from training.readers import open_reader
from training.rwkv7_trainee import Rwkv7Trainee

RWKV7 = Config(layers=1, channels=64, head_size=32, vocabulary=257, ffn=64, rank_w=8, rank_a=8, rank_v=8, rank_g=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each architecture."""
    found = {}
    config = asm_mini_config(num_layers=1, embed_dim=16, num_heads=2, num_slots=4, slotspace_dim=4)
    for name, trainee in (("rwkv7", Rwkv7Trainee(RWKV7, 1)), ("asm", ASMTrainee(config, 1))):
        path = tmp_path_factory.mktemp(name) / "weights.safetensors"
        trainee.save(path)
        found[name] = path
    return found


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few kinds of prompts, and short work."""
    monkeypatch.setattr(evaluate, "CATEGORIES", {"answer": probes.CATEGORIES["answer"]})
    monkeypatch.setattr(compare, "CATEGORIES", {"answer": probes.CATEGORIES["answer"]})
    monkeypatch.setattr(evaluate, "AFTER_SOURCE", ("answer",))
    monkeypatch.setattr(evaluate, "SOURCE_BYTES", (200,))
    monkeypatch.setattr(evaluate, "SPARE", 4)
    for name, value in (("READ", 512), ("DECODED", 2), ("LANES", 8), ("WINDOW", 32)):
        monkeypatch.setattr(speeds, name, value)
    monkeypatch.setattr(compare, "WINDOWS", compare.Settings(seed=1, lanes=2, window=32))


def test_both_are_measured_and_written_down(files: dict[str, Path], tmp_path: Path) -> None:
    options = ["--rwkv7", files["rwkv7"], "--asm", files["asm"], "--outdir", tmp_path, "--count", 1, "--rounds", 1]
    result = CliRunner().invoke(compare.main, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "compare.json").read_text())["models"]
    assert set(found) == {"rwkv7-mini", "asm-mini"}
    for one in found.values():
        assert set(one["rates"]) == {"answer", "answer, after 200 bytes of source"}
        assert set(one["tokens_a_second"]) == set(speeds.TASKS)
        assert one["held_out_loss"] == pytest.approx(5.5, abs=0.2)
    model = asm.load_checkpoint(files["asm"]).model
    assert found["asm-mini"]["parameters"] == sum(tensor.numel() for tensor in model.parameters())
    assert found["asm-mini"]["state_bytes"] == 4 * 2 * (4 * (8 + 2) + 4 * 4 + 4) + 8  # fp32, and the count of tokens
    text = (tmp_path / "compare.md").read_text()
    assert "| answer, after 200 bytes of source |" in text
    assert "| state per context, bytes |" in text


def test_a_model_that_is_not_there_is_said_in_a_line(files: dict[str, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(compare.main, ["--asm", str(tmp_path / "none.safetensors"), "--outdir", str(tmp_path)])
    assert result.exit_code == 1
    assert "none.safetensors: there is no such file" in result.output


@pytest.mark.parametrize(("kind", "name", "rates"), [
    ("rwkv7", "rwkv7-mini.safetensors", "rates.json"),
    ("asm", "asm-mini.safetensors", "asm-rates.json"),
])  # fmt: skip
def test_either_is_shipped(files: dict[str, Path], tmp_path: Path, kind: str, name: str, rates: str) -> None:
    options = [str(files[kind].parent), "--into", str(tmp_path), "--count", "1"]
    result = CliRunner().invoke(ship.main, options)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {name, rates}
    shipped, trained = open_reader(tmp_path / name), open_reader(files[kind])
    tokens = torch.tensor([ByteTokenizer().encode("(Turn 1) [USER]: Hello.")])
    logits = [reader.read(tokens, reader.start(1))[0] for reader in (shipped, trained)]
    torch.testing.assert_close(*logits, rtol=0.02, atol=0.02)
    assert set(json.loads((tmp_path / rates).read_text())) == {"fingerprint", "seed", "rates"}


def test_the_control_sets_losses_against_seconds_and_tokens() -> None:
    def curve(loss: float, speed: int) -> list[Point]:
        return [
            Point(step=step, seconds=step * 1.0, tokens=step * speed, loss=loss / step, held_out=0.5)
            for step in range(1, 9)
        ]

    lines = control.table({"rwkv7": curve(8.0, 100), "asm": curve(16.0, 50)}, rows=2)
    assert lines[0] == "| seconds | rwkv7, loss | asm, loss |"
    assert lines[2] == f"| 4 | {8 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4:.3f} | {16 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4:.3f} |"
    assert lines[7] == f"| 200 | {8 * (1 + 1 / 2) / 2:.3f} | {16 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4:.3f} |"
    assert lines[-1].endswith("asm 0.5 after 400 tokens.")
    assert "| 1 | - | - |" in control.table({"rwkv7": curve(8.0, 100), "asm": curve(16.0, 50)}, rows=12)


def test_a_control_that_has_run_is_not_run_over(tmp_path: Path) -> None:
    (tmp_path / "control-rwkv7").mkdir()
    (tmp_path / "control-rwkv7/checkpoint.pth").touch()
    with pytest.raises(TrainingError, match="already contains a run"):
        control.run(tmp_path, 1.0, compiled=False)
