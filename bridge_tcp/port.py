"""A port's calls to the broker: turns, loading and saving of contexts and sampling sets, and slash commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from bridge_tcp import replies
from bridge_tcp.order import Ticket
from bridge_tcp.replies import refusing
from clients import probe_view
from clients.aio import AsyncClient
from clients.requests import Reply
from ssmprov import answers, wire
from ssmprov.commands import HELP, KNOBS, LOOKS, PROBE, STORES, Bang, Slash
from ssmprov.errors import BadRequest, NotFound, SsmprovError
from ssmprov.names import check_name, parse_ref, split_model
from ssmprov.probes import Look
from ssmprov.settings import Settings, apply, as_values, parse_value, set_name

PAGE = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request: its reply, the new object (`#` and hash) of its context, and its settings.

    '' and None mean no change. `look` says how later probes read.
    """

    reply: str
    object: str = ""
    settings: Settings | None = None
    look: Look | None = None


class Port:
    """One port's calls to the broker, all for one model. They raise SsmprovError, or Refusal with a label."""

    def __init__(self, client: AsyncClient, model: str, number: int, turn_s: float) -> None:
        self.client = client
        self.model = model
        self.number = number
        self.live = f"@bridge/{number}"
        self._turn_s = turn_s

    async def turn(
        self, ticket: Ticket, prompt: str, context: str, settings: str, values: Mapping[str, float], save: str
    ) -> Reply:
        """Run a turn. End it early if its ticket says so."""
        request_id = wire.new_id()
        turn = asyncio.create_task(
            self.client.turn(
                prompt,
                model=self.model,
                context=context,
                save=save,
                create=context == self.live,
                settings=settings,
                values=values,
                headers=True,  # the old runner let the model write them
                ttl_s=self._turn_s,
                request_id=request_id,
            )
        )
        if not await ticket.outlasts(turn):
            self.client.cancel(request_id, ticket.end_early.result())
        return await turn

    async def fork(self, source: str, target: str) -> str:
        """Give a context another name, even if the name is taken. Returns the object as a reference."""
        result = await self.client.fork(source, [target], model=self.model, overwrite=True, ttl_s=self._turn_s)
        return f"#{result.object}"

    async def check_load(self, name: str) -> None:
        """Raises Refusal if the context cannot be loaded."""
        with refusing(replies.LOAD):
            await self.client.show(name, model=self.model)

    async def load_set(self, name: str) -> Settings:
        """Load a sampling set; '' is the model's default."""
        with refusing(replies.LOAD_SET):
            shown = await self.client.settings_show(set_name(name) if name else "", model=self.model)
            return apply(Settings(), shown.values)

    async def forget(self, name: str) -> None:
        """Remove a temporary name. If that fails, the next start of the bridge removes it."""
        with contextlib.suppress(SsmprovError):
            await self.client.rm([name], model=self.model)

    async def clean(self, keep: str) -> int:
        """Remove the temporary names of earlier bridges, which do not end in `keep`. Returns their number."""
        left: list[str] = []
        after, more = "", True
        while more:
            page = await self.client.ls(f"{self.live}/", model=self.model, after=after, limit=PAGE, reserved=True)
            left += [row.name for row in page.rows if not row.name.endswith(keep)]
            more = page.more and bool(page.rows)
            after = page.rows[-1].name if page.rows else ""
        for start in range(0, len(left), PAGE):
            await self.client.rm(left[start : start + PAGE], model=self.model)
        return len(left)

    def check_bang(self, bang: Bang) -> None:
        """Raises Refusal for the first word that is not valid."""
        with refusing(replies.LOAD):
            self._check_ref(bang.load)
        with refusing(replies.LOAD_SET):
            if bang.settings:
                set_name(bang.settings)
        with refusing(replies.SAVE):
            if bang.save:
                check_name(bang.save)

    def _check_ref(self, text: str) -> None:
        model, ref = split_model(text)
        if model not in ("", self.model):
            raise BadRequest(f"{text} is a context of {model}, but this port serves {self.model}")
        parse_ref(ref)

    # -- slash commands

    async def command(self, slash: Slash, context: str, settings: Settings | None, look: Look) -> Outcome:
        """Run a slash command on a context with these settings (None: the model's default)."""
        if slash.word in STORES:
            return await self._store(slash.word, slash.argument or STORES[slash.word], context, settings)
        if slash.word in KNOBS and slash.argument:
            return Outcome("", settings=await self._turned(slash, settings))
        if slash.word in KNOBS:
            return Outcome(answers.value(slash.word, await self._known(settings)))
        if slash.word == PROBE:
            with refusing(replies.PROBE):
                return Outcome(await self._probe(slash.argument, context, look))
        if slash.word in LOOKS:
            with refusing(replies.LOOK[slash.word]):
                return await self._look(slash, look)
        if slash.word == HELP:
            return Outcome(answers.help_text(self._head, "the live context", await self._known(settings), look))
        return Outcome("")

    @property
    def _head(self) -> list[str]:
        return [
            f"# {self.model} on port {self.number}",
            "",
            "Send text and a NUL byte: the port's live context reads the text, and the reply is what the model writes.",
            "",
            "## Optional first line",
            "- `!LOAD [SETTINGS [SAVE]]`: use the context LOAD and the sampling set SETTINGS, and save as SAVE.",
        ]

    async def _known(self, settings: Settings | None) -> Settings:
        return await self.load_set("") if settings is None else settings

    async def _turned(self, slash: Slash, settings: Settings | None) -> Settings | None:
        """The settings with one value changed. None for a bad value, which changes nothing."""
        key, _ = KNOBS[slash.word]
        try:
            number = parse_value(key, slash.argument)
        except BadRequest:
            return None
        return apply(await self._known(settings), {key: number})

    async def _probe(self, text: str, context: str, look: Look) -> str:
        seen = await self.client.probe(
            text, context, model=self.model, look=look, or_empty=context == self.live, ttl_s=self._turn_s
        )
        return "\n".join(probe_view.lines(seen, look)) + "\n"

    async def _look(self, slash: Slash, look: Look) -> Outcome:
        """Show or set how probes read. A probe of one letter checks whether the model supports the setting."""
        chosen = look.turned(slash.word, slash.argument) if slash.argument else look
        await self.client.probe("a", model=self.model, look=chosen, ttl_s=self._turn_s)
        return Outcome("", look=chosen) if slash.argument else Outcome(look.shown(slash.word))

    async def _store(self, word: str, name: str, context: str, settings: Settings | None) -> Outcome:
        if word == "/save":
            return Outcome(answers.saved(name, await self._save(context, name)))
        if word == "/load":
            with refusing(replies.LOAD):
                self._check_ref(name)
                return Outcome(answers.loaded(name), object=await self.fork(name, context))
        if word == "/load_set":
            found = await self.load_set(name)
            return Outcome(answers.loaded(name, "set "), settings=found)
        with refusing(replies.SAVE_SET):
            values = as_values(await self._known(settings))
            written = await self.client.settings_set(set_name(name), values, model=self.model)
            return Outcome(answers.saved(name, written.bytes, "set "))

    async def _save(self, context: str, name: str) -> int:
        """Save a context under a name; the bytes of its object."""
        with refusing(replies.SAVE):
            check_name(name)
            try:
                found = await self.fork(context, name)
            except NotFound as error:
                if context != self.live or error.details.get("name") != self.live:
                    raise
                empty = await self.client.turn("", model=self.model, save=name, max_tokens=0, ttl_s=self._turn_s)
                found = f"#{empty.result.object}"
            return (await self.client.show(found, model=self.model)).row.bytes
