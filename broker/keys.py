"""CURVE at the broker's TCP endpoints: its own keys, who is let in, and whose key a message came with.

ZeroMQ asks at every handshake whether a public key is let in (ZAP, https://rfc.zeromq.org/spec/27/) and then marks each
message with it. A connection lasts when its key is revoked, so each message is looked up again.
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
"""Who knocks with keys of no use fills no log: at most one of them is named in so long."""


class Gate:
    """The keys of one broker. Raises what `ssmprov.keys` raises for files that cannot be used."""

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
        """Answer ZeroMQ's questions, on a thread of its own. It must run before an endpoint is bound."""
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, credentials_provider=self)

    def stop(self) -> None:
        if self._authenticator:
            self._authenticator.stop()

    def arm(self, router: zmq.Socket[Any]) -> None:
        """Have the endpoints that are bound from here on speak CURVE."""
        router.curve_publickey = self._pair.public.encode()
        router.curve_secretkey = self._pair.secret.encode()
        router.curve_server = True
        router.zap_domain = DOMAIN.encode()
        router.zap_enforce_domain = True  # with nobody to ask, nobody is let in

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a key is let in: what ZeroMQ's authenticator asks, on its own thread."""
        shown = key.decode("ascii", "replace")
        known = domain == DOMAIN and shown in self.users
        if not known and time.monotonic() >= self._stranger_at + STRANGER_S:
            self._stranger_at = time.monotonic()
            log.warning("a key that is not allowed was turned away: %s", shown)
        return known

    def user_of(self, frame: zmq.Frame) -> User | None:
        """Who sent a message, of which `frame` is the first; None for a key that is let in no more."""
        try:
            public = frame.get("User-Id")
        except zmq.ZMQError:  # it came without a key: through a Unix socket, or not at all
            return LOCAL if _address_of(frame).startswith("localhost:") else None
        return self.users.get(str(public))

    def changed(self) -> bool:
        """Read the allow-list again if it is another; one that cannot be read leaves the last one in force."""
        stamp = self._list.stamp()
        if stamp == self._stamp:
            return False
        try:
            users = self._list.users()
        except SsmprovError as error:  # it is tried again: what it revokes must not stay for want of a free file
            if self._complaint != str(error):
                self._complaint = str(error)
                log.error("the keys stay as they were: %s", error)
            return False
        self.users, self._stamp, self._complaint = users, stamp, ""
        return True


def _address_of(frame: zmq.Frame) -> str:
    """From where a message came; '' where its sender had gone before ZeroMQ asked for that."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
