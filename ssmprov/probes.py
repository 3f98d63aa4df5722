"""How the probes that follow are to read slots: what `/routing` and `/slotmask` set, and how both are written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssmprov.errors import BadRequest
from ssmprov.ops import MASK_WHERES, MAX_PROBE_TEXT, MAX_SLOT, ROUTINGS

OFF = "off"
TOPK = 2


@dataclass(frozen=True, slots=True)
class Look:
    """Routing, with the number of slots that `topk` keeps, and which slots take no part in what `where` says."""

    routing: str = "softmax"
    topk: int = TOPK
    masked: tuple[int, ...] = ()
    where: str = "read"

    @property
    def routing_text(self) -> str:
        return f"{self.routing} {self.topk}" if self.routing == "topk" else self.routing

    @property
    def masked_text(self) -> str:
        return " ".join(map(str, self.masked)) or OFF

    def shown(self, word: str) -> str:
        """What `/routing` and `/slotmask` say without a value."""
        return f"routing = {self.routing_text}" if word == "/routing" else f"slotmask = {self.masked_text}"

    def turned(self, word: str, text: str) -> Look:
        """What `/routing` and `/slotmask` make of it. Raises BadRequest."""
        return self.with_routing(text) if word == "/routing" else self.with_masked(text)

    def with_routing(self, text: str) -> Look:
        """Another routing: `softmax`, `top1`, `topk N` or `topk:N`. Raises BadRequest."""
        word, *rest = text.lower().replace(":", " ").split() or [""]
        if word not in ROUTINGS:
            raise BadRequest(f"there is no routing {word[:60]!r}: write softmax, top1 or topk N")
        if word != "topk":
            if rest:
                raise BadRequest(f"{word} takes no number: write it alone, or topk N")
            return replace(self, routing=word, topk=TOPK)
        if len(rest) > 1 or (rest and not _is_number(rest[0], 1, MAX_SLOT + 1)):
            raise BadRequest(f"topk takes one number from 1 to {MAX_SLOT + 1}, the slots to keep: topk 4")
        return replace(self, routing=word, topk=int(rest[0]) if rest else TOPK)

    def with_masked(self, text: str) -> Look:
        """Other slots left out: numbers from 0, with blanks or commas between them, or `off`. Raises BadRequest."""
        words = text.lower().replace(",", " ").split()
        if words == [OFF]:
            return replace(self, masked=())
        for word in words:
            if not _is_number(word, 0, MAX_SLOT):
                raise BadRequest(f"{word[:60]!r} is no slot: write their numbers from 0, such as 0 3 5, or off")
        if not words:
            raise BadRequest("name the slots by their numbers from 0, such as 0 3 5, or write off")
        return replace(self, masked=tuple(sorted(set(map(int, words)))))

    def with_where(self, word: str) -> Look:
        """Another place where masked slots are left out. Raises BadRequest."""
        if word not in MASK_WHERES:
            raise BadRequest(f"slots are left out at {', '.join(MASK_WHERES)}, not at {word[:60]!r}")
        return replace(self, where=word)


def check_text(size: int) -> None:
    """Raises BadRequest for a probe's text of so many bytes that is none, or too long."""
    if not size:
        raise BadRequest("a probe needs a text to read: one character at least")
    if size > MAX_PROBE_TEXT:
        raise BadRequest(f"a probe's text of {size} bytes: at most {MAX_PROBE_TEXT} are read")


def _is_number(word: str, low: int, high: int) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10 and low <= int(word) <= high
