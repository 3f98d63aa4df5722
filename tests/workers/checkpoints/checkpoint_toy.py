"""A toy model whose tokens are bytes and whose state is what it has read, to be held against its text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssmprov.names import Ref, parse_ref
from workers.checkpoints import ANY, Committed, Expect, Loaded, RequestKey, Store
from workers.context import Identity, Read, Snapshot, empty

IDENTITY = Identity("ab" * 32, "toy", "toy L1", "fp32")
ROOT = Path(__file__).parents[3]
STARTED: list[subprocess.Popen[str]] = []
"""Children of the running test, ended with it."""


def open_store(path: Path, **options: object) -> Store:
    return Store(path, "toy", IDENTITY, **options)  # type: ignore[arg-type]


def text_of(snapshot: Snapshot) -> bytes:
    return snapshot.arrays["text"].tobytes() if snapshot.arrays else b""


def grow(
    base: Snapshot, text: bytes, *, seed: int | None = None, kind: str = "turn", ballast: int = 0
) -> tuple[Snapshot, Read]:
    """The snapshot after reading more, and the step that led to it."""
    tokens = np.frombuffer(text, np.uint8).astype(np.int32)
    whole = np.frombuffer(text_of(base) + text, np.uint8)
    arrays = {"text": whole, "sum": np.array(whole.sum(), np.float32)}
    if ballast:
        arrays["ballast"] = np.random.default_rng(len(whole)).integers(0, 255, ballast, np.uint8)
    window = np.concatenate([base.window, tokens])[-64:]
    snapshot = Snapshot(
        arrays=arrays,
        logits=np.arange(4, dtype=np.float32) + len(whole),
        window=window,
        tokens=base.tokens + len(tokens),
        seed=seed,
        parent=base.object,
    )
    return snapshot, Read(tokens, text, {"temperature": 0.5}, kind)


def restored(loaded: Loaded) -> Snapshot:
    """What a worker does with a loaded checkpoint: reads the rest, if any."""
    if not len(loaded.replay):
        return loaded.snapshot
    snapshot, _ = grow(loaded.snapshot, loaded.replay.astype(np.uint8).tobytes(), seed=loaded.seed)
    return snapshot.committed(loaded.object)


def say(
    store: Store,
    name: str,
    text: bytes,
    *,
    base: str | None = None,
    expect: str | Expect | None = ANY,
    request: bytes = b"",
    ballast: int = 0,
) -> Committed:
    """A turn: load `base` (else the name itself, else the empty context), read the text, commit."""
    ref = parse_ref(base) if base else Ref(name)
    snapshot = restored(store.load(ref)) if base or store.head(name) else empty()
    grown, read = grow(snapshot, text, ballast=ballast)
    key = RequestKey(request, 600) if request else None
    return store.commit(
        grown, read, name, expect=expect, request=key, answer=lambda object_id: b"saved " + object_id.encode()
    )


def check_text(store: Store, ref: str) -> None:
    """The state behind a reference has read exactly its text."""
    assert text_of(restored(store.load(parse_ref(ref)))) == store.text(parse_ref(ref))


def child(script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Another process with this module at hand."""
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            "import sys\nfrom pathlib import Path\nfrom checkpoint_toy import *\n" + script,
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
    )
    STARTED.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out
