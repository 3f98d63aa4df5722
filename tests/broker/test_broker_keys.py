"""The broker's gate by itself: when it reads the allow-list again, and what strangers make it say."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import keys as broker_keys
from broker.keys import DOMAIN, Gate
from ssmprov import keys
from ssmprov.keys import AllowList, Role


@pytest.fixture
def allowed(tmp_path: Path) -> AllowList:
    keys.make(tmp_path, "broker")
    found = AllowList(tmp_path)
    found.allow("guest", "g" * 40, Role.READ)
    return found


def test_a_list_that_cannot_be_read_for_a_moment_is_read_again(
    allowed: AllowList, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(tmp_path)
    allowed.revoke("guest")
    allowed.path.chmod(0o666)
    assert [gate.changed() for _ in range(3)] == [False] * 3
    assert list(gate.users) == ["g" * 40]
    assert caplog.text.count("the last one stays in force") == 1
    allowed.path.chmod(0o600)
    assert gate.changed()
    assert not gate.users
    assert not gate.changed()


def test_strangers_fill_no_log(
    allowed: AllowList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(tmp_path)
    now = 1000.0
    monkeypatch.setattr(broker_keys.time, "monotonic", lambda: now)
    for number in range(1000):
        assert not gate.callback(DOMAIN, f"{number:040}".encode())
    assert len(caplog.records) == 1
    now += 1.0
    assert not gate.callback(DOMAIN, b"x" * 40)
    assert "x" * 40 in caplog.records[1].getMessage()
    assert gate.callback(DOMAIN, b"g" * 40)
    assert len(caplog.records) == 2
