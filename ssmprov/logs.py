"""The log of a service: one line per record on standard error, with the time, the level and the service's name.

    2026-05-01T09:30:00.125+02:00 info talk/0 | talk/0 serves talk (epoch 1)

A service calls `start` when its process begins. All other code just logs. Users' texts are never logged. Control
characters from peers are escaped, so that they can neither forge a line nor control a terminal.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from datetime import datetime

from ssmprov.errors import BadRequest
from ssmprov.terminal import printable

VARIABLE = "SSMPROV_LOG"
"""The environment variable with the lowest level to log."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
DEFAULT = "info"
OURS = ("ssmprov", "broker", "workers", "bridge_tcp", "clients")
"""The packages that log from that level on. Libraries log from warnings on."""

_RECORD = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}[+-]\d\d:\d\d (?:{'|'.join(LEVELS)}) \S+ \| ")


class _Lines(logging.Formatter):
    """Formats a record as one line. A record may name another service in its attribute `service`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        service = getattr(record, "service", self._service)
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return f"{at} {record.levelname.lower()} {printable(service)} | {printable(text)}"


class _Stream(logging.StreamHandler):  # type: ignore[type-arg]
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore errors: a log that nobody reads must not stop a service."""


def start(service: str) -> None:
    """Log to standard error from now on, as `service`. Raises BadRequest if the level does not exist."""
    level = os.environ.get(VARIABLE) or DEFAULT
    if level not in LEVELS:
        raise BadRequest(f"{VARIABLE} is {level!r}: use {', '.join(LEVELS)} or leave it unset")
    handler = _Stream(sys.stderr)
    handler.setFormatter(_Lines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in OURS:
        logging.getLogger(name).setLevel(LEVELS[level])


def text_of(line: str) -> str | None:
    """The text of a line that one of our services logged, or None for any other line."""
    found = _RECORD.match(line)
    return line[found.end() :] if found else None
