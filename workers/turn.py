"""One turn, written once for all runtimes: prompt, healed boundary, judged tokens, fence, limits, cancel.

A turn is a queue of tokens to read, refilled by decisions. The scheduler lets the model read from the queue's front;
when the queue is empty it samples from the last logits and asks the turn to judge the token *before* it is read. What
the reply shows grows only by tokens that have been read, so the state and the text can never disagree.

A reply ends before a stop (`workers.stops`). From the token in which one may begin, its text is held back and the state
before that token is kept. If the match becomes whole, the state goes back, and what that token has before the match is
read anew. Then the fence closes the turn.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssmprov.errors import BadRequest, Cancelled, SsmprovError
from ssmprov.settings import Settings
from ssmprov.transcript import FENCE, FENCE_REST
from workers import fence
from workers.context import WINDOW, Arrays, Read, Snapshot
from workers.prompt import Prompt, Vocabulary, characters, spell
from workers.sampler import Draw, Logits, share
from workers.stops import Headers, Match, Stop

PATIENCE = 3
"""Draws of one token that are rejected one by one."""

CLOSING_TOKENS = len(FENCE.encode()) + 8
"""Tokens that forced text may take at the end of a turn: at most one per byte, and the rest of an open character."""

HEALING_SHARE = 0.5
"""Tokens that begin with a space must hold this share of the softmax to take up a withheld space."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most sampled tokens (0: only read the prompt), characters of reply, and tokens of the context."""

    tokens: int | None
    chars: int
    context: int | None = None


def _most(limits: Limits, held: int, prompt: Prompt) -> int | None:
    """How many tokens may be sampled so that the context stays within its limit, including a closing fence.

    Raises BadRequest if not even the prompt and one token fit.
    """
    if limits.context is None:
        return limits.tokens
    left = limits.context - held - len(prompt.tokens) - prompt.withheld
    if limits.tokens == 0 and left >= 0:
        return 0
    left -= CLOSING_TOKENS
    if limits.tokens == 0 or left < 1:
        raise BadRequest(
            f"the context holds {held} tokens and the prompt {len(prompt.tokens)}, but this model's contexts end at "
            f"{limits.context} ({CLOSING_TOKENS} of these are kept to close a turn): send a shorter prompt, continue "
            'from an earlier step, or raise n_ctx in the model\'s table (for an ASM, write pos_mode = "cyclic" there)'
        )
    return left if limits.tokens is None else min(left, limits.tokens)


@dataclass(slots=True, kw_only=True)
class _Mark:
    """A turn before the token in which a match may begin, which is at byte `at` of the reply.

    The other fields are what the turn had then, as numbers of items; `arrays` is the state once it was saved. No
    character is open there.
    """

    at: int
    queue: int
    tokens: int
    reply: int
    chars: int
    sampled: int
    position: int
    window: list[int]
    logits: Logits | None
    withheld: bool
    arrays: Arrays | None = None


