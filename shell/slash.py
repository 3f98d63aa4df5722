"""The slash commands of PIPE. They work with the context, the sampling settings and the probes of the directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from clients import probe_view
from shell import old_protocol
from shell.chosen import Chosen, choose, chosen_of, settings_here
from shell.options import connect, new_names, usual_model
from shell.terminal import notice
from shell.turns import TurnRequest
from ssmprov import answers
from ssmprov.commands import HELP, KNOBS, LOOKS, PROBE, STORES, Slash, parse_slash
from ssmprov.errors import BadRequest
from ssmprov.settings import Settings, apply, as_values, parse_value, set_name
from transcripts.own import Ready, load, own_of, ready, save
from transcripts.record import Record, Writer
from transcripts.recorded import bang_line, take_up

if TYPE_CHECKING:
    from clients.blocking import Client


def slash(record: Record, request: TurnRequest, text: str) -> str | None:
    """The answer to a slash command, or None if the text is not one."""
    command = parse_slash(text)
    if command is None or not text.startswith("/"):
        return None
    if request.port is not None:
        return old_protocol.ask(
            request.port, bang_line(request.bang) + text, request.connect_timeout, request.recv_timeout
        )
    if not command.known:
        raise BadRequest(
            f"a text that begins with / is a command, and {command.word[:60]} does not exist: to send it as text, "
            "put a space before it"
        )
    if request.bang or request.context or request.save:
        raise BadRequest(
            f"{command.word} works with the context of this directory: leave out --load, --save and --bang"
        )
    with record.locked(lambda: notice("waiting for another turn of this transcript to finish")) as writer:
        take_up(writer, connect, notice)
        with connect() as client:
            answer = _Directory(writer, record, client, request).run(command)
    return answer if not answer or answer.endswith("\n") else answer + "\n"


def with_chosen(record: Record, request: TurnRequest) -> TurnRequest:
    """The same turn with the settings that were chosen here. A sampling set and values that it names override them."""
    if request.port is not None or request.with_bang.settings:
        return request
    chosen = tuple(f"{key}={value}" for key, value in chosen_of(record).values.items())
    return replace(request, pairs=(*chosen, *request.pairs))


@dataclass(frozen=True, slots=True)
class _Directory:
    """Runs commands while the directory's lock is held."""

    writer: Writer
    record: Record
    client: Client
    request: TurnRequest

    def run(self, command: Slash) -> str:
        chosen = chosen_of(self.record)
        if command.word in STORES:
            return self._store(command.word, command.argument or STORES[command.word], chosen)
        if command.word in KNOBS:
            return self._turn(command, chosen)
        if command.word == PROBE:
            own = self._ready().own
            seen = self.client.probe(command.argument, own.name, model=own.model, look=chosen.look, or_empty=True)
            return "\n".join(probe_view.lines(seen, chosen.look))
        if command.word in LOOKS:
            return self._look(command, chosen)
        assert command.word == HELP, "the command is known"
        return self._help(chosen)

    def _named_model(self, *names: str) -> str:
        """The model that the user names; '' in a directory that has a context."""
        return self.request.model or ("" if own_of(self.record) else usual_model(*names))

    def _model(self) -> str:
        own = own_of(self.record)
        return own.model if own else self._named_model() or self.client.default_model()

    def _ready(self) -> Ready:
        return ready(self.writer, self.record, self.client, model=self._named_model())

    def _settings(self, chosen: Chosen) -> Settings:
        return settings_here(self.client.settings_show(model=self._model()).values, chosen)

    def _turn(self, command: Slash, chosen: Chosen) -> str:
        """Show or change one sampling value."""
        if not command.argument:
            return answers.value(command.word, self._settings(chosen))
        key, _ = KNOBS[command.word]
        values = chosen.values | {key: parse_value(key, command.argument)}
        choose(self.record, msgspec.structs.replace(chosen, values=values))
        return ""

    def _look(self, command: Slash, chosen: Chosen) -> str:
        """Show or set how probes read. A probe of one letter checks whether the model supports the setting."""
        look = chosen.look.turned(command.word, command.argument) if command.argument else chosen.look
        self.client.probe("a", model=self._model(), look=look)
        if not command.argument:
            return look.shown(command.word)
        choose(self.record, msgspec.structs.replace(chosen, look=look))
        return ""

    def _store(self, word: str, name: str, chosen: Chosen) -> str:
        if word == "/load":
            load(self.writer, self.record, self.client, name, model=self._named_model(name))
            return answers.loaded(name)
        if word == "/save":
            new_names(name)
            found = self._ready()
            save(self.client, found, name)
            return answers.saved(name, self.client.show(name, model=found.own.model).row.bytes)
        model = self._model()
        if word == "/load_set":
            values = self.client.settings_show(set_name(name), model=model).values
            choose(self.record, msgspec.structs.replace(chosen, values=as_values(apply(Settings(), values))))
            return answers.loaded(name, "set ")
        written = self.client.settings_set(set_name(name), as_values(self._settings(chosen)), model=model)
        return answers.saved(name, written.bytes, "set ")

    def _help(self, chosen: Chosen) -> str:
        own = own_of(self.record)
        head = [
            f"# {own or self._model()} in {self.record.directory}",
            "",
            "What you send to PIPE is read by the context of this directory, and recorded in its transcript. The",
            "settings hold for the next turns here; --settings, --set and a bang line override them.",
        ]
        return answers.help_text(head, "the context of this directory", self._settings(chosen), chosen.look)
