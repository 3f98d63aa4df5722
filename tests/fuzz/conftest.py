from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz import targets


@pytest.fixture(scope="session", autouse=True)
def _closed() -> Iterator[None]:
    yield
    targets.close()
