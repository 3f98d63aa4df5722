"""The loop learns, and a run that was interrupted ends where an uninterrupted one does."""

from __future__ import annotations

from itertools import islice, repeat
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from models import rwkv7
from models.rwkv7 import Config
from training import mini
from training.data import batches
from training.evaluate import greedy, rate
from training.loop import Settings, Trainer
from training.probes import probes
from training.readers import Rwkv7Reader
from training.rwkv7_trainee import Rwkv7Trainee

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Config(layers=2, channels=64, head_size=32, vocabulary=257, ffn=128, rank_w=8, rank_a=8, rank_v=8, rank_g=8)


def settings(steps: int) -> Settings:
    return Settings(seed=2, lanes=2, window=64, steps=steps)


def test_one_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    trainer = Trainer(Rwkv7Trainee(TINY, 2), settings(60), tmp_path)
    batch = next(batches(1, "train", lanes=2, window=64))
    batch.fresh[:] = True
    losses = [trainer.take(batch) for batch in islice(repeat(batch), 60)]
    assert losses[0] > 4
    assert losses[-1] < 0.3


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Trainer(Rwkv7Trainee(TINY, 2), settings(6), whole).run()
    first = Trainer(Rwkv7Trainee(TINY, 2), settings(6), stopped)
    for batch in islice(batches(2, "train", lanes=2, window=64), 3):
        first.take(batch)
    first.save()
    second = Trainer(Rwkv7Trainee(TINY, 2), settings(6), stopped)
    assert second.resume()
    assert second.step == 3
    second.run()
    assert rwkv7.fingerprint(whole / "weights.safetensors") == rwkv7.fingerprint(stopped / "weights.safetensors")


def test_a_new_directory_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not Trainer(Rwkv7Trainee(TINY, 2), settings(1), tmp_path).resume()


def test_a_run_can_start_from_given_weights(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "run"
    rwkv7.save(rwkv7.initial_tensors(TINY, 7), first)
    options = ["--weights", first, "--outdir", second, "--steps", 1, "--lanes", 1, "--window", 32]
    options += ["--rate", 1e-9, "--matrix-rate", 1e-9]
    result = CliRunner().invoke(mini.main, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    old, new = (rwkv7.read_tensors(path)["emb.weight"] for path in (first, second / "weights.safetensors"))
    assert old.shape == (257, 64)
    assert torch.allclose(old, new, atol=1e-6)


def test_a_run_by_the_clock_ends(tmp_path: Path) -> None:
    trainer = Trainer(Rwkv7Trainee(TINY, 1), Settings(lanes=1, window=32, minutes=0.01), tmp_path)
    trainer.run()
    assert trainer.step >= 1
    assert trainer.seconds >= 0.6


def test_the_rate_rises_holds_and_falls() -> None:
    run = Settings(warm_up=0.1, cool_down=0.5)
    rates = [run.factor(progress / 100) for progress in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert set(rates[10:51]) == {1.0}
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_a_model_that_knows_nothing_rates_nothing() -> None:
    found = rate(Rwkv7Reader(rwkv7.random_weights(TINY, seed=1)), probes("repeat", seed=0, count=4))
    assert (found.count, found.exact, found.closed) == (4, 0.0, 0.0)


def test_greedy_text_is_the_same_in_a_batch_and_alone() -> None:
    reader = Rwkv7Reader(rwkv7.random_weights(TINY, seed=3))
    prompts = ["(Turn 1) [USER]: a", "(Turn 22) [USER]: something longer", "x"]
    together = greedy(reader, prompts, limit=20)
    assert together == [greedy(reader, [prompt], limit=20)[0] for prompt in prompts]
