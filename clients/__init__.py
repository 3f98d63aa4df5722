"""The clients of a broker: `Client` for threads, `clients.aio.AsyncClient` for asyncio, over one pure core."""

from clients.blocking import Client, Stream
from clients.requests import Reply, Seen

__all__ = ["Client", "Reply", "Seen", "Stream"]
