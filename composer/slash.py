"""Slash commands, and other small requests of the panels to the broker."""

from __future__ import annotations

from PyQt6.QtCore import QObject, pyqtSignal

from clients import Seen, probe_view
from composer.conductor import Conductor
from composer.link import Job
from composer.moves import Moves
from composer.panels.sampling_panel import SamplingPanel
from composer.watching import Watcher
from composer.writing.draft import Draft
from ssmprov.commands import DEFAULT_CONTEXT, DEFAULT_SET, HELP, KNOBS, LOOKS, PROBE, Slash, parse_slash
from ssmprov.errors import BadRequest, SsmprovError
from ssmprov.names import check_name
from ssmprov.probes import Look, check_text
from ssmprov.settings import parse_value, set_name
from transcripts.own import Ready, save

HELP_TEXT = (
    "/save NAME saves the context, and /load NAME continues with a copy of another one and its transcript. "
    "/t /p /k /min_p /pen_freq /pen_pres /pen_rep /max N change the sampling settings. /save_set NAME and /load_set "
    "NAME save and load a sampling set. /probe TEXT shows how a model with addressed slots would read TEXT. /routing "
    "and /slotmask set how probes read the slots."
)


class Slashes(QObject):
    """Runs commands and shows their results. The transcript does not record them."""

    probed = pyqtSignal(str)  # what a probe saw, in several lines

    def __init__(
        self, conductor: Conductor, moves: Moves, watcher: Watcher, sampling: SamplingPanel, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._conductor = conductor
        self._moves = moves
        self._watcher = watcher
        self._sampling = sampling
        self._look = Look()

    def run(self, draft: Draft) -> None:
        """Run the command in a draft that begins with a slash."""
        command = parse_slash(draft.text)
        assert command is not None, "the draft begins with a slash"
        try:
            self._run(command, draft)
        except SsmprovError as error:
            self._conductor.trouble.emit(error)

    def _run(self, command: Slash, draft: Draft) -> None:
        if not command.known:
            raise BadRequest(
                f"there is no command {command.word[:60]}: /? lists all commands. To send this as text, put a space "
                "before the slash"
            )
        if draft.bang:
            raise BadRequest("commands use the current context: clear the bang line first")
        if command.word == HELP:
            self._tell(HELP_TEXT)
        elif command.word in KNOBS:
            key, _ = KNOBS[command.word]
            if not command.argument:
                self._tell(f"{key} = {self._sampling.values().get(key, 0):g}")
                return
            value = parse_value(key, command.argument)
            self._sampling.override(key, value)
            self._tell(f"{key} = {value:g}")
        elif command.word == PROBE:
            self._probe(command.argument)
        elif command.word in LOOKS:
            self._take_look(command)
        elif command.word == "/save_set":
            self.save_set(set_name(command.argument or DEFAULT_SET), self._sampling.values())
        elif command.word == "/load_set":
            self._load_set(set_name(command.argument or DEFAULT_SET))
        elif command.word == "/save":
            self._save(check_name(command.argument or DEFAULT_CONTEXT))
        else:
            name = command.argument or DEFAULT_CONTEXT
            self._moves.load(name, lambda: self._tell(f"Loaded the context {name}."))

    def _tell(self, text: str) -> None:
        self._conductor.accepted.emit()
        self._conductor.hint.emit(text)

    # -- probes

    def _probe(self, text: str) -> None:
        """Show how the model would read a text after the context. The context does not change."""
        check_text(len(text.encode()))
        wishes, look = self._conductor.wishes, self._look
        model, context = wishes.model, wishes.context

        def done(seen: Seen) -> None:
            self._conductor.accepted.emit()
            self.probed.emit("\n".join(probe_view.lines(seen, look)))

        self._conductor.link.run(
            lambda job: job.client.probe(text, context, model=model, look=look, or_empty=True),
            done,
            self._conductor.trouble.emit,
        )

    def _take_look(self, command: Slash) -> None:
        """Show or set how probes read. A probe of one letter checks whether the model supports the setting."""
        chosen = self._look.turned(command.word, command.argument) if command.argument else self._look
        model = self._conductor.wishes.model

        def done(_: object) -> None:
            self._look = chosen
            self._tell(chosen.shown(command.word))

        self._conductor.link.run(
            lambda job: job.client.probe("a", model=model, look=chosen), done, self._conductor.trouble.emit
        )

    # -- contexts

    def _save(self, name: str) -> None:
        """Give the context this name too. What the name meant before stays as a branch unless it led here."""
        here = self._conductor.branches()

        def work(job: Job) -> None:
            here.keep_overwritten(name)
            save(job.client, Ready(own=here.own, head=here.head()), name)

        self._conductor.act(work, lambda _: self._tell(f"Saved the context as {name}."))

    def unname(self, name: str) -> None:
        """Remove a name. The checkpoint stays while another name leads to it."""
        model = self._conductor.wishes.model
        self._conductor.act(
            lambda job: job.client.rm([name], model=model),
            lambda _: self._conductor.hint.emit(f"Removed the name {name}."),
        )

    def move(self, name: str, worker: str) -> None:
        """Pin a context to one worker, or to none ('')."""
        model = self._conductor.wishes.model
        told = f"{name} now runs on {worker}." if worker else f"{name} can now run on any worker."
        self._conductor.act(
            lambda job: job.client.move(name, worker, model=model), lambda _: self._conductor.hint.emit(told)
        )

    # -- sampling sets

    def save_set(self, name: str, values: dict[str, float]) -> None:
        model = self._conductor.wishes.model

        def done(_: object) -> None:
            self._tell(f"Saved the sampling set {name}.")
            self._sampling.choose_set(name)
            self._sampling.changed.emit()
            self._watcher.look_at_sets(name)

        self._conductor.link.run(
            lambda job: job.client.settings_set(name, values, model=model), done, self._conductor.trouble.emit
        )

    def _load_set(self, name: str) -> None:
        model = self._conductor.wishes.model

        def done(_: object) -> None:
            self._tell(f"Loaded the sampling set {name}.")
            self._sampling.choose_set(name)
            self._sampling.changed.emit()
            self._watcher.look_at_sets(name)

        self._conductor.link.run(
            lambda job: job.client.settings_show(name, model=model), done, self._conductor.trouble.emit
        )
