"""The log of a service: one line per record on standard error, with its time, its level and the service's name.

    2026-05-01T09:30:00.125+02:00 info talk/0 | talk/0 serves talk (epoch 1)

A service calls `start` where its process begins; all other code just logs. The text of users is never logged, and
control characters in what others sent are escaped, so that no line is forged and no terminal steered.
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
"""Environment variable with the lowest level that is logged."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
DEFAULT = "info"
OURS = ("ssmprov", "broker", "workers", "bridge_tcp", "clients")
"""The packages whose records are shown at that level; libraries are heard from warnings on."""

_RECORD = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}[+-]\d\d:\d\d (?:{'|'.join(LEVELS)}) \S+ \| ")


class _Lines(logging.Formatter):
    """Formats a record as one line. A record may bring the name of another service with it, as `service`."""

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
        """A log that nobody reads any more stops nothing."""


def start(service: str) -> None:
    """Log to standard error from here on, as `service`. Raises BadRequest for a level that does not exist."""
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
    """The text of a line that a service of ours has logged; None for any other line."""
    found = _RECORD.match(line)
    return line[found.end() :] if found else None
