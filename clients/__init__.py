"""The clients of a broker: `Client` for threads, `clients.aio.AsyncClient` for asyncio, over one pure core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.blocking import Client, Stream
from clients.requests import Reply, Seen
from ssmprov import rooms
from ssmprov.probes import Look

__all__ = ["Client", "Look", "Reply", "Seen", "Stream"]

if not TYPE_CHECKING:  # so that mypy still finds a misspelt name

    def __getattr__(name: str) -> object:
        raise rooms.missing(__name__, name)
