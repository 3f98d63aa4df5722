"""The shared ground of ssmprov: wire messages, errors, names, settings, configuration, text grammars.

It is also the door to the SDK: `from ssmprov import Client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from clients import Client, Look, Reply, Seen, Stream
    from clients.aio import AsyncClient

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "Look", "Reply", "Seen", "Stream", "__version__"]

if not TYPE_CHECKING:  # so that mypy still finds a misspelt name

    def __getattr__(name: str) -> Any:
        """A name of the SDK, which is loaded only when it is used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ssmprov import rooms

        return getattr(rooms.load("clients.aio" if name == "AsyncClient" else "clients"), name)
