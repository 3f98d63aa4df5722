"""Reads the `kv.pkl` of an old runner, a pickle of `{"blob": bytes, "n_tokens": int}`, without trusting it.

A pickle is a program, and unpickling runs it. There are two defences; either one would be enough. First, every opcode
must be one of the few that such a file needs. None of them imports, calls, refers back or nests, so a file cannot
contain code, a loop or a bomb. Then an unpickler that cannot import anything runs them. Time and memory are linear in
the size of the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ssmprov.errors import BadRequest

MAX_BYTES = 1 << 30
MAX_OPCODES = 64
"""A real file has 12 to 14."""

MAX_TOKENS = (1 << 31) - 1
_FIRST = 0x80  # opcode PROTO: every pickle since protocol 2 begins with it

_ADMITTED = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "SETITEM", "SETITEMS", "MEMOIZE", "BINPUT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("BININT", "BININT1", "BININT2", "LONG1"),
    )
)
"""BINPUT stores at one of 256 places. LONG_BINPUT, which these files never need, could reserve memory for 2^32."""

_KNOWN = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True, slots=True)
class KvPickle:
    """What an old runner saved: the state of its library, and how many tokens that state has read."""

    blob: bytes
    tokens: int


def is_pickle(path: Path) -> bool:
    """Whether a file begins like a pickle. Our exports never do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == bytes([_FIRST])


def read(path: Path) -> KvPickle:
    """The contents of a `kv.pkl`. Raises BadRequest that says what it found instead."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        _refuse(f"it has {size} bytes, and at most {MAX_BYTES} are read")
    return parse(path.read_bytes())


def parse(data: bytes) -> KvPickle:
    """Like `read`, for the bytes of a file."""
    checked = _check_opcodes(data)
    try:
        found = _Unpickler(io.BytesIO(checked), buffers=None).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        _refuse("its opcodes do not add up to one object")
    return _contents(found)


def _check_opcodes(data: bytes) -> bytes:
    """Reject everything except a short run of allowed opcodes whose arguments lie within the file, up to its end.

    Returns the run without its frames, which are not needed. With them, the unpickler drops the rest of a frame when an
    argument reaches beyond its end, and would then run other opcodes than those that were checked.
    """
    stream = io.BytesIO(data)
    run: list[bytes] = []
    for _ in range(MAX_OPCODES):
        at = stream.tell()
        code = stream.read(1)
        if not code:
            _refuse(f"it is cut short after {at} bytes")
        opcode = _KNOWN.get(code[0])
        if opcode is None:
            _refuse(f"byte {at} is 0x{code[0]:02x}, which is not an opcode")
        if at == 0 and code[0] != _FIRST:
            _refuse(f"it begins with {opcode.name} and not with its protocol")
        if opcode.name not in _ADMITTED:
            _refuse(
                f"it asks for {opcode.name} at byte {at}, but may hold only one dict of texts, bytes and whole numbers"
            )
        argument = _argument(opcode, stream, at)
        if opcode.name == "PROTO" and argument > pickle.HIGHEST_PROTOCOL:
            _refuse(f"it has protocol {argument}, but {pickle.HIGHEST_PROTOCOL} is the highest known here")
        if opcode.name == "FRAME" and argument > len(data) - stream.tell():
            _refuse(f"its frame at byte {at} is longer than the file")
        if opcode.name != "FRAME":
            run.append(data[at : stream.tell()])
        if opcode.name == "STOP":
            if stream.tell() != len(data):
                _refuse(f"{len(data) - stream.tell()} bytes follow its end")
            break
    else:
        _refuse(f"it has more than {MAX_OPCODES} opcodes, but a saved state needs a dozen")
    return b"".join(run)


def _argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO, at: int) -> Any:
    """The argument of an opcode. A length past the end of the file is never allocated: the stream returns what is
    there.
    """
    if opcode.arg is None:
        return None
    try:
        return opcode.arg.reader(stream)
    except ValueError:
        _refuse(f"the argument of {opcode.name} at byte {at} is cut short or ill-formed")


class _Unpickler(pickle.Unpickler):
    """The second defence: it resolves no names, no persistent ids and nothing from the extension registry."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} must not be imported")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"the persistent id {pid!r} must not be loaded")


def _contents(found: object) -> KvPickle:
    if type(found) is not dict:
        _refuse(f"it holds one {type(found).__name__}, not a dict")
    if set(found) != {"blob", "n_tokens"}:
        keys = ", ".join(repr(key)[:40] for key in found) or "nothing"
        _refuse(f"its dict holds {keys}, not 'blob' and 'n_tokens'")
    blob, tokens = found["blob"], found["n_tokens"]
    if not isinstance(blob, bytes | bytearray) or not blob:
        _refuse(f"its blob is {'empty' if blob == b'' else f'of the type {type(blob).__name__}, not bytes'}")
    if not isinstance(tokens, int) or not 0 <= tokens <= MAX_TOKENS:
        what = "not a possible token count" if isinstance(tokens, int) else f"of the type {type(tokens).__name__}"
        _refuse(f"its n_tokens is {what}")
    return KvPickle(bytes(blob), tokens)


def _refuse(what: str) -> NoReturn:
    raise BadRequest(f"this pickle is not the kv.pkl of an old runner: {what}. Nothing in it was run or imported")
