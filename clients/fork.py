"""What becomes of a client in a forked child, which has its sockets but not the threads and tasks that serve them.

The child's copy of the client ends at once: its open calls and all later ones raise an error that says what to do. The
parent's client is not affected.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from ssmprov.errors import BadRequest, SsmprovError


class Link(Protocol):
    """The link of a client with its broker."""

    def orphan(self, error: SsmprovError) -> None:
        """End every call with this error, in a child that was just forked. It must not touch a socket."""


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def watch(link: Link) -> None:
    """Call the link's `orphan` in every child that is forked from now on."""
    _links.add(link)


def _in_child() -> None:
    parent = os.getppid()
    error = BadRequest(
        f"this client was made by process {parent}, before a fork: make a new client in this process", made_by=parent
    )
    for link in list(_links):
        link.orphan(error)
    _links.clear()


os.register_at_fork(after_in_child=_in_child)
