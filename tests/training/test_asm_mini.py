"""The command that trains a small ASM: its files, its resuming, and what it says when it cannot."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from models import asm
from training import plot
from training.asm_mini import main
from training.data import Batch
from training.loop import Trainer
from training.texts import HubTexts

SIZES = [
    "--layers",
    "1",
    "--channels",
    "16",
    "--heads",
    "2",
    "--slots",
    "4",
    "--slotspace",
    "4",
    "--lanes",
    "2",
    "--window",
    "32",
]


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(outdir: Path, *options: str, steps: int = 3) -> Result:
    return CliRunner().invoke(main, ["--outdir", str(outdir), "--steps", str(steps), *SIZES, *options])


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    lines = result.output.strip().splitlines()
    return lines[-1].removeprefix("Error: ")


def test_a_run_leaves_model_checkpoint_losses_and_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "step 3: loss" in result.output
    files = {path.name: path for path in (tmp_path / "run").iterdir()}
    assert set(files) == {"checkpoint.pth", "weights.safetensors", "losses.json", "losses.png", "training.log"}
    assert files["losses.png"].read_bytes().startswith(b"\x89PNG")
    curve = json.loads(files["losses.json"].read_text())["curve"]
    assert [point["step"] for point in curve] == [1, 2, 3]
    assert curve[0]["loss"] == pytest.approx(5.55, abs=0.1)
    model = asm.load_checkpoint(files["weights.safetensors"]).model
    assert (model.config.num_layers, model.config.scan) == (1, "exact")


def test_run_again_it_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 0
    assert run(tmp_path, steps=5).exit_code == 0
    curve = json.loads((tmp_path / "losses.json").read_text())["curve"]
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5]
    assert "resumed at step 3" in (tmp_path / "training.log").read_text()


def test_it_can_start_from_given_weights(tmp_path: Path) -> None:
    assert run(tmp_path / "first").exit_code == 0
    weights = tmp_path / "first/weights.safetensors"
    result = run(tmp_path / "second", "--weights", str(weights), "--rate", "1e-9", "--matrix-rate", "1e-9", steps=1)
    assert result.exit_code == 0, result.output
    old, new = (
        asm.load_checkpoint(path).model.token_emb.weight for path in (weights, tmp_path / "second" / weights.name)
    )
    assert torch.allclose(old, new, atol=1e-6)
    plain = tmp_path / "first/losses.json"
    assert "Error" in run(tmp_path / "third", "--weights", str(plain)).output


def test_an_interrupt_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Trainer.take

    def interrupted(self: Trainer[Any], batch: Batch) -> float:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return take(self, batch)

    monkeypatch.setattr(Trainer, "take", interrupted)
    before = signal.getsignal(signal.SIGINT)
    result = run(tmp_path, steps=50)
    assert result.exit_code == 130
    assert "stopped at step 2: run the same command to continue from" in result.output
    assert "Traceback" not in result.output
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["step"] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_without_matplotlib_the_losses_are_there_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "pip install 'ssmprov[bench]'" in result.output
    assert not (tmp_path / "losses.png").exists()
    assert (tmp_path / "losses.json").exists()


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert f"--outdir {file} cannot be written to" in refused(run(file))
    assert file.read_text() == "mine"
    wrong = run(tmp_path / "a", "--device", "nonsense")
    assert (wrong.exit_code, "torch cannot use the device 'nonsense' on this machine" in wrong.output) == (2, True)
    assert "16 must be a multiple of num_heads 3" in refused(run(tmp_path / "b", "--heads", "3"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("training.texts.find_spec", lambda _: None)
    assert "pip install 'ssmprov[asm-data]'" in refused(run(tmp_path / "c", "--dataset", "wikitext"))


def test_another_model_is_not_resumed(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 0
    before = (tmp_path / "checkpoint.pth").read_bytes()
    assert "belongs to a model with num_slots 4" in refused(run(tmp_path, "--slots", "8"))
    assert (tmp_path / "checkpoint.pth").read_bytes() == before


class FakeHub(ModuleType):
    """Stands in for the package `datasets`: one dataset, named `small`."""

    rows: list[dict[str, object]]

    def load_dataset(self, name: str, config: str | None, *, split: str) -> list[dict[str, object]]:
        if (name, config, split) != ("small", "plain", "train"):
            raise FileNotFoundError(f"there is no {name}\nand more lines")
        return self.rows


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub("datasets")
    fake.rows = [{"text": f"document {number} of many words"} for number in range(40)]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("training.texts.find_spec", lambda _: True)
    return fake


def test_a_dataset_is_trained_on(tmp_path: Path, hub: FakeHub) -> None:
    result = run(tmp_path, "--dataset", "small", "--dataset-config", "plain")
    assert result.exit_code == 0, result.output


def test_every_twentieth_document_is_held_out(hub: FakeHub) -> None:
    texts = HubTexts("small", "plain", "text")
    trained, held_out = set(texts.of("train")), set(texts.of("held_out"))
    assert (len(trained), len(held_out)) == (38, 2)
    assert not trained & held_out


def test_a_dataset_that_is_not_there_or_holds_no_text(tmp_path: Path, hub: FakeHub) -> None:
    assert refused(run(tmp_path, "--dataset", "large")) == "the dataset 'large' cannot be loaded (there is no large)"
    small = ("--dataset", "small", "--dataset-config", "plain")
    assert "no text in the column 'body'; its columns are text" in refused(
        run(tmp_path, *small, "--text-column", "body")
    )
    hub.rows = [{"text": " "}]
    assert "too few documents" in refused(run(tmp_path, *small))
