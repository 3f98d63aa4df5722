"""The clients of a broker: `Client` for threads, `clients.aio.AsyncClient` for asyncio, over one pure core."""

from clients.blocking import Client, Stream
from clients.requests import Reply, Seen
from ssmprov.probes import Look

__all__ = ["Client", "Look", "Reply", "Seen", "Stream"]
