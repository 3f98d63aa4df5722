"""Reads one request of the old protocol: the bytes up to a NUL, within a size and a time limit."""

from __future__ import annotations

import asyncio

NUL = b"\0"
READ_BYTES = 64 * 1024
SLOWEST_BYTES_PER_S = 16 * 1024
"""The least rate of a request, counted from `idle_s` seconds after the connection began."""


class Unwelcome(Exception):
    """A request that is rejected before it is complete. The message goes to its sender."""


class TooLarge(Unwelcome):
    """The request has too many bytes."""


class TooSlow(Unwelcome):
    """The time ran out before the NUL arrived."""


async def read_request(reader: asyncio.StreamReader, limit: int, idle_s: float) -> bytes | None:
    """The bytes before the first NUL, or None if the connection ends without one. Later bytes are ignored.

    Raises TooLarge after `limit` bytes, TooSlow if no NUL arrives within `idle_s` seconds (a long request gets more
    time as its bytes arrive), and OSError if the connection breaks.
    """
    request = bytearray()
    began = asyncio.get_running_loop().time()
    while True:
        try:
            async with asyncio.timeout_at(began + idle_s + len(request) / SLOWEST_BYTES_PER_S):
                data = await reader.read(READ_BYTES)
        except TimeoutError:
            raise TooSlow(f"no complete request arrived within {idle_s:g} s: end requests with a NUL byte") from None
        if not data:
            return None
        end = data.find(NUL)
        request += data if end < 0 else data[:end]
        if len(request) > limit:
            raise TooLarge(f"the request is larger than {limit} bytes, so nothing was read: send a shorter one")
        if end >= 0:
            return bytes(request)


async def until_gone(reader: asyncio.StreamReader) -> None:
    """Return when the other side closes or breaks the connection. Ignore everything else it sends."""
    try:
        while await reader.read(READ_BYTES):
            pass
    except OSError:
        pass
