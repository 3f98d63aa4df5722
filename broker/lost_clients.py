"""Clients that have disconnected: for a moment, permanently, or because their process has ended."""

from __future__ import annotations

import math

from broker.events import Look
from broker.records import Client, Id, Peer
from broker.state import State

GONE_S = 5.0
"""If a client does not come back within this time, its turns that save nothing are cancelled."""


class LostClients:
    """The part of the machine that waits for clients, and gives up waiting."""

    def __init__(self, state: State) -> None:
        self._state = state

    def part(self, peer: Peer) -> None:
        """A client no longer uses this route."""
        client = self._state.clients.get(peer.client)
        if client and client.route == peer.route:
            client.route = None
            client.gone_at = self._state.now
            self._look(client)

    def _look(self, client: Client) -> None:
        """Ask whether its process has ended. A connection may come back, but such a process will not."""
        if client.process and client.tasks:
            self._state.actions.append(Look(client.id, client.process))

    def ended(self, client_id: Id) -> None:
        """The answer to `_look`: the client's process has ended."""
        client = self._state.clients.get(client_id)
        if client and client.route is None:
            client.gone_at = math.inf
            self.abandon(client)

    def abandon(self, client: Client) -> None:
        """Cancel what a lost client has asked for, except turns that save."""
        for task_id in list(client.tasks):
            task = self._state.tasks[task_id]
            if not task.saves:
                self._state.cancel(task, "drop")

    def watch(self) -> None:
        """Forget disconnected clients without open requests, and give up those that stay away too long."""
        state = self._state
        for client in list(state.clients.values()):
            if client.route is not None:
                continue
            if not client.tasks:
                state.forget(client)
            elif state.now - client.gone_at >= GONE_S:
                client.gone_at = math.inf
                self.abandon(client)
            elif client.gone_at != math.inf:
                self._look(client)
