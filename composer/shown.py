"""The context that the window shows, and its branches: what an action works on, however long it waits."""

from __future__ import annotations

from clients import Client
from ssmprov.errors import BadRequest, Conflict
from ssmprov.names import split_model
from transcripts.branches import Branches, Change, Scene
from transcripts.own import Own, check_served, claim, difference, fresh_name, go_to, own_of
from transcripts.record import Record, Writer


class Shown(Branches):
    """`named` is the directory's context at the time when the window showed this one.

    The two differ if another context was chosen and nothing has been written with it yet.
    """

    def __init__(self, record: Record, client: Client, own: Own, named: Own | None, origin: str = "") -> None:
        super().__init__(record, client, own.model, own.name, origin)
        self.own = own
        self.named = named

    def take(self, writer: Writer) -> None:
        """Prepare to write, while holding the lock. Raises Conflict if the directory has got another context since."""
        now = own_of(self.record)
        if now not in (self.named, self.own):
            what = f"continues {now}" if now else "has no context"
            raise Conflict(f"this directory now {what}, and not {self.own} as shown: look at it and try again")
        if self.origin:
            self.begin()
            claim(writer, self.record, self.own)

    def scene(self) -> Scene:
        """Raises Unavailable if the model is not served: nothing is known about the context then."""
        check_served(self.client, self.own)
        return super().scene()

    def agreed(self, shown: str | None = None) -> Scene:
        """Read both now. Raises Conflict, with what can be done, if they differ.

        With `shown`, raises BadRequest if that is not the transcript: an action must not hit the wrong turn.
        """
        scene = self.scene()
        if shown is not None:
            check_shown(shown, scene.transcript)
        if (problem := self.problem(scene)) is not None:
            raise problem
        return scene

    def problem(self, scene: Scene) -> Conflict | None:
        """The error for a transcript that is not what the context has read."""
        if scene.agrees:
            return None
        return difference(self.own, scene.transcript, scene.meeting, len(scene.text) if scene.head else None)

    def copying(self, ref: str) -> Shown:
        """The context to continue with a copy of another one: this one, or a new one if `ref` names another model."""
        model = split_model(ref)[0] or self.model
        if model == self.model:
            return self
        return Shown(self.record, self.client, Own(model, fresh_name(self.record)), self.named)

    def load(self, writer: Writer, ref: str) -> Change:
        """Continue with a copy of another context of this model, and take its transcript along."""
        return go_to(writer, self, self.client.show(ref, model=self.model).row.object)

    def keep_overwritten(self, name: str) -> None:
        """Keep as a branch what another name means now, unless this context continues it."""
        model, name = split_model(name)
        if model not in ("", self.model):
            raise BadRequest(f"{self.own} cannot be saved as a context of {model}: leave out `{model}:`")
        other = Branches(self.record, self.client, self.model, name)
        former = other.head()
        if former and not self.leads(former, self.head()):
            other.keep(former, other.text(former))


def check_shown(shown: str, transcript: bytes) -> None:
    """Raises BadRequest if the transcript is not what the window shows."""
    if transcript != shown.encode("utf-8", "surrogateescape"):
        raise BadRequest("the transcript has changed since it was shown: look at it and choose again")
