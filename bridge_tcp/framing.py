"""One request of the old protocol: bytes up to a NUL, within a size and a time."""

from __future__ import annotations

import asyncio

NUL = b"\0"
READ_BYTES = 64 * 1024
SLOWEST_BYTES_PER_S = 16 * 1024
"""A request must come at this rate, counted from `idle_s` seconds after the connection began."""


class Unwelcome(Exception):
    """A request that is not read to its end; the message is for its sender."""


class TooLarge(Unwelcome):
    """More bytes than a request may have."""


class TooSlow(Unwelcome):
    """The connection's time ran out before the NUL came."""


async def read_request(reader: asyncio.StreamReader, limit: int, idle_s: float) -> bytes | None:
    """The bytes before the first NUL; None where the connection ended before one. What follows it is ignored.

    Raises TooLarge past `limit` bytes, TooSlow where `idle_s` seconds (and more for a long request, as its bytes come)
    pass without the NUL, and OSError where the connection breaks.
    """
    request = bytearray()
    began = asyncio.get_running_loop().time()
    while True:
        try:
            async with asyncio.timeout_at(began + idle_s + len(request) / SLOWEST_BYTES_PER_S):
                data = await reader.read(READ_BYTES)
        except TimeoutError:
            raise TooSlow(f"no whole request came within {idle_s:g} s: end it with a NUL") from None
        if not data:
            return None
        end = data.find(NUL)
        request += data if end < 0 else data[:end]
        if len(request) > limit:
            raise TooLarge(f"the request is larger than {limit} bytes: nothing of it was read")
        if end >= 0:
            return bytes(request)


async def until_gone(reader: asyncio.StreamReader) -> None:
    """Return when the other side closes or breaks the connection; whatever else it sends is ignored."""
    try:
        while await reader.read(READ_BYTES):
            pass
    except OSError:
        pass
