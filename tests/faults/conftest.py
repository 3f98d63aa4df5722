from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from aftermath import Aftermath
from house import House, opened
from peers import Peers


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two models with two workers each, and a bridge, for the tests of one row."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def talking_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One without the RWKV model, for tests to which a runtime makes no difference."""
    with opened(tmp_path_factory.mktemp("talking"), models=("talk",)) as house:
        yield house


@pytest.fixture
def aftermath(house: House) -> Iterator[Aftermath]:
    """The common check, before and after a test."""
    kept = Aftermath(house)
    yield kept
    kept.check()


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Sockets that speak the wire by hand."""
    with contextlib.ExitStack() as stack:
        yield Peers(stack)
