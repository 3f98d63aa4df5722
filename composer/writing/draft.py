"""What the compose panel sends: a text with its opening, its divider and the reply that it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from ssmprov.commands import parse_bang
from ssmprov.errors import BadRequest
from ssmprov.names import check_name, parse_ref, split_model
from ssmprov.settings import set_name
from ssmprov.transcript import HALF_FENCE, escape

NOTHING = "There is nothing to send: write something first."


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to send, and what the drop-downs put around it; each of them may be ''.

    `opening` (s1) is such as "[USER]: ", `divider` (s2) HALF_FENCE, FENCE or what the file says, `reply` (s3) such as
    "[INTERFACE]: "; their turn numbers are put before them. `bang` is the bang line as typed.
    """

    text: str
    bang: str = ""
    opening: str = ""
    divider: str = ""
    reply: str = ""

    @property
    def slash(self) -> bool:
        """Whether it is a command, for which the drop-downs do not count and nothing is recorded."""
        return self.text.startswith("/")

    @property
    def asks(self) -> bool:
        """Whether the model is to write. The reply to a half step is only the rest of its fence."""
        return not self.slash and not self.compose(0)[0].endswith(HALF_FENCE)

    def compose(self, number: int) -> tuple[str, int]:
        """The text as it is sent, and the highest number that it uses (number - 1 where it has none).

        Without an opening the text goes as it is, and the reply takes `number` itself. One newline at the end of the
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
        """Why this cannot be sent, and what to do; '' where it can."""
        if not self.text.removesuffix("\n") and (self.opening or not (self.divider or self.reply)):
            return NOTHING
        for what, text in (
            ("text", self.text),
            ("bang line", self.bang),
            ("list entries", self.opening + self.divider + self.reply),
        ):
            if found := unsendable(text):
                return f"The {what} cannot be sent: {found}. Take it out."
        if found := _bang_problem(self.bang):
            return found
        if self.slash or not self.reply:
            return ""
        if self.divider.endswith(HALF_FENCE):
            return "A half step has no reply: choose (none) under Reply, or full step under Then."
        before = self.compose(0)[0].removesuffix(self.reply).rpartition("(Turn ")[0]
        if before and not before.endswith("\n"):
            return "The header of the reply has to begin a line: choose full step under Then, or (none) under Reply."
        return ""


def unsendable(text: str) -> str:
    """What in a text neither a model nor a transcript can take, with its line; '' for a good text."""
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line:
            return f"line {number} holds the character U+0000"
        if any("\ud800" <= character <= "\udfff" for character in line):
            return f"line {number} holds half a character (a lone surrogate)"
    return ""


def _bang_problem(line: str) -> str:
    if not line.strip():
        return ""
    if "\n" in line or "\r" in line:
        return "The bang line has to be one line."
    try:
        bang = parse_bang(line)
        if bang.load:
            parse_ref(split_model(bang.load)[1])
        if bang.settings:
            set_name(bang.settings)
        if bang.save:
            check_name(split_model(bang.save)[1])
    except BadRequest as error:
        return f"The bang line is not right: {error.message}."
    return ""
