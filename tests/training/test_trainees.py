"""Both architectures under the loop: they learn what follows, and an interrupted run ends like an unbroken one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from models import asm
from models.mini import ByteTokenizer
from models.rwkv7 import Config
from training.asm_mini import asm_mini_config
from training.asm_trainee import ASMTrainee
from training.data import Batch, batches
from training.evaluate import greedy
from training.loop import Point, Settings, Trainer, TrainingError
from training.readers import open_reader
from training.rwkv7_trainee import Rwkv7Trainee
from training.trainee import Trainee

pytestmark = pytest.mark.usefixtures("one_thread")

RWKV7 = Config(layers=2, channels=64, head_size=32, vocabulary=257, ffn=128, rank_w=8, rank_a=8, rank_v=8, rank_g=8)
ASM = asm_mini_config(num_layers=2, embed_dim=32, num_heads=4, num_slots=8, slotspace_dim=8)
KINDS: dict[str, Callable[[], Trainee[Any]]] = {
    "rwkv7": lambda: Rwkv7Trainee(RWKV7, seed=2),
    "asm": lambda: ASMTrainee(ASM, seed=2, strengths=(4.0, 0.5)),
}


def settings(steps: int, rate: float = 3e-3) -> Settings:
    return Settings(seed=2, lanes=2, window=64, steps=steps, rate=rate)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_is_what_follows(tmp_path: Path, kind: str) -> None:
    """A model that was trained on the token at hand would write each letter again."""
    alphabet = [1 + byte for byte in b"abcdefghijklmnopqrstuvwxyz" * 3]
    tokens = torch.tensor([alphabet[start : start + 65] for start in (0, 7)])
    batch = Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 64), torch.tensor([True, True]))
    trainer = Trainer(KINDS[kind](), settings(40, rate=1e-2), tmp_path)
    losses = [trainer.take(one) for one in islice(repeat(batch), 40)]
    assert losses[0] > 4
    assert losses[-1] < 0.3
    trainer.save()
    written = greedy(open_reader(tmp_path / "weights.safetensors"), ["cdefg"], limit=4)
    assert written == ["hijk"]


def test_targets_are_the_tokens_shifted_by_one() -> None:
    for batch in islice(batches(3, "train", lanes=2, window=64), 3):
        assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])
        assert not torch.equal(batch.targets, batch.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path, kind: str) -> None:
    whole = Trainer(KINDS[kind](), settings(6), tmp_path / "whole")
    assert whole.run()
    first = Trainer(KINDS[kind](), settings(6), tmp_path / "stopped")
    asked = iter([False, False, False, True])
    assert not first.run(lambda: next(asked))
    second = Trainer(KINDS[kind](), settings(6), tmp_path / "stopped")
    assert second.resume()
    assert second.step == 3
    assert second.run()
    assert [(p.step, p.loss) for p in second.curve] == [(p.step, p.loss) for p in whole.curve]
    assert second.curve[-1].held_out == whole.curve[-1].held_out
    for name, tensor in whole.trainee.tensors.items():
        torch.testing.assert_close(second.trainee.tensors[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_lane_knows_nothing_and_the_others_know_all(kind: str) -> None:
    trainee = KINDS[kind]()
    first, second = islice(batches(4, "train", lanes=2, window=64), 2)
    new = trainee.new_state(2)
    _, read = trainee.measure(first.tokens, first.targets, first.weights, new)
    kept = {name: tensor.clone() for name, tensor in trainee.state_tensors(read).items()}
    trainee.renew(read, torch.tensor([True, False]))
    for name, tensor in trainee.state_tensors(read).items():
        lane = 0 if name == "t" else 2 if name == "shifts" else 1
        blank = trainee.state_tensors(trainee.new_state(2))[name]
        assert torch.equal(tensor.select(lane, 0), blank.select(lane, 0)), name
        assert torch.equal(tensor.select(lane, 1), kept[name].select(lane, 1)), name
    loss, _ = trainee.measure(second.tokens, second.targets, second.weights, read)
    assert math.isfinite(float(loss))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_reads_as_the_trained_one(tmp_path: Path, kind: str) -> None:
    trainee = KINDS[kind]()
    trainee.save(tmp_path / "weights.safetensors")
    again = type(trainee).from_file(tmp_path / "weights.safetensors")  # type: ignore[attr-defined]
    batch = next(batches(5, "train", lanes=2, window=64))
    losses = [
        float(one.measure(batch.tokens, batch.targets, batch.weights, one.new_state(2))[0]) for one in (trainee, again)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(tmp_path: Path, kind: str) -> None:
    trainer = Trainer(KINDS[kind](), settings(4), tmp_path)
    trainer.save()
    before = (tmp_path / "checkpoint.pth").read_bytes()
    with torch.no_grad():
        next(iter(trainer.trainee.tensors.values())).fill_(math.nan)
    with pytest.raises(TrainingError, match="loss of step 1 is nan"):
        trainer.run()
    assert (tmp_path / "checkpoint.pth").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Trainer(KINDS["asm"](), settings(4), tmp_path).save()
    other = ASMTrainee(asm_mini_config(num_layers=2, embed_dim=32, num_heads=2, num_slots=8, slotspace_dim=8), seed=2)
    with pytest.raises(TrainingError, match="belongs to a model with num_heads 4"):
        Trainer(other, settings(4), tmp_path).resume()
    with pytest.raises(TrainingError, match=r"checkpoint\.pth cannot be resumed"):
        Trainer(KINDS["rwkv7"](), settings(4), tmp_path).resume()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pth cannot be read"):
        Trainer(KINDS["asm"](), settings(4), tmp_path).resume()


def test_a_checkpoint_of_an_older_program_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "seconds": 1.0, "tensors": {}, "optimizers": []}, tmp_path / "checkpoint.pth")
    with pytest.raises(TrainingError, match="written by another version of this program: remove it"):
        Trainer(KINDS["asm"](), settings(4), tmp_path).resume()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.part").mkdir()
    with pytest.raises(TrainingError, match="run: step 0 cannot be saved"):
        Trainer(KINDS["asm"](), settings(4), tmp_path / "run").save()


def test_layers_begin_with_recency_that_falls_with_height() -> None:
    model = ASMTrainee(ASM, seed=1, strengths=(4.0, 0.5)).model
    assert [float(block.attn.strength().detach()) for block in model.layers()] == pytest.approx([4.0, 0.5])


def test_a_model_of_another_vocabulary_is_not_measured(tmp_path: Path) -> None:
    model = asm.build_model_from_cfg({"vocab_size": 11, "embed_dim": 16, "num_heads": 2, "num_layers": 1})
    asm.save_checkpoint(model, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="vocabulary has 11 tokens"):
        open_reader(tmp_path / "other.safetensors")


def test_a_point_keeps_its_place_on_the_curve(tmp_path: Path) -> None:
    trainer = Trainer(KINDS["asm"](), settings(3), tmp_path)
    trainer.run()
    assert [(p.step, p.tokens) for p in trainer.curve] == [(1, 128), (2, 256), (3, 384)]
    assert isinstance(trainer.curve[-1], Point)
    assert trainer.curve[-1].held_out is not None
    assert ByteTokenizer.size == ASM.vocab_size
