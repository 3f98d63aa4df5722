"""A tiny model with every part in use, shared by the tests of the mathematics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from models import rwkv7
from models.rwkv7 import Config, Weights


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(
        layers=3, channels=128, head_size=64, vocabulary=257, ffn=320, rank_w=8, rank_a=12, rank_v=6, rank_g=16
    )


@pytest.fixture(scope="session")
def weights(config: Config) -> Weights:
    return rwkv7.random_weights(config, seed=5)
