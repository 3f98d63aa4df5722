"""The runtime over llama.cpp: contexts are sequences of one library context, decoded together.

State arrays of a context: `state` [bytes] as `layout` describes it, `position` [1] the tokens that it has read
(including the one that begins a text, if the model has one), and `gate` [32], a digest over both, the fingerprint of
the model and the state version of the library. Nothing reaches the library before the gate and every field of the state
are checked.

Sequences 0 to slots - 1 are fed, one for each slot; recurrent models have as many more, which hold copies of what was
saved last. Within the library a copy costs no bytes until one of the two is fed, so continuing from a saved state, or
forking it, moves no bytes. A sequence that is still where it was saved also serves as a copy.

The library decodes sequences together only if they follow one another; it decodes others one after the other, each at
nearly the price of all. So a batch is in the order of sequences, and recurrent contexts swap places to close gaps.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssmprov.errors import BadRequest, Corrupt, SsmprovError, WrongModel
from workers.context import Arrays, Identity
from workers.runtimes.base import Adopted, Feed, Logits, Plan
from workers.runtimes.llama import native
from workers.runtimes.llama.batch import Batch
from workers.runtimes.llama.files import Files
from workers.runtimes.llama.layout import Layout
from workers.runtimes.llama.options import Options
from workers.runtimes.llama.sound import Sound
from workers.runtimes.llama.tokens import Tokens

log = logging.getLogger(__name__)

N_BATCH = 512
N_CTX = 4096
"""Tokens of a transformer's context if the configuration gives no number."""

MAX_SEQUENCES = 256
MAX_PARKED = 16
UNTOUCHED = (1, -1)
"""Results of a failed decode: there was no room, or the batch was wrong. Nothing was computed, and all states are kept.
"""

LEARN_TOKENS = 2

State = NDArray[np.uint8]


def _n_ctx(path: Path, n_ctx: int | None, trained: int) -> int:
    if n_ctx and n_ctx > trained:
        log.warning("%s: n_ctx is %d, but the model was trained with %d: expect nonsense", path, n_ctx, trained)
    return n_ctx or min(N_CTX, trained)


