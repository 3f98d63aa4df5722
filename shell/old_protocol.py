"""One request in the old protocol: text and a NUL are sent to a port, and text and a NUL come back."""

from __future__ import annotations

import socket

from ssmprov.errors import BadRequest, SsmprovError, TimedOut, Unreachable

HOST = "127.0.0.1"
FAILURES = (
    "[error]",
    "[load error]",
    "[save error]",
    "[load_set error]",
    "[save_set error]",
    "[probe error]",
    "[routing error]",
    "[slotmask error]",
)


def ask(port: int, text: str, connect_s: float = 3.0, receive_s: float = 600.0) -> str:
    """The reply to a text. Raises Unreachable, TimedOut, BadRequest, and SsmprovError if the reply says it failed."""
    if "\0" in text:
        raise BadRequest("the text contains U+0000, which ends a request in this protocol: remove it")
    try:
        with socket.create_connection((HOST, port), timeout=connect_s) as connection:
            connection.settimeout(receive_s)
            connection.sendall(text.encode("utf-8", "surrogateescape") + b"\0")
            data = bytearray()
            while b"\0" not in data:
                part = connection.recv(65536)
                if not part:
                    raise SsmprovError(f"port {port} closed the connection before the reply was complete: try again")
                data += part
    except TimeoutError:
        raise TimedOut(
            f"port {port} did not reply in time: try again, or wait longer than {receive_s:g} s with --recv-timeout"
        ) from None
    except OSError as error:
        raise Unreachable(
            f"nothing answers on port {port} ({error.strerror or error}): start it with `ssmprov up`"
        ) from None
    reply = data[: data.index(0)].decode("utf-8", "replace")
    if reply.startswith(FAILURES):
        raise SsmprovError(reply.strip())
    return reply
