"""Reading the `kv.pkl` of an old runner, a pickle of `{"blob": bytes, "n_tokens": int}`, without trusting it.

A pickle is a program, and unpickling runs it. Two walls stand here, either of which would do. Before anything is
built, every opcode is held against the few that such a file needs: none imports, calls, refers back or nests, so
neither code nor a loop nor a bomb can be written with them. Then an unpickler that can import nothing runs those.
Time and memory are linear in the file's size.
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
_FIRST = 0x80  # opcode PROTO, with which every pickle since protocol 2 begins

_ADMITTED = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "SETITEM", "SETITEMS", "MEMOIZE", "BINPUT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("BININT", "BININT1", "BININT2", "LONG1"),
    )
)
"""BINPUT stores at one of 256 places; LONG_BINPUT, which these files never need, would reserve memory for 2^32."""

_KNOWN = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True, slots=True)
class KvPickle:
    """What an old runner saved: its library's state, and how many tokens that state has read."""

    blob: bytes
    tokens: int


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does. An export of ours never does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == bytes([_FIRST])


def read(path: Path) -> KvPickle:
    """The contents of a `kv.pkl`. Raises BadRequest that says what was found instead."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        _refuse(f"it has {size} bytes, and at most {MAX_BYTES} are read")
    return parse(path.read_bytes())


def parse(data: bytes) -> KvPickle:
    """As `read`, of a file's bytes."""
    checked = _check_opcodes(data)
    try:
        found = _Unpickler(io.BytesIO(checked), buffers=None).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        _refuse("its opcodes do not add up to one object")
    return _contents(found)


def _check_opcodes(data: bytes) -> bytes:
    """Refuse whatever is not a short run of admitted opcodes whose arguments lie within the file, up to its end.

    What comes back is the run without its frames, which nothing needs: the unpickler drops what is left of a frame when
    an argument reaches beyond its end, and would go on to run other opcodes than those that were checked.
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
    """An opcode's argument. A length past the file's end is never allocated: the stream gives what there is."""
    if opcode.arg is None:
        return None
    try:
        return opcode.arg.reader(stream)
    except ValueError:
        _refuse(f"the argument of {opcode.name} at byte {at} is cut short or ill-formed")


class _Unpickler(pickle.Unpickler):
    """The second wall: it resolves no name, no persistent id and nothing of the extension registry."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not to be imported")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"the persistent id {pid!r} is not to be loaded")


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
