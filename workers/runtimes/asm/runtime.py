"""Contexts of an Addressed State Model, decoded together: the states of all slots are one `models.asm.State`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import asm
from models.rwkv7 import Tokenizer
from ssmprov.errors import BadRequest
from workers.context import Arrays, Identity
from workers.runtimes.asm.probing import probe
from workers.runtimes.asm.states import Form
from workers.runtimes.base import Feed, Logits, Probe, Reading
from workers.runtimes.tensors import check_tensors, read_tensors
from workers.variants import Variants, without_weights

MAX_BATCH_TOKENS = 4096
"""Padded tokens of one prefill call; this limits its activations."""


@dataclass(frozen=True, slots=True)
class Model:
    """One set of weights, and the form of it that reads single tokens fastest, if there is one."""

    whole: asm.ASMLanguageModel
    stepper: asm.Stepper | None

    @classmethod
    def of(cls, model: asm.ASMLanguageModel) -> Model:
        model.requires_grad_(requires_grad=False)
        return cls(model, asm.Stepper(model) if asm.Stepper.fits(model) else None)


class AsmRuntime:
    """A `Runtime` over one model, in eval mode and of the baseline variant, whose flags the probes use.

    Contexts may name other weights. Their files are in the folder `weights`, with the tensor names of
    `models.asm.save_checkpoint`.
    """

    def __init__(
        self,
        model: asm.ASMLanguageModel,
        tokenizer: Tokenizer,
        fingerprint: str,
        dtype: str,
        slots: int,
        weights: Path | None = None,
    ) -> None:
        config = self._config = model.config
        self._shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if config.tie_weights:
            del self._shapes["lm_head.weight"]
        self._place = (model.token_emb.weight.device, model.token_emb.weight.dtype)
        self._variants = Variants(Model.of(model), slots, weights, self._build)
        self._tokenizer = tokenizer
        self._form = Form(config)
        self._state = model.new_state(slots)
        cuda = self._state.t.is_cuda
        self._pinned = torch.empty(slots, config.vocab_size, pin_memory=True) if cuda else None
        self.identity = Identity(fingerprint, "asm", self._form.layout, dtype)
        self.slots = slots
        self.vocabulary = config.vocab_size
        self.end_tokens = frozenset({tokenizer.end})
        self.control_tokens = frozenset(range(tokenizer.size, config.vocab_size))  # ids without text
        self.context_tokens = self._form.limit
        self.state_bytes = self._form.bytes

    def tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def piece(self, token: int) -> bytes:
        return self._tokenizer.piece(token)

    def check(self, arrays: Arrays) -> None:
        self._form.check(arrays)

    def check_weights(self, weights: Arrays) -> None:
        check_tensors(weights, self._shapes)

    def load(self, slot: int, arrays: Arrays) -> None:
        variant, arrays = self._variants.find(arrays), without_weights(arrays)
        if arrays:
            self._form.check(arrays)
        self._form.put(self._state, slot, arrays)
        self._variants.hold(slot, variant)

    def save(self, slot: int) -> Arrays:
        return self._variants.named(slot, self._form.take(self._state, slot))

    def probe(
        self, arrays: Arrays, tokens: Sequence[int], reading: Reading, reply_tokens: int, before: Sequence[int] = ()
    ) -> Probe:
        mute = (self.end_tokens, self.control_tokens)
        model = self._variants.find(arrays).model.whole
        return probe(model, self._form, without_weights(arrays), tokens, reading, reply_tokens, before, mute)

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        self._check_ends(feeds)
        return self._variants.forward(feeds, self._read)

    def _build(self, data: bytes, source: str) -> Model:
        tensors = read_tensors(data, self.check_weights, source)
        model = asm.load_tensors(tensors, self._config, variant="baseline", source=source).model
        return Model.of(model.to(*self._place))

    def _read(self, model: Model, feeds: Sequence[Feed]) -> Logits:
        single = [i for i, feed in enumerate(feeds) if len(feed.tokens) == 1]
        if len(single) == len(feeds):
            return self._call(model, feeds, single)
        logits = np.empty((len(feeds), self.vocabulary), np.float32)
        if single:
            logits[single] = self._call(model, feeds, single)
        longer = sorted((i for i, feed in enumerate(feeds) if len(feed.tokens) > 1), key=lambda i: len(feeds[i].tokens))
        while longer:
            width = len(feeds[longer[-1]].tokens)
            count = max(1, MAX_BATCH_TOKENS // width)
            logits[longer[-count:]] = self._call(model, feeds, longer[-count:])
            del longer[-count:]
        return logits

    def _check_ends(self, feeds: Sequence[Feed]) -> None:
        """Raise BadRequest before anything is read. The scheduler keeps turns from getting here."""
        if self.context_tokens is None:
            return
        read = self._state.t.tolist()
        for feed in feeds:
            if read[feed.slot] + len(feed.tokens) > self.context_tokens:
                raise BadRequest(
                    f"slot {feed.slot} would read {read[feed.slot] + len(feed.tokens)} tokens, but this model's "
                    f'contexts end at {self.context_tokens}: write pos_mode = "cyclic" in its table to read on'
                )

    @torch.inference_mode()
    def _call(self, model: Model, feeds: Sequence[Feed], rows: list[int]) -> Logits:
        """One batched forward of some feeds; returns their logits in the order of `rows`."""
        lengths = [len(feeds[i].tokens) for i in rows]
        slots = [feeds[i].slot for i in rows]
        tokens = np.zeros((len(rows), max(lengths)), np.int64)
        for row, i in enumerate(rows):
            tokens[row, : lengths[row]] = feeds[i].tokens
        ragged = torch.tensor(lengths) if min(lengths) < max(lengths) else None
        everyone = slots == list(range(self.slots))
        state = self._state if everyone else self._state.pick(slots)
        read = torch.from_numpy(tokens).to(self._state.t.device)
        if model.stepper is not None and tokens.shape[1] == 1:
            out = model.stepper.step(read[:, 0], state)
        else:
            out, state = model.whole(read, state, lengths=ragged, last_logits=True)
        if everyone:
            self._state = state
        else:
            self._state.put(slots, state)
        out = out.float()
        if self._pinned is None:
            logits: Logits = out.numpy()
            return logits
        host = self._pinned[: len(rows)].copy_(out)  # waits for the device: the only time in a step
        return host.numpy().copy()