class Turn:
    """The state of one turn between the steps of its model.

    After each step: `fed`. While `queue` is empty and not `done`: `draw`, sample, `judge`. If the state then `moves`:
    `move`. Then `read` and `reply` hold what the state has read. If `failed` is set, the old context
    stays. `script` is what is read before anything is decided: replay and prompt. With `headers` the reply may contain
    headers of the transcript.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        start: Snapshot,
        prompt: Prompt,
        settings: Settings,
        limits: Limits,
        seed: int,
        replay: Sequence[int] = (),
        *,
        headers: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._settings = settings
        self._limits = limits
        self._most = _most(limits, start.tokens + len(replay), prompt)
        self._start = start
        self._logits: Logits | None = start.logits
        self._window = [int(token) for token in start.window]
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")  # of the judged tokens
        self._shown = codecs.getincrementaldecoder("utf-8")("strict")  # of the tokens that were read
        self._withheld = prompt.withheld
        self._chars = 0
        self._retry = 0
        self._banned = list(vocabulary.control)
        self._healing = False
        self._ending = ""
        self._stop: Stop | None = None if headers else Headers(self._before(replay))
        self._mark: _Mark | None = None
        self._back: Arrays | None = None
        self.seed = seed
        self.tokens: list[int] = []
        self.reply = bytearray()
        self.sampled = 0
        self.replayed = 0
        self.stop = ""
        self.failed: SsmprovError | None = None
        self._replay_left = len(replay)
        self._position = start.tokens
        self._queue: list[int] = [*replay, *prompt.tokens]
        self._shows: list[bytes] = [b""] * len(self._queue)
        self._at = 0
        self._prompt_end = len(self._queue)
        self.script = np.array(self._queue, np.int32)
        if prompt.half_step and limits.tokens != 0:
            self._force(FENCE_REST.encode(), "forced")
        elif limits.tokens == 0:
            self._finish("read")
        elif not self._queue and start.logits is None and self._withheld:
            self._read_space()
        elif not self._queue and start.logits is None:
            what = "came without its last logits" if start.arrays else "is empty"
            raise BadRequest(f"nothing to continue: the context {what}, and the prompt is empty")

    # -- reading

    @property
    def waiting(self) -> int:
        """Tokens that wait to be read."""
        return len(self._queue) - self._at

    @property
    def at(self) -> int:
        """How many tokens of the queue were read; the script comes first."""
        return self._at

    @property
    def logits(self) -> Logits | None:
        """The logits after the last token [V]."""
        return self._logits

    @property
    def prefilling(self) -> bool:
        """Whether the prompt is still being read."""
        return self._at < self._prompt_end

    @property
    def progress(self) -> tuple[int, int]:
        """How many tokens of replay and prompt were read, and how many there are."""
        return min(self._at, self._prompt_end), self._prompt_end

    @property
    def done(self) -> bool:
        return self.failed is not None or (bool(self.stop) and self.waiting == 0)

    def upcoming(self, count: int) -> list[int]:
        """The next tokens to read, at most `count`."""
        return self._queue[self._at : self._at + count]

    def fed(self, count: int, logits: Logits) -> None:
        """The model has read the next `count` tokens and left these logits [V]."""
        for at in range(self._at, self._at + count):
            token = self._queue[at]
            self._position += 1
            self._window.append(token)
            if self._replay_left:
                self._replay_left -= 1
                self.replayed += 1
                continue
            self.tokens.append(token)
            self.reply += self._shows[at]
            self._shown.decode(self._shows[at])
        del self._window[:-WINDOW]
        self._at += count
        self._logits = logits
        self._retry = 0
        self._banned = list(self._vocabulary.control)

    # -- deciding

    def settle(self) -> None:
        """With nothing left to read: end the turn if a limit or a cancel says so, before anything is sampled."""
        if self.stop or self.failed or self.waiting or self._open:
            return
        if self._ending:
            self._finish("cancelled")
        elif self._due:
            self._finish("limit")
        elif self._withheld:
            assert self._logits is not None, "where nothing was read the space is not withheld"
            self._healing = share(self._logits, self._vocabulary.spaced()) >= HEALING_SHARE
            if not self._healing:  # no likely token takes up the space: read it as it is, then sample
                self._read_space()

    def draw(self) -> tuple[Logits, Draw]:
        """The logits [V] to sample from, and how."""
        logits = self._logits
        assert logits is not None, "an empty context with an empty prompt was refused at the start"
        allowed = self._vocabulary.spaced() if self._healing else None
        position = self._position
        return logits, Draw(
            settings=self._settings,
            window=self._window,
            seed=self.seed,
            position=position,
            retry=self._retry,
            banned=list(self._banned),
            allowed=allowed,
        )

    def judge(self, token: int) -> None:
        """Accept a sampled token, reject it for another draw, or end the turn without it."""
        if token in self._banned or (self._healing and not self._vocabulary.spaced()[token]):
            self._exhausted()
            return
        if token in self._vocabulary.end:
            if self._open:
                self._refuse(token)
            else:
                self._finish("end")
            return
        piece = self._vocabulary.piece(token)
        shown = piece[1:] if self._healing else piece
        count = self._count(shown)
        if count is None or not piece:
            self._refuse(token)
            return
        match = self._match(shown)
        if match is not None and self._open and match.at > len(self.reply):
            self._refuse(token)  # going back to where it begins would cut the open character in two
            return
        if match is not None and match.whole:
            self._end_before(match, shown)
            return
        rest = fence.closed(self.reply, shown)
        cut = rest is not None and not rest.startswith(shown)
        if self._open and (cut or (self._due and count > 1)):
            self._refuse(token)  # only the open character may delay the end, and it is never cut in two
            return
        chars = self._chars + ((count if rest is None else self._count(rest)) or 0)
        if chars > self._limits.chars:
            if self._open:
                self._refuse(token)
            else:
                self._finish("limit")
            return
        self._hold(match if rest is None else None)
        self.sampled += 1
        healed, self._healing = self._healing, False
        if healed:
            self._withheld = False
        if rest is None:
            self._chars += len(self._decoder.decode(shown))
            self._push(token, shown)
        elif rest.startswith(shown):
            self._push(token, shown)
            self._force(rest[len(shown) :], "fence")
        else:
            if healed:
                self._push_text(b" ", b"")
            self._force(rest, "fence")

    @property
    def moves(self) -> bool:
        """Whether the state must be saved or put back before the next token is read: call `move`."""
        return self._back is not None or (self._mark is not None and self._mark.arrays is None)

    def move(self, save: Callable[[], Arrays], load: Callable[[Arrays], None]) -> None:
        """Save the state before a token in which a match may begin, or put it back because the match is whole."""
        if self._back is not None:
            load(self._back)
            self._back = None
        elif self._mark is not None:
            self._mark.arrays = save()

    def cancel(self, mode: str) -> None:
        """Stop the turn between two tokens: `drop` it, `keep` what was read, or `close` it with the fence.

        While the prompt is being read there is nothing to keep: the old context stays.
        """
        if self.done:
            return
        if mode not in ("keep", "close") or self.prefilling:
            self.failed = Cancelled("the turn was cancelled: the context is unchanged")
        else:
            self._ending = mode

    def fail(self, error: SsmprovError) -> None:
        """End the turn with an error; the old context stays."""
        if self.failed is None:
            self.failed = error

    # -- the end

    def snapshot(self, arrays: Mapping[str, NDArray[np.generic]], parent: str) -> Snapshot:
        """The context after the turn; `arrays` is its state as the runtime saved it."""
        window = np.array(self._window, np.int32)
        logits = None if self._logits is None else self._logits.copy()
        return Snapshot(
            arrays=arrays,
            logits=logits,
            window=window,
            tokens=self._position,
            seed=self.seed,
            parent=parent,
            exact=self._start.exact,
        )

    def text(self) -> Read:
        """What the turn read. Raises AssertionError if tokens and text disagree. Such a turn is not committed."""
        text = self._prompt.bytes + bytes(self.reply)
        spelt = b"".join(map(self._vocabulary.piece, self.tokens))
        if spelt != text:
            raise AssertionError("the tokens read do not spell the text of the turn")
        return Read(np.array(self.tokens, np.int32), text)

    @property
    def prompt_tokens(self) -> int:
        return len(self._prompt.tokens)

    @property
    def showable(self) -> int:
        """How many bytes of the reply are whole characters, up to the token in which a stop may begin."""
        if self._mark is not None:
            return self._mark.reply
        return len(self.reply) - len(self._shown.getstate()[0])

    # -- stops

    def _before(self, replay: Sequence[int]) -> bytes:
        """The end of the text before the reply, as far as it is known; the length of a fence is enough."""
        last = [*self._window, *replay][-len(FENCE) :]
        return (b"".join(map(self._vocabulary.piece, last)) + self._prompt.bytes)[-len(FENCE) :]

    def _match(self, shown: bytes) -> Match | None:
        """Where a stop begins, or may begin, if a piece continues the reply. None if a fence closes it before that."""
        if self._stop is None:
            return None
        match = self._stop.look(self.reply, shown, None if self._mark is None else self._mark.at)
        if match is None or fence.closed(self.reply, shown[: max(0, match.at - len(self.reply))]) is not None:
            return None
        return match

    def _hold(self, match: Match | None) -> None:
        """Keep the state before the next token if a match may begin in it; forget the mark of one that did not come."""
        if match is None:
            self._mark = None
        elif self._mark is None or self._mark.at != match.at:
            self._mark = self._here(match)

    def _here(self, match: Match) -> _Mark:
        return _Mark(
            at=match.at,
            queue=len(self._queue),
            tokens=len(self.tokens),
            reply=len(self.reply),
            chars=self._chars,
            sampled=self.sampled,
            position=self._position,
            window=list(self._window),
            logits=self._logits,
            withheld=self._withheld,
        )

    def _end_before(self, match: Match, shown: bytes) -> None:
        """End the reply where a match begins: go back to before the token it is in, and read the rest of that anew."""
        assert self._stop is not None
        mark = self._mark if self._mark is not None and self._mark.at == match.at else self._here(match)
        kept = bytes(self.reply[mark.reply :] + shown)[: match.at - mark.reply]
        self._go_back(mark)
        self._chars += len(kept.decode())
        if self._chars > self._limits.chars:
            self._finish("limit")  # the token would pass the limit even without what is cut off
            return
        self.sampled += bool(kept)
        if self._withheld:
            self._read_space()
        close = fence.closing(self.reply + kept)
        fits = self._chars + len(close) <= self._limits.chars
        self._force(kept + close if fits else kept, "")
        self._finish(self._stop.reason if fits else "limit")

    def _go_back(self, mark: _Mark) -> None:
        del self._queue[mark.queue :], self._shows[mark.queue :]
        del self.tokens[mark.tokens :], self.reply[mark.reply :]
        self._at = mark.queue
        self._chars, self.sampled = mark.chars, mark.sampled
        self._position, self._window, self._logits = mark.position, list(mark.window), mark.logits
        self._withheld, self._healing = mark.withheld, False
        self._decoder.reset()
        self._shown.reset()
        self._mark, self._back = None, mark.arrays

    # -- details

    @property
    def _open(self) -> bool:
        return bool(self._decoder.getstate()[0])

    @property
    def _due(self) -> bool:
        """Whether the turn ends as soon as no character is open."""
        return bool(self._ending) or (self._most is not None and self.sampled >= self._most)

    def _count(self, shown: bytes) -> int | None:
        """How many characters a piece completes or opens; None if it would make the text invalid.

        An open character counts when it is opened, so completing it never passes a limit.
        """
        return characters(self._decoder.getstate()[0], shown)

    def _refuse(self, token: int) -> None:
        self._banned.append(token)
        self._retry += 1
        if self._retry == PATIENCE:  # instead of one by one, reject all that cannot fit
            self._banned += self._vocabulary.misfits(self._decoder.getstate()[0])

    def _exhausted(self) -> None:
        """Every token was rejected: a rejected one came again."""
        if self._healing:
            self._healing = False
            self._read_space()
        else:
            self.fail(SsmprovError("the model has no token left that continues the text as valid UTF-8"))

    def _read_space(self) -> None:
        self._withheld = False
        self._push_text(b" ", b"")

    def _push(self, token: int, shown: bytes) -> None:
        self._queue.append(token)
        self._shows.append(shown)

    def _push_text(self, text: bytes, shown: bytes) -> None:
        tokens = spell(self._vocabulary, text.decode())
        for token in tokens:
            self._push(token, self._vocabulary.piece(token) if shown else b"")

    def _force(self, text: bytes, stop: str) -> None:
        if text:
            self._push_text(text, text)
        self.stop = stop

    def _finish(self, stop: str) -> None:
        """End the turn; read a withheld space now, and a closing fence if one was asked for. Nothing is held back."""
        self._mark = None
        if self._withheld:
            self._read_space()
        if stop == "cancelled" and self._ending == "close":
            self._force(fence.closing(self.reply), stop)
        self.stop = stop


@contextmanager
def failing(*turns: Turn) -> Iterator[None]:
    """An exception in the body ends these turns, not the worker."""
    try:
        yield
    except SsmprovError as error:
        failure = error
    except Exception as error:
        failure = SsmprovError(f"the model failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
    else:
        return
    for turn in turns:
        turn.fail(failure)