class LlamaRuntime:
    """A `Runtime`, and one that `Adopts`, over one GGUF."""

    def __init__(
        self,
        *,
        model: native.Model,
        plan: Plan,
        options: Options,
        family: str,
        fingerprint: str,
        kv_type: int,
        files: Files,
        gpu: bool,
    ) -> None:
        lib = self._lib = native.library()
        self._model = model
        self._files = files
        self._recurrent = bool(lib.llama_model_is_recurrent(model.pointer))
        self._tokens = Tokens(lib, lib.llama_model_get_vocab(model.pointer))
        parked = min(plan.slots, MAX_PARKED, MAX_SEQUENCES - plan.slots) if self._recurrent else 0
        self._count = plan.slots + parked
        self._n_batch = max(options.n_batch or N_BATCH, self._count, LEARN_TOKENS)
        if self._recurrent:  # this takes no memory, but the library rejects longer batches
            n_ctx = max(256, -(-self._n_batch // self._count))
        else:
            n_ctx = _n_ctx(plan.path, options.n_ctx, int(lib.llama_model_n_ctx_train(model.pointer)))
        self._context = native.Context(
            model,
            sequences=self._count,
            n_ctx=n_ctx,
            n_batch=self._n_batch,
            kv_type=kv_type,
        )
        other = lib.llama_model_has_encoder(model.pointer) or lib.llama_model_is_diffusion(model.pointer)
        if other or not self._context.memory:
            self._context.close()
            raise BadRequest(f"{plan.path} does not continue a text token by token, so it cannot be served")
        self._n_batch = min(self._n_batch, self._context.n_batch)
        self._positions = [0] * self._count
        self._holds: list[weakref.ref[State] | None] = [None] * self._count
        self._parked_next = 0
        self._places = list(range(plan.slots))
        """The sequence of each slot."""

        self._lost: set[int] = set()
        self._sound = Sound()
        self._batch = Batch(lib, self._n_batch, self._count)
        self.slots = plan.slots
        self.vocabulary = self._tokens.size
        self.end_tokens = self._tokens.ends
        self.control_tokens = self._tokens.controls
        self.layout = self._learn_layout()
        self._context.use(options.n_threads or plan.processors)  # from here on another thread may decode
        begins = int(self._tokens.begin is not None)
        self.n_ctx = None if self._recurrent else min(n_ctx, self._context.n_ctx)
        self.context_tokens: int | None = None if self.n_ctx is None else self.n_ctx - begins
        grown = self.layout.bytes_per_token * (self.n_ctx or 0)
        self.state_bytes = self.layout.fixed_bytes + grown
        version = f"llama.cpp state {lib.LLAMA_STATE_SEQ_VERSION}"
        layout = f"{family} {self.layout}, {version}"
        self.identity = Identity(fingerprint, family, layout, "ggml-gpu" if gpu else "ggml-cpu")
        self._gate = hashlib.sha256(f"{version}\n{fingerprint}\n".encode())

    def close(self) -> None:
        """Free the memory; nothing may be called afterwards."""
        self._context.close()
        self._model.close()
        self._files.close()

    # -- text

    def tokenize(self, text: str) -> list[int]:
        return self._tokens.encode(text)

    def piece(self, token: int) -> bytes:
        return self._tokens.piece(token)

    # -- states

    def load(self, slot: int, arrays: Arrays) -> None:
        self._files.check()
        target = self._places[slot]
        if not arrays:
            self._clear(target)
            self._lost.discard(slot)
            return
        state = arrays.get("state")
        if state is not None and (place := self._holder(state, target)) is not None:
            if place != target:
                self._copy(place, target)
            self._lost.discard(slot)
            return
        state, position = self._checked(arrays)
        self._clear(target)
        self._lost.discard(slot)
        if not self._put(target, self.layout.outward(state.data, 1 if self._recurrent else self._count), position):
            raise Corrupt(f"llama.cpp rejected this checkpoint's state{native.why()}")
        self._holds[target] = weakref.ref(state)

    def _put(self, sequence: int, blob: bytes | bytearray | memoryview, position: int) -> bool:
        """Pass a state in the library's form to it; False, and an empty sequence, if the library rejects it."""
        data = np.frombuffer(blob, np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        taken = self._lib.llama_state_seq_set_data(self._context.pointer, pointer, len(data), sequence)
        if taken != len(data) or self._last(sequence) != position - 1:
            self._clear(sequence)
            return False
        self._positions[sequence] = position
        return True

    def save(self, slot: int) -> Arrays:
        self._files.check()
        self._stands(slot)
        source = self._places[slot]
        position = self._positions[source]
        if position == 0:
            return {}
        state = np.frombuffer(self.layout.inward(self._read(source)), np.uint8)
        state.flags.writeable = False
        self._holds[source] = weakref.ref(state)
        self._sound.add(state)
        self._park(source)
        return {
            "state": state,
            "position": np.array([position], np.int64),
            "gate": np.frombuffer(self._seal(state, position), np.uint8),
        }

    def adopt(self, blob: bytes, tokens: int) -> Adopted:
        architecture = "mamba" if self.identity.architecture == "falcon-mamba" else self.identity.architecture
        data, position, raw = self.layout.adopt(blob, architecture)
        if tokens and tokens != position:
            raise Corrupt(f"it says that {tokens} tokens were read, but its state says {position}")
        state = np.frombuffer(data, np.uint8)
        self.layout.check(state.data, position)
        row = np.frombuffer(raw, np.float32)[-self.vocabulary :]
        logits = row.copy() if len(row) == self.vocabulary and bool(np.isfinite(row).all()) else None
        gate = np.frombuffer(self._seal(state, position), np.uint8)
        return Adopted({"state": state, "position": np.array([position], np.int64), "gate": gate}, logits, position)

    def _checked(self, arrays: Arrays) -> tuple[State, int]:
        """The gate: a state and its position. Raises Corrupt or WrongModel before the library sees a byte."""
        form = {name: (array.dtype.str, array.ndim) for name, array in arrays.items()}
        if form != {"state": ("|u1", 1), "position": ("<i8", 1), "gate": ("|u1", 1)} or len(arrays["position"]) != 1:
            raise Corrupt(f"this checkpoint holds {', '.join(sorted(arrays))}, not a state of llama.cpp")
        state = np.ascontiguousarray(arrays["state"], np.uint8)
        position = int(arrays["position"][0])
        if not self._sound.has(state):
            if arrays["gate"].tobytes() != self._seal(state, position):
                raise WrongModel(
                    "this checkpoint's state was not written by this model, or its bytes have changed: load it with "
                    "its own model, or read its text into this one with "
                    "`ssmprov ckpt replay THEIRS:NAME --to OURS --save NAME`"
                )
            self.layout.check(state.data, position)
            self._sound.add(state)
        if self.n_ctx is not None and position > self.n_ctx:
            raise BadRequest(
                f"this context has read {position} tokens, but n_ctx is {self.n_ctx}: raise n_ctx in the model's table"
            )
        return state, position

    def _seal(self, state: State, position: int) -> bytes:
        digest = self._gate.copy()
        digest.update(position.to_bytes(8, "little", signed=True))
        digest.update(state.data)
        return digest.digest()

    def _holder(self, state: NDArray[np.generic], target: int) -> int | None:
        """A sequence that is exactly at this state, the target itself first."""
        at = [place for place, held in enumerate(self._holds) if held is not None and held() is state]
        if target in at:
            return target
        # A key-value cache is only copied at the next decode, whatever happens to either of the two until then.
        return None if self.layout.grows else next(iter(at), None)

    def _park(self, sequence: int) -> None:
        """Keep a copy beside the slots, in place of the oldest copy."""
        parked = self._count - self.slots
        if parked:
            self._copy(sequence, self.slots + self._parked_next)
            self._parked_next = (self._parked_next + 1) % parked

    def _gather(self, slots: set[int]) -> None:
        """Make the sequences of these slots follow one another, if contexts can swap places for free."""
        held = sorted(self._places[slot] for slot in slots)
        if held[-1] - held[0] < len(held) or self._count == self.slots:
            return
        starts = range(self.slots - len(held) + 1)
        first = max(starts, key=lambda start: sum(start <= place < start + len(held) for place in held))
        wanted = range(first, first + len(held))
        out = [place for place in held if place not in wanted]
        for a, b in zip(out, (place for place in wanted if place not in held), strict=True):
            self._exchange(a, b)

    def _exchange(self, a: int, b: int) -> None:
        """Through the place of the oldest copy."""
        left, right = self._places.index(a), self._places.index(b)
        spare = self.slots + self._parked_next
        try:
            for source, target in ((a, spare), (b, a), (spare, b)):
                self._copy(source, target)
        except SsmprovError:
            self._lost |= {left, right}
            raise
        self._clear(spare)
        self._places[left], self._places[right] = b, a

    def _copy(self, source: int, target: int) -> None:
        self._clear(target)
        self._lib.llama_memory_seq_cp(self._context.memory, source, target, -1, -1)
        if self._last(target) != self._positions[source] - 1:
            self._clear(target)
            raise SsmprovError(f"llama.cpp could not copy a context{native.why()}")
        self._positions[target] = self._positions[source]
        self._holds[target] = self._holds[source]

    def _clear(self, sequence: int) -> None:
        self._holds[sequence] = None
        self._positions[sequence] = 0
        self._lib.llama_memory_seq_rm(self._context.memory, sequence, -1, -1)

    def _last(self, sequence: int) -> int:
        return int(self._lib.llama_memory_seq_pos_max(self._context.memory, sequence))

    def _read(self, sequence: int) -> bytearray:
        """The library's bytes of one sequence."""
        size = int(self._lib.llama_state_seq_get_size(self._context.pointer, sequence))
        blob = bytearray(size)
        buffer = (ctypes.c_uint8 * size).from_buffer(blob)
        written = self._lib.llama_state_seq_get_data(self._context.pointer, buffer, size, sequence)
        del buffer
        if written != size or size == 0:
            raise SsmprovError(f"llama.cpp could not save a context{native.why()}")
        return blob

    def _learn_layout(self) -> Layout:
        """Let the model write a state. All other states are compared with it."""
        try:
            token = next(token for token in range(self.vocabulary) if self.piece(token))
            self._feed([(0, [token] * LEARN_TOKENS)])
            layout = Layout.of(bytes(self._read(0)), self._positions[0])
            self._clear(0)
        except BaseException:
            self._context.close()
            raise
        return layout

    # -- the model

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        """As in the protocol. After an error the fed slots cannot be used until they are loaded again."""
        logits = np.empty((len(feeds), self.vocabulary), np.float32)
        for feed in feeds:
            self._stands(feed.slot)
        self._gather({feed.slot for feed in feeds})
        order = sorted((self._places[feed.slot], row) for row, feed in enumerate(feeds))
        queue = deque((row, place, self._begun(place, feeds[row].tokens)) for place, row in order)
        for row, place, tokens in queue:
            if self.n_ctx is not None and self._positions[place] + len(tokens) > self.n_ctx:
                raise BadRequest(f"row {row} would exceed n_ctx = {self.n_ctx} tokens")
        try:
            while queue:
                taken: list[tuple[int, int, list[int]]] = []
                room = self._n_batch
                while queue and room:
                    row, place, tokens = queue.popleft()
                    taken.append((row if len(tokens) <= room else -1, place, tokens[:room]))
                    if len(tokens) > room:
                        queue.appendleft((row, place, tokens[room:]))
                    room -= len(taken[-1][2])
                self._feed([t[1:] for t in taken])
                for (row, _, _), found in zip(taken, self._logits(len(taken)), strict=True):
                    if row >= 0:
                        logits[row] = found
        except SsmprovError:
            for feed in feeds:
                self._clear(self._places[feed.slot])
                self._lost.add(feed.slot)
            raise
        if not logits.max() < np.inf:  # also catches NaN
            self._purge({feed.slot for row, feed in zip(logits, feeds, strict=True) if not row.max() < np.inf})
        return logits

    def _begun(self, sequence: int, tokens: Sequence[int]) -> list[int]:
        """Tokens after the one that begins a text, if nothing was read and the model needs it."""
        first = [] if self._tokens.begin is None or self._positions[sequence] else [self._tokens.begin]
        return [*first, *tokens]

    def _feed(self, rows: Sequence[tuple[int, list[int]]]) -> None:
        """One decode of (sequence, tokens)."""
        for sequence, _ in rows:
            self._holds[sequence] = None
        self._batch.fill([(sequence, self._positions[sequence], tokens) for sequence, tokens in rows])
        status = self._lib.llama_decode(self._context.pointer, self._batch.native)
        if status:
            error = SsmprovError(f"llama.cpp failed with status {status}{native.why()}")
            if status not in UNTOUCHED:
                self._lose()
            raise error
        for sequence, tokens in rows:
            self._positions[sequence] += len(tokens)

    def _purge(self, slots: set[int]) -> None:
        """Empty slots whose numbers overflowed, down to the last byte. The library's own removal leaves bytes behind.

        A context that began there would not be empty: the library multiplies by zero, and infinity times zero is NaN.
        """
        others = [slot for slot in range(self.slots) if slot not in slots and self._positions[self._places[slot]]]
        kept = [(slot, self._places[slot], self._read(self._places[slot])) for slot in others]
        positions, lost = self._positions, self._lost | slots
        self._lose()
        self._lost = lost
        for slot, place, blob in kept:
            if not self._put(place, blob, positions[place]):
                self._lost.add(slot)

    def _lose(self) -> None:
        """Forget every state. A decode that fails midway has renumbered states that it did not move, even those of
        others.
        """
        self._lib.llama_memory_clear(self._context.memory, True)
        self._holds = [None] * self._count
        self._positions = [0] * self._count
        self._lost = set(range(self.slots))

    def _stands(self, slot: int) -> None:
        if slot in self._lost:
            raise SsmprovError("this context was lost when a batch failed: send the turn again")

    def _logits(self, rows: int) -> Logits:
        """The logits of the last decode for each of its rows [rows, V], valid until the next one."""
        pointer = self._lib.llama_get_logits(self._context.pointer)
        if not pointer:
            raise SsmprovError(f"llama.cpp has no logits{native.why()}")
        numbers = (ctypes.c_float * (rows * self.vocabulary)).from_address(ctypes.addressof(pointer.contents))
        found: Logits = np.frombuffer(memoryview(numbers), np.float32)
        return found.reshape(rows, self.vocabulary)
