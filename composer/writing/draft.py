"""What the compose panel sends: a text with its opening, its divider and the reply it asks for."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from ssmprov.commands import parse_bang
from ssmprov.errors import BadRequest
from ssmprov.names import check_name, parse_ref, split_model
from ssmprov.settings import set_name
from ssmprov.transcript import HALF_FENCE, escape

NOTHING = "There is nothing to send: write something first."


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to send and what the drop-downs put around it. Each part may be ''.

    `opening` (s1) is a role such as "[USER]: ", `divider` (s2) is HALF_FENCE, FENCE or another line of the file, and
    `reply` (s3) is a role such as "[INTERFACE]: ". `compose` adds the turn numbers. `bang` is the bang line as typed.
    """

    text: str
    _: KW_ONLY
    bang: str = ""
    opening: str = ""
    divider: str = ""
    reply: str = ""

    @property
    def slash(self) -> bool:
        """Whether this is a slash command. It ignores the drop-downs and is not recorded."""
        return self.text.startswith("/")

    @property
    def empty(self) -> bool:
        """Whether there is no text to send, and nothing that may be sent without one."""
        return not self.text.removesuffix("\n") and bool(self.opening or not (self.divider or self.reply))

    @property
    def asks(self) -> bool:
        """Whether this asks the model for a reply. A half step only gets the rest of its fence back."""
        return not self.slash and not self.compose(0)[0].endswith(HALF_FENCE)

    def compose(self, number: int) -> tuple[str, int]:
        """The text as it is sent, and the highest turn number in it (number - 1 if it contains none).

        Without an opening the text is sent as it is and the reply gets `number` itself. One newline at the end of the
        text is dropped, as PIPE does.
        """
        text = self.text.removesuffix("\n")
        if self.slash:
            return text, number - 1
        last = number - 1
        if self.opening:
            last += 1
            text = f"(Turn {last}) {self.opening}{escape(text)}"
        text += self.divider
        if self.reply:
            last += 1
            text += f"(Turn {last}) {self.reply}"
        return text, last

    def problem(self) -> str:
        """Why this cannot be sent and what to do about it; '' if it can be sent."""
        if self.empty:
            return NOTHING
        for what, text in (
            ("text", self.text),
            ("bang line", self.bang),
            ("list entries", self.opening + self.divider + self.reply),
        ):
            if found := unsendable(text):
                line, why = found
                return f"The {what} cannot be sent: line {line} contains {why}. Remove it."
        if problem := _bang_problem(self.bang):
            return problem
        if self.slash or not self.reply:
            return ""
        if self.divider.endswith(HALF_FENCE):
            return "A half step has no reply: choose (none) under Reply, or full step under Then."
        before = self.compose(0)[0].removesuffix(self.reply).rpartition("(Turn ")[0]
        if before and not before.endswith("\n"):
            return "The reply's header must start a new line: choose full step under Then, or (none) under Reply."
        return ""


def unsendable(text: str) -> tuple[int, str] | None:
    """The first line that neither a model nor a transcript accepts, and what it contains; None for a good text."""
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line:
            return number, "the character U+0000"
        if any("\ud800" <= character <= "\udfff" for character in line):
            return number, "half a character (a lone surrogate)"
    return None


def _bang_problem(line: str) -> str:
    if not line.strip():
        return ""
    if "\n" in line or "\r" in line:
        return "The bang line must be a single line: remove the line breaks."
    try:
        bang = parse_bang(line)
        if bang.load:
            parse_ref(split_model(bang.load)[1])
        if bang.settings:
            set_name(bang.settings)
        if bang.save:
            check_name(split_model(bang.save)[1])
    except BadRequest as error:
        return f"The bang line is not valid: {error.message}."
    return ""
