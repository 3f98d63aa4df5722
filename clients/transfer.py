"""Files of exports and imports: a download is renamed when complete, an upload is hashed before it is sent."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssmprov import durable, ops, wire
from ssmprov.errors import BadRequest, Corrupt, NotFound


class Download:
    """An exported file that is being written to `path`. An existing file is replaced only by a complete, checked one.

    Raises OSError if the disk cannot hold it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._new = durable.Replacement(path, mode=0o600)
        self._file = self._new.part.open("wb")

    def write(self, data: bytes) -> None:
        with durable.naming(self._path):
            self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def finish(self, exported: ops.Exported) -> None:
        """Check and put it in place, on the disk. Raises Corrupt if size or hash differ from what was promised."""
        if self._bytes != exported.bytes or self._hash.hexdigest() != exported.sha256:
            raise Corrupt(f"{self._bytes} of {exported.bytes} bytes arrived, or their hash differs: export it again")
        with durable.naming(self._path):
            self._file.close()
        self._new.commit()

    def close(self) -> None:
        """Remove an unfinished download. Does nothing after `finish`."""
        self._file.close()
        self._new.discard()


class Upload:
    """A file to import: its size and hash, then its pieces. Raises NotFound, BadRequest or OSError."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}") from None
        except IsADirectoryError:
            raise BadRequest(f"{path} is a directory, not an exported file") from None
        try:
            self.sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        except OSError:
            self._file.close()
            raise
        self.size = self._file.tell()

    def piece(self, offset: int) -> tuple[bytes, bool]:
        """At most 1 MiB from byte `offset`, and whether it is the last piece. Raises BadRequest if the file shrank."""
        self._file.seek(offset)
        data = self._file.read(min(wire.MAX_PAYLOAD, self.size - offset))
        last = offset + len(data) >= self.size
        if not data and not last:
            raise BadRequest("the file shrank during the import, so nothing was imported")
        return data, last

    def close(self) -> None:
        self._file.close()
