"""The files of a model while it is served.

The library reads them in place, so writing into one changes the model under its contexts. Replacing one by a new file
of the same name does not: the old file is still served.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ssmprov.causes import explained, explaining
from ssmprov.errors import BadRequest, SsmprovError


class Files:
    """Open files, and their stamps from before they were hashed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises an error that says why a file cannot be opened."""
        self._open: list[tuple[Path, int, tuple[int, int]]] = []
        try:
            for path in paths:
                number = os.open(path, os.O_RDONLY)
                self._open.append((path, number, _stamp(os.fstat(number))))
        except OSError as error:
            self.close()
            raise explained(error, "cannot read the model") from None

    def check(self) -> None:
        """Raise SsmprovError if a file was written to since."""
        for path, number, stamp in self._open:
            if _stamp(os.fstat(number)) != stamp:
                raise SsmprovError(
                    f"{path} changed while its model was served, so the results of this worker are wrong: restore the "
                    "file and start again; put a new file beside the old one, under another name"
                )

    def check_names(self) -> None:
        """Raise BadRequest if a file was written to, or its name now means another file, since it was hashed."""
        for path, number, stamp in self._open:
            with explaining("cannot read the model"):
                there, here = os.stat(path), os.fstat(number)
            if not os.path.samestat(there, here) or _stamp(here) != stamp:
                raise BadRequest(f"{path} changed while it was loaded: start again when it is complete")

    def close(self) -> None:
        for _, number, _ in self._open:
            os.close(number)
        self._open.clear()


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
