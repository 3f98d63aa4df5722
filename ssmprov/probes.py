"""How later probes read slots: what `/routing` and `/slotmask` set, and how people write both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssmprov.errors import BadRequest
from ssmprov.ops import MASK_WHERES, MAX_PROBE_TEXT, MAX_SLOT, ROUTINGS

OFF = "off"
TOPK = 2


@dataclass(frozen=True, slots=True)
class Look:
    """The routing, how many slots `topk` keeps, which slots are left out, and `where` they are left out."""

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
        """The answer of `/routing` and `/slotmask` without a value."""
        return f"routing = {self.routing_text}" if word == "/routing" else f"slotmask = {self.masked_text}"

    def turned(self, word: str, text: str) -> Look:
        """The look after `/routing` or `/slotmask` with a value. Raises BadRequest."""
        return self.with_routing(text) if word == "/routing" else self.with_masked(text)

    def with_routing(self, text: str) -> Look:
        """The same look with another routing: `softmax`, `top1`, `topk N` or `topk:N`. Raises BadRequest."""
        word, *rest = text.lower().replace(":", " ").split() or [""]
        if word not in ROUTINGS:
            raise BadRequest(f"unknown routing {word[:60]!r}: use softmax, top1 or topk N")
        if word != "topk":
            if rest:
                raise BadRequest(f"{word} takes no number: write only {word}, or topk N")
            return replace(self, routing=word, topk=TOPK)
        if len(rest) > 1 or (rest and not _is_number(rest[0], 1, MAX_SLOT + 1)):
            raise BadRequest(
                f"topk needs one number from 1 to {MAX_SLOT + 1}, the number of slots to keep, such as topk 4"
            )
        return replace(self, routing=word, topk=int(rest[0]) if rest else TOPK)

    def with_masked(self, text: str) -> Look:
        """The same look without some slots: numbers from 0 with blanks or commas, or `off`. Raises BadRequest."""
        words = text.lower().replace(",", " ").split()
        if words == [OFF]:
            return replace(self, masked=())
        for word in words:
            if not _is_number(word, 0, MAX_SLOT):
                raise BadRequest(f"{word[:60]!r} is not a slot: write slot numbers from 0, such as 0 3 5, or off")
        if not words:
            raise BadRequest("write the numbers of the slots from 0, such as 0 3 5, or off")
        return replace(self, masked=tuple(sorted(set(map(int, words)))))

    def with_where(self, word: str) -> Look:
        """The same look, with masked slots left out in another place. Raises BadRequest."""
        if word not in MASK_WHERES:
            raise BadRequest(f"slots cannot be left out at {word[:60]!r}: use one of {', '.join(MASK_WHERES)}")
        return replace(self, where=word)


def check_text(size: int) -> None:
    """Raises BadRequest if a probe's text of `size` bytes is empty or too long."""
    if not size:
        raise BadRequest("a probe needs a text of at least one character")
    if size > MAX_PROBE_TEXT:
        raise BadRequest(f"the text of a probe has {size} bytes: at most {MAX_PROBE_TEXT} are allowed")


def _is_number(word: str, low: int, high: int) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10 and low <= int(word) <= high
