"""One port's requests: which of them wait, on which context each one runs, and how the live context changes.

The live context has the reserved name `@bridge/PORT`, so it outlives the bridge. The settings belong to this process
and begin as the model's default set. A request with a bang line runs on a separate context, under its SAVE name or a
temporary one. Its result then becomes the port's live context.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import replace

from bridge_tcp import replies
from bridge_tcp.order import Order, Ticket, done
from bridge_tcp.port import Outcome, Port
from bridge_tcp.replies import Refusal, refusing
from ssmprov import commands
from ssmprov.commands import Bang, Command, Slash
from ssmprov.errors import BadRequest, Cancelled, SsmprovError
from ssmprov.probes import Look
from ssmprov.settings import Settings, as_values

log = logging.getLogger(__name__)

BLAMES_THE_BANG = frozenset({"not_found", "bad_request", "wrong_model", "corrupt"})
"""Error codes of a turn that its bang line may have caused."""


class Session:
    """The state of one port. It answers the requests."""

    def __init__(self, port: Port) -> None:
        self.order = Order()
        self._port = port
        self._run = secrets.token_hex(4)
        self._settings: Settings | None = None  # None: the model's default set
        self._look = Look()
        # The numbers of the requests that set the live context, the settings and the look.
        self._live_from = self._settings_from = self._look_from = 0
        self._later: set[asyncio.Task[None]] = set()

    def arrive(self, data: bytes) -> tuple[Ticket, Command | Refusal]:
        """Give a request its place in the order of arrival. Call this as soon as the request is complete."""
        try:
            command = commands.parse(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            why = (
                f"the request is not valid UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start}); nothing was "
                "changed"
            )
            return self.order.arrive(waits=False), Refusal(replies.ERROR, why)
        except BadRequest as error:
            return self.order.arrive(waits=False), Refusal(replies.ERROR, error)
        return self.order.arrive(waits=_bang(command) is None), command

    async def answer(self, ticket: Ticket, command: Command | Refusal) -> str:
        """Run a request and return its reply."""
        later: Coroutine[None, None, None] | None = None
        try:
            if isinstance(command, Refusal):
                raise command
            if bang := _bang(command):
                reply, later = await self._with_bang(ticket, bang, command)
                return reply
            await self._turn_comes(ticket)
            return await self._plain(ticket, command)
        except Refusal as refusal:
            return _without_nul(str(refusal))
        except SsmprovError as error:
            return _without_nul(str(Refusal(replies.ERROR, error)))
        finally:
            if later is None:
                self.order.leave(ticket)
            else:
                task = asyncio.create_task(later)
                self._later.add(task)
                task.add_done_callback(self._later.discard)

    async def clean(self) -> int:
        """Remove the temporary names of a killed bridge. Returns their number."""
        return await self._port.clean(self._run)

    # -- without a bang line: on the live context, after all earlier requests

    async def _turn_comes(self, ticket: Ticket) -> None:
        waiting = asyncio.ensure_future(done(self.order.earlier(ticket)))
        if not await ticket.outlasts(waiting):
            waiting.cancel()
            raise Cancelled("the bridge is shutting down and the request had not started; nothing was changed")

    async def _plain(self, ticket: Ticket, command: Command) -> str:
        live = self._port.live
        if command.slash is None:
            reply = await self._port.turn(ticket, command.prompt, live, "", self._values(), live)
            self._live_from = ticket.number
            return reply.text
        outcome = await self._port.command(command.slash, live, self._settings, self._look)
        if outcome.object:
            self._live_from = ticket.number
        self._take_settings(ticket, outcome)
        return outcome.reply

    def _values(self) -> dict[str, float]:
        return {} if self._settings is None else as_values(self._settings)

    def _take_settings(self, ticket: Ticket, outcome: Outcome) -> None:
        if outcome.settings is not None and ticket.number > self._settings_from:
            self._settings, self._settings_from = outcome.settings, ticket.number
        if outcome.look is not None and ticket.number > self._look_from:
            self._look, self._look_from = outcome.look, ticket.number

    # -- with a bang line: on a separate context, at the same time as others

    async def _with_bang(
        self, ticket: Ticket, bang: Bang, command: Command
    ) -> tuple[str, Coroutine[None, None, None] | None]:
        """The reply, and a coroutine that makes its context the live one if that must wait for earlier requests."""
        self._port.check_bang(bang)
        temporary = f"{self._port.live}/{ticket.number}-{self._run}"
        if command.slash is None and command.prompt:
            outcome = await self._bang_turn(ticket, bang, command.prompt, bang.save or temporary)
            temporary = "" if bang.save else temporary
        else:
            outcome = await self._bang_command(bang, command.slash, temporary)
        if self.order.earlier(ticket, only_waiting=True):
            return outcome.reply, self._becomes_live_later(ticket, outcome, temporary)
        await self._becomes_live(ticket, outcome, temporary)
        return outcome.reply, None

    async def _bang_turn(self, ticket: Ticket, bang: Bang, prompt: str, save: str) -> Outcome:
        """Run a turn in the context LOAD with the set SETTINGS. Both calls are sent at once, in this order."""
        port = self._port
        values = {} if bang.settings else self._values()
        turn = asyncio.create_task(port.turn(ticket, prompt, bang.load, bang.settings, values, save))
        found = asyncio.create_task(port.load_set(bang.settings)) if bang.settings else None
        await asyncio.wait([turn, found] if found else [turn])
        bad_set = found.exception() if found else None
        try:
            reply = await turn
        except SsmprovError as error:
            if error.code in BLAMES_THE_BANG:
                await port.check_load(bang.load)
                if bad_set is not None:
                    raise bad_set from error
            label = replies.LOAD if error.code in ("wrong_model", "corrupt") else replies.ERROR
            raise Refusal(label, error) from error
        return Outcome(reply.text, f"#{reply.result.object}", await found if found else None)

    async def _bang_command(self, bang: Bang, slash: Slash | None, temporary: str) -> Outcome:
        """Run a command on the context LOAD with the set SETTINGS, or only load them."""
        port = self._port
        try:
            with refusing(replies.LOAD):
                found = await port.fork(bang.load, temporary)
            settings = await port.load_set(bang.settings) if bang.settings else None
            outcome = Outcome("")
            if slash is not None:
                outcome = await port.command(slash, temporary, settings or self._settings, self._look)
            if bang.save:
                with refusing(replies.SAVE):
                    await port.fork(temporary, bang.save)
        except BaseException:
            await port.forget(temporary)
            raise
        return replace(outcome, object=outcome.object or found, settings=outcome.settings or settings)

    async def _becomes_live(self, ticket: Ticket, outcome: Outcome, temporary: str) -> None:
        """Make its object the live context unless a later request has set it; the same for the settings."""
        port = self._port
        try:
            if ticket.number > self._live_from:
                self._live_from = ticket.number
                await port.fork(outcome.object, port.live)
            self._take_settings(ticket, outcome)
        except SsmprovError as error:
            raise Refusal(
                replies.ERROR, f"the request was done, but its context could not become the live one: {error}"
            ) from error
        finally:
            if temporary:
                await port.forget(temporary)

    async def _becomes_live_later(self, ticket: Ticket, outcome: Outcome, temporary: str) -> None:
        """Wait for the earlier requests that use the live context. Later requests wait for this one."""
        try:
            await done(self.order.earlier(ticket, only_waiting=True))
            await self._becomes_live(ticket, outcome, temporary)
        except Refusal as refusal:
            log.warning("port %d: %s", self._port.number, refusal)
        finally:
            self.order.leave(ticket)


def _bang(command: Command) -> Bang | None:
    """The bang line of a request; None if it has no words."""
    return command.bang if command.bang is not None and command.bang.load else None


def _without_nul(text: str) -> str:
    return text.replace("\0", "")
