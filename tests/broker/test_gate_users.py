"""Whose message it is, where ZeroMQ does not say so."""

from __future__ import annotations

from pathlib import Path

import zmq

from broker.keys import Gate
from ssmprov import keys


def test_a_message_from_nowhere_is_nobodys(tmp_path: Path) -> None:
    """Its sender was gone before its address was asked for."""
    keys.make(tmp_path, keys.BROKER)
    assert Gate(tmp_path).user_of(zmq.Frame(b"route")) is None
