"""The fingerprint of a GGUF model: a hash of everything that can change its logits or its tokens."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path

from models.gguf.header import GgufError, Header, TensorInfo
from models.gguf.reader import read_parts

FORMAT = 1
"""Increase it whenever the same file would hash to another value."""
CHUNK = 1 << 22
GENERAL = frozenset({"general.architecture", "general.quantization_version"})
DESCRIPTIVE = ("general.", "split.", "quantize.imatrix.", "tokenizer.chat_template")


def fingerprint(path: Path | str) -> str:
    """sha256 in hex over hyperparameters, vocabulary and tensors (name, shape, type, bytes), sorted by name.

    The order of a file and its split into parts do not count, and neither do descriptions: name, author, licence, chat
    template. Reads the whole model, one chunk at a time. Raises GgufError in the same cases as `read_parts`.
    """
    headers = read_parts(path)
    digest = hashlib.sha256(f"gguf {FORMAT}\n".encode())
    first = headers[0]
    try:
        with first.path.open("rb") as file:
            for key, value in sorted(first.values.items()):
                if _counts(key):
                    digest.update(f"{len(key.encode())} {key} {value.end - value.start}\n".encode())
                    file.seek(value.start)
                    digest.update(file.read(value.end - value.start))
        placed = [(tensor, header) for header in headers for tensor in header.tensors]
        for tensor, header in sorted(placed, key=lambda place: place[0].name):
            _hash_tensor(digest, tensor, header)
    except OSError as error:
        raise GgufError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _counts(key: str) -> bool:
    return key in GENERAL or not key.startswith(DESCRIPTIVE)


def _hash_tensor(digest: hashlib._Hash, tensor: TensorInfo, header: Header) -> None:
    shape = list(tensor.shape)
    digest.update(f"{len(tensor.name.encode())} {tensor.name} {tensor.kind.name} {shape} {tensor.nbytes}\n".encode())
    with header.path.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        left, buffer = tensor.nbytes, memoryview(bytearray(min(CHUNK, tensor.nbytes)))
        while left:
            count = file.readinto(buffer[: min(left, CHUNK)])
            if not count:
                raise GgufError(f"{header.path}: the file got shorter while it was being read")
            digest.update(buffer[:count])
            left -= count


def cached_fingerprint(path: Path | str, cache_dir: Path) -> str:
    """The fingerprint, computed once for files with the same paths, sizes and modification times.

    The cache holds one small file per model, which is always replaced as a whole, so several processes can use it at
    once. If it is damaged or cannot be written, that only costs time. Raises GgufError, as `fingerprint` does.
    """
    path = Path(path).absolute()
    entry = cache_dir / f"gguf-{hashlib.sha256(os.fsencode(path)).hexdigest()[:20]}.json"
    known = _cached(path, entry)
    if known is not None:
        return known
    files = [_stamp(header.path) for header in read_parts(path)]
    found = fingerprint(path)
    if files == [_stamp(Path(str(row[0]))) for row in files]:  # else a file was replaced while it was hashed
        _remember(entry, {"format": FORMAT, "files": files, "fingerprint": found})
    return found


def _cached(path: Path, entry: Path) -> str | None:
    """The cached fingerprint of a model whose files have not changed, else None."""
    try:
        known = json.loads(entry.read_bytes())
        files, found = known["files"], known["fingerprint"]
        fits = known["format"] == FORMAT and files[0][0] == str(path) and len(bytes.fromhex(found)) == 32
        return found if fits and all(_stamp(Path(row[0])) == row for row in files) else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError, GgufError):
        return None


def _stamp(path: Path) -> list[str | int]:
    """A file's path, the same path with links resolved, its size in bytes, and its modification time in nanoseconds."""
    try:
        status = path.stat()
        return [str(path), str(path.resolve()), status.st_size, status.st_mtime_ns]
    except OSError as error:
        raise GgufError(f"{path}: the file cannot be read ({error.strerror or error})") from error


def _remember(entry: Path, known: dict[str, object]) -> None:
    part = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}.part")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(known))
            part.replace(entry)
        finally:
            part.unlink(missing_ok=True)
    except OSError:
        return  # a cache that cannot be written is not an error: the next start hashes the model again
