"""Files that come from elsewhere: checkpoint objects, archives, old pickles, scripts, the notes of a record."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from checkpoint_toy import IDENTITY, grow, open_store, say

from fuzz.engine import Target
from fuzz.mutate import mutate, speaking
from fuzz.packed import mutate_packed
from ssmprov.errors import SsmprovError
from ssmprov.names import Ref
from transcripts.record import ASKED, COUNTER, MOVING, PENDING, TRANSCRIPT, Asked, Moving, Record
from workers import kv_pickle
from workers.checkpoints import lineage, objects
from workers.checkpoints.archive import MAGIC, Archive
from workers.checkpoints.files import Files
from workers.context import empty
from workers.runtimes.base import Feed, Plan
from workers.runtimes.scripted import open_runtime

SHELF = "/dev/shm" if Path("/dev/shm").is_dir() else None
FILES = Files()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(prefix="ssmprov-fuzz-", dir=SHELF) as folder:
        yield Path(folder)


# -- checkpoint objects


def checkpoint(data: bytes) -> None:
    """A state is admitted whole or refused; one that is admitted says the same when it is written again."""
    path = Path("object")
    header = objects.header_of(data, path)
    snapshot = objects.decode(data, "ab" * 32, path, IDENTITY)
    assert snapshot.tokens == header.tokens
    record = lineage.StepRecord(
        parent=header.parent,
        kind="turn",
        tokens=b"",
        text=b"",
        settings={},
        seed=header.seed,
        total=header.tokens,
        exact=header.exact,
        dtype=header.dtype,
    )
    again = objects.encode(snapshot, record, IDENTITY, bytes(32))
    found = objects.decode(again, "ab" * 32, path, IDENTITY)
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        name: array.tobytes() for name, array in snapshot.arrays.items()
    }


def checkpoint_seeds() -> list[bytes]:
    found = []
    base = empty()
    for text, seed in ((b"hello", None), (b" world" * 30, 7), (b"", 2**62)):
        base, read = grow(base, text, seed=seed, ballast=64)
        record = lineage.record_of(base, read, IDENTITY.dtype)
        data = objects.encode(base, record, IDENTITY, record.digest(bytes(32)))
        base = base.committed(hashlib.sha256(data).hexdigest())
        found.append(data)
    bare = replace(empty(), arrays={"x": np.zeros((2, 3), np.float16), "y": np.zeros(0, np.bool_)})
    record = lineage.StepRecord(
        parent="", kind="import", tokens=b"", text=b"", settings={}, seed=None, total=5, exact=False, dtype="fp16"
    )
    found.append(objects.encode(bare, record, IDENTITY, record.digest(bytes(32))))
    return found


_JSON = speaking(
    '"dtype":"BF16"',
    '"F8_E4M3"',
    '"F4"',
    '"I64"',
    '"U64"',
    '"BOOL"',
    '"shape":[',
    '"data_offsets":[',
    "18446744073709551615",
    "-1",
    "1e400",
    '"__metadata__":{',
    '"ssmprov":"',
    '\\"format\\":1',
    "[" * 500,
    '{"a":' * 300,
    "null",
    "NaN",
)


def mutate_tensors(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A safetensors file whose header is changed and, most times, has its length told rightly."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.2 or size > len(data):
        return mutate(random, data, others)
    theirs = others[int(random.random() * len(others))]
    header = _JSON(random, data[8 : 8 + size], [theirs[8:2000]])
    told = len(header) if random.random() < 0.9 else random.choice((0, size, 2**24, 2**31, 2**63, 2**64 - 1))
    rest = data[8 + size :] if random.random() < 0.8 else mutate(random, data[8 + size :], [theirs])
    return told.to_bytes(8, "little") + header + rest


# -- archives


def archive(data: bytes) -> None:
    """An archive is refused, or every part of it can be read."""
    with scratch() as folder:
        path = folder / "a.context"
        path.write_bytes(data)
        with contextlib.closing(Archive(FILES, path)) as found:
            headers = found.check()
            assert len(list(found.steps())) == found.header.steps
            for index in range(len(headers)):
                assert found.object(index)


class _Shop:
    """A store that takes what it admits, made anew now and then so that it stays small."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._taken = 0

    def take(self, data: bytes) -> None:
        if self._folder is None or self._taken > 200:
            self.close()
            self._folder = tempfile.TemporaryDirectory(prefix="ssmprov-fuzz-", dir=SHELF)
            self.store = open_store(Path(self._folder.name) / "store")
            self._taken = 0
        path = Path(self._folder.name) / "a.context"
        path.write_bytes(data)
        self.store.import_(path, "a", overwrite=True)
        self._taken += 1
        self.store.show(Ref("a"))
        self.store.load(Ref("a"))
        self.store.log(Ref("a"))
        self.store.export(Ref("a"), path)
        with contextlib.suppress(SsmprovError):
            self.store.text(Ref("a"))

    def close(self) -> None:
        if self._folder is not None:
            self.store.close()
            self._folder.cleanup()
            self._folder = None


