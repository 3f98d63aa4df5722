"""Which states are known to be correct, so that they are not checked again each time they are loaded."""

from __future__ import annotations

import threading
import weakref

import numpy as np
from numpy.typing import NDArray

State = NDArray[np.uint8]


class Sound:
    """States whose bytes are known to be correct while they live: written here, or checked once. They never change."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a state may be freed in any thread, even inside one of these methods
        self._known: dict[int, weakref.ref[State]] = {}

    def add(self, state: State) -> None:
        key = id(state)

        def forget(gone: weakref.ref[State]) -> None:
            with self._lock:
                if self._known.get(key) is gone:
                    del self._known[key]

        with self._lock:
            self._known[key] = weakref.ref(state, forget)

    def has(self, state: State) -> bool:
        with self._lock:
            known = self._known.get(id(state))
        return known is not None and known() is state
