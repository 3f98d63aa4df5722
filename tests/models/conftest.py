"""A tiny model with every part in use, shared by the tests of the mathematics."""

from __future__ import annotations

import pytest

from models import rwkv7
from models.rwkv7 import Config, Weights


@pytest.fixture(autouse=True)
def _on_one_thread(one_thread: None) -> None:
    """All tests of models."""


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(
        layers=3, channels=128, head_size=64, vocabulary=257, ffn=320, rank_w=8, rank_a=12, rank_v=6, rank_g=16
    )


@pytest.fixture(scope="session")
def weights(config: Config) -> Weights:
    return rwkv7.random_weights(config, seed=5)
