"""Who may connect, and how much each key of the allow-list may ask.

A process on the broker's `ipc://` socket has no key. Only the limit on all connections applies to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.records import Allowance, Id, Peer
from broker.state import State
from ssmprov import wire
from ssmprov.errors import Busy, Refused
from ssmprov.keys import Role, User


class Admission:
    """The part of the machine that checks keys and their limits."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._allowances: dict[str, Allowance] = {}

    def is_crowded(self, user: User) -> bool:
        """Whether all connections, or all those of this key, are taken. The last eighth is for peers without a key."""
        peers, bounds = self._state.peers, self._state.bounds
        if len(peers) >= bounds.peers - (bounds.peers // 8 if user.public else 0):
            return True
        if not user.public or user.role is Role.WORKER:
            return False
        return sum(peer.user.public == user.public for peer in peers.values()) >= bounds.peers_per_key

    def check_id(self, client: Id, user: User) -> None:
        """Raises Refused if another key used this client id first, because answers go to the client id."""
        known = self._state.clients.get(client)
        if client == wire.NOBODY or (known and known.user and known.key != user.public):
            raise Refused("this client id belongs to another client: use 16 random bytes")

    def check_rate(self, user: User) -> None:
        """Raises Busy if a key sends more requests than it may."""
        if not user.public:
            return
        now, per_s = self._state.now, self._state.bounds.requests_per_s
        allowance = self._allowances.setdefault(user.public, Allowance(max(1.0, 2 * per_s), now))
        if wait_s := allowance.take(now, per_s):
            raise Busy(
                f"the key {user.name!r} sends more than {per_s:g} requests per second: try again",
                retry_ms=1 + int(1000 * wait_s),
            )

    def admit(self, users: Mapping[str, User]) -> list[Peer]:
        """Apply a changed allow-list, and cancel what removed keys have asked for.

        Returns the connections that must be closed.
        """
        state = self._state
        self._allowances = {public: kept for public, kept in self._allowances.items() if public in users}
        for client in [client for client in state.clients.values() if client.key]:
            client.user = users.get(client.key, client.user)
            if client.key not in users:
                for task_id in list(client.tasks):
                    state.cancel(state.tasks[task_id], "drop")
        gone = []
        for peer in [peer for peer in state.peers.values() if peer.user.public]:
            found = users.get(peer.user.public)
            if found is None or (peer.worker and not found.may(Role.WORKER)):
                state.log(f"the key {peer.user.name!r} is no longer allowed")
                gone.append(peer)
            else:
                peer.user = found
        return gone
