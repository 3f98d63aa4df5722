"""CURVE at the broker's TCP endpoints: the broker's keys, which keys may connect, and which key sent a message.

ZeroMQ asks at every handshake whether a public key may connect (ZAP, https://rfc.zeromq.org/spec/27/) and then marks
each message with it. A connection stays open when its key is revoked, so the key of each message is checked again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ssmprov.errors import SsmprovError
from ssmprov.keys import BROKER, LOCAL, AllowList, User, directory_of, load

log = logging.getLogger(__name__)

DOMAIN = "ssmprov"

STRANGER_S = 1.0
"""At most one unknown key is logged in this many seconds, so that strangers cannot fill the log."""


class Gate:
    """The keys of one broker. Raises what `ssmprov.keys` raises for unusable files."""

    def __init__(self, home: Path) -> None:
        self._pair = load(directory_of(home) / f"{BROKER}.key")
        self._list = AllowList(home)
        self._stamp = self._list.stamp()
        self._stranger_at = -STRANGER_S
        self._complaint = ""
        self.users = self._list.users()
        self._authenticator: ThreadAuthenticator | None = None

    @staticmethod
    def has_keys(home: Path) -> bool:
        return (directory_of(home) / f"{BROKER}.key").exists()

    def start(self, context: zmq.Context[Any]) -> None:
        """Start the thread that answers ZeroMQ's questions. Call it before an endpoint is bound."""
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, credentials_provider=self)

    def stop(self) -> None:
        if self._authenticator:
            self._authenticator.stop()

    def arm(self, router: zmq.Socket[Any]) -> None:
        """Make the endpoints that are bound from now on use CURVE."""
        router.curve_publickey = self._pair.public.encode()
        router.curve_secretkey = self._pair.secret.encode()
        router.curve_server = True
        router.zap_domain = DOMAIN.encode()
        router.zap_enforce_domain = True  # without an authenticator, nobody can connect

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a key may connect. ZeroMQ's authenticator calls this on its thread."""
        shown = key.decode("ascii", "replace")
        known = domain == DOMAIN and shown in self.users
        if not known and time.monotonic() >= self._stranger_at + STRANGER_S:
            self._stranger_at = time.monotonic()
            log.warning("rejected a key that is not allowed: %s", shown)
        return known

    def user_of(self, frame: zmq.Frame) -> User | None:
        """Who sent a message, given its first frame. None if the key is no longer allowed."""
        try:
            public = frame.get("User-Id")
        except zmq.ZMQError:  # no key: it came through a Unix socket, or its sender is gone
            return LOCAL if _address_of(frame).startswith("localhost:") else None
        return self.users.get(str(public))

    def changed(self) -> bool:
        """Read the allow-list again if it has changed. If that fails, the last one stays in force."""
        stamp = self._list.stamp()
        if stamp == self._stamp:
            return False
        try:
            users = self._list.users()
        except SsmprovError as error:  # the next call tries again, so that lack of a free file does not keep a key
            if self._complaint != str(error):
                self._complaint = str(error)
                log.error("the allow-list cannot be read, so the last one stays in force: %s", error)
            return False
        self.users, self._stamp, self._complaint = users, stamp, ""
        return True


def _address_of(frame: zmq.Frame) -> str:
    """Where a message came from; '' if its sender was gone before ZeroMQ could tell."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