SHOP = _Shop()


def imported(data: bytes) -> None:
    """A store takes an archive whole, so that it can be loaded, shown and exported again, or refuses it."""
    SHOP.take(data)


def archive_seeds() -> list[bytes]:
    found = []
    with scratch() as folder, open_store(folder / "store") as store:
        for text in (b"one", b" two", b" three"):
            say(store, "a", text)
        snapshot, read = grow(empty(), b"")
        store.commit(replace(snapshot, tokens=5), replace(read, kind="import"), "root")
        say(store, "b", b"on", base="root")
        for name in ("a", "a~2", "root", "b"):
            store.export(_ref(name), folder / "out")
            found.append((folder / "out").read_bytes())
    return found


def _ref(text: str) -> Ref:
    name, _, back = text.partition("~")
    return Ref(name, int(back or 0))


def mutate_archive(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """An archive with a fault in one of its parts, its lengths and its sum made right again most times."""
    if random.random() < 0.1:
        return mutate(random, data, others)
    blocks, rest = _blocks(data)
    if not blocks:
        return mutate(random, data, others)
    other = _blocks(others[int(random.random() * len(others))])[0] or blocks
    luck = random.random()
    at = int(random.random() * len(blocks))
    if luck < 0.6:
        blocks[at] = mutate_packed(random, blocks[at], other)
    elif luck < 0.7:
        del blocks[at]
    elif luck < 0.8:
        blocks.insert(at, other[int(random.random() * len(other))])
    elif luck < 0.9:
        rest = mutate_tensors(random, rest, [rest])
    if random.random() < 0.85:
        blocks, rest = _consistent(blocks, rest)
    body = data[:8] + b"".join(struct.pack("<I", len(block)) + block for block in blocks) + rest
    return body + hashlib.sha256(body).digest()


def _blocks(data: bytes) -> tuple[list[bytes], bytes]:
    """The header and the records of an archive, and its objects' bytes; nothing of what is none."""
    if data[:7] != MAGIC:
        return [], data
    blocks, at, left = [], 8, 1
    with contextlib.suppress(
        msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error, TypeError, KeyError
    ):
        while left:
            (size,) = struct.unpack_from("<I", data, at)
            blocks.append(data[at + 4 : at + 4 + size])
            at += 4 + size
            left = left - 1 if len(blocks) > 1 else min(50, int(msgspec.msgpack.decode(blocks[0])["steps"]))
    return blocks, data[at:-32]


def _consistent(blocks: list[bytes], rest: bytes) -> tuple[list[bytes], bytes]:
    """Let a lineage's one object carry its digest, and all that names the object name what it hashes to then."""
    with contextlib.suppress(Exception):  # whatever is too damaged stays as it is
        head = msgspec.msgpack.decode(blocks[0])
        steps = [msgspec.msgpack.decode(block) for block in blocks[1:]]
        record = msgspec.convert(steps[-1]["record"], lineage.StepRecord)
        digest, total = bytes(32), 0
        for step in steps:
            each = msgspec.convert(step["record"], lineage.StepRecord)
            digest = each.digest(digest)
            total = each.total
        size = int.from_bytes(rest[:8], "little")
        outer = json.loads(rest[8 : 8 + size])
        inner = json.loads(outer["__metadata__"]["ssmprov"])
        inner |= {"parent": record.parent, "lineage": digest.hex(), "tokens": total, "seed": record.seed}
        inner |= {"exact": record.exact, "dtype": record.dtype}
        outer["__metadata__"]["ssmprov"] = json.dumps(inner)
        raw = json.dumps(outer).encode()
        first = len(head["objects"]) == 1
        rest = len(raw).to_bytes(8, "little") + raw + rest[8 + size :] if first else rest
        steps[-1]["object"] = hashlib.sha256(rest).hexdigest()
        head["steps"] = len(steps)
        if first:
            head["objects"] = [{"id": steps[-1]["object"], "bytes": len(rest)}]
        blocks = [msgspec.msgpack.encode(part) for part in (head, *steps)]
    return blocks, rest


# -- the rest


def pickled(data: bytes) -> None:
    """Nothing in an old pickle is run; what is taken is bytes and a count."""
    found = kv_pickle.parse(data)
    assert found.blob
    assert 0 <= found.tokens <= kv_pickle.MAX_TOKENS


def script(data: bytes) -> None:
    """A script is refused when it is loaded, or it can be read from and sampled."""
    with scratch() as folder:
        path = folder / "script.json"
        path.write_bytes(data)
        runtime = open_runtime(Plan(path=path, slots=1))
    delay, runtime._script.token_delay_s = runtime._script.token_delay_s, 0.0
    assert 0.0 <= delay < 1e6
    tokens = runtime.tokenize("hello [ECHO]:")
    for _ in range(8):
        logits = runtime.forward([Feed(0, tokens)])
        tokens = [int(logits[0].argmax())]
        runtime.load(0, runtime.save(0))


SCRIPTS = [
    {
        "replies": [{"after": "[ECHO]:", "pieces": [" as", " ü", "."]}, {"after": "", "pieces": ["a"]}],
        "token_delay_s": 0.5,
    },
    {"replies": []},
]

NOTES = (PENDING, ASKED, MOVING, COUNTER, TRANSCRIPT)


def notes(data: bytes) -> None:
    """Whatever lies in the notes of a record: who takes the lock finishes it or drops it, and can go on."""
    parts = data.split(b"\x00\x01\x02", len(NOTES) - 1)
    with scratch() as folder:
        for name, part in zip(NOTES, parts, strict=False):
            if part:
                (folder / name).write_bytes(part)
        record = Record(folder)
        record.noted("ab" * 16)
        with record.locked() as writer:
            writer.asked()
            if (move := writer.moving()) is not None:
                writer.carry_out_move(move)
            number = writer.next_number()
            writer.append(f"{writer.lead()}(Turn {number}) [USER]: x\n", number)
            assert writer.counter() == number
        assert record.read().endswith(f"(Turn {number}) [USER]: x\n".encode())


def note_seeds() -> list[bytes]:
    text = "(Turn 1) [USER]: ü\n\n~~~(end)~~~\n\n".encode()
    digest = hashlib.sha256(text).hexdigest()
    head = {"at": 0, "bytes": len(text), "sha256": digest, "counter": 1}
    pending = json.dumps(head).encode() + b"\n" + text
    asked = msgspec.json.encode(
        Asked(id="ab" * 16, at=1.0, prompt="hi", arguments={"save": "a"}, before="before", counter=2, also="b")
    )
    moving = msgspec.json.encode(
        Moving(model="talk", name="a", head="ab", object="cd", at=3, tail="tail", sha256=digest, counter=5, kept="kept")
    )
    glue = b"\x00\x01\x02"
    return [
        glue.join((pending, asked, moving, b"1", b"")),
        glue.join((b"", b"", moving, b"3", text)),
        glue.join((pending, asked)),
    ]


def pickle_seeds() -> list[bytes]:
    state = {"blob": b"state" * 20, "n_tokens": 7}
    return [pickle.dumps(state, protocol=protocol) for protocol in range(3, 6)]


TARGETS = [
    Target("object", checkpoint, checkpoint_seeds, (SsmprovError,), mutate_tensors, runs=8000),
    Target("archive", archive, archive_seeds, (SsmprovError,), mutate_archive, runs=2500),
    Target("import", imported, archive_seeds, (SsmprovError,), mutate_archive, runs=300),
    Target("pickle", pickled, pickle_seeds, (SsmprovError,), runs=8000),
    Target(
        "script",
        script,
        lambda: [json.dumps(one, ensure_ascii=False).encode() for one in SCRIPTS],
        (SsmprovError,),
        speaking('"after"', '"pieces"', "token_delay_s", "-1", "1e300", "[" * 3000, '{"replies":' * 500, "\\ud800"),
        runs=1500,
    ),
    Target(
        "notes",
        notes,
        note_seeds,
        (SsmprovError,),
        speaking("9" * 30, "-1", "1e999", "true", "null", "[]", "\\ud800", "\\u0000", "[" * 3000, '"at": '),
        runs=1000,
    ),
]
