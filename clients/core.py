"""The client's side of the wire as a pure state machine: no socket and no clock; events in, actions out.

A face (`clients.blocking`, `clients.aio`) feeds it what its socket saw and carries out what it returns:

    connected, disconnected    the socket has a connection, or lost it
    turned_away                the broker rejected the connection
    received                   the frames of one message
    tick                       time has passed
    open, consumed, supply, cancel, forget, close    what its callers want

The frames of `Send` go to the socket in order. `Tell` goes to the caller of one request. After `disconnected`, drop
what was not sent yet: the next connection sends every open request again, with the same id and the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from clients.exchange import Event, Exchange, Gap, Result, TooLong, cancelled
from ssmprov import wire
from ssmprov.errors import BadRequest, Busy, SsmprovError, TimedOut, Unavailable, Unreachable, error_of

SILENCE_S = 1.5
"""If the broker sends nothing for this long while requests are open, the client asks whether it is still there."""

LOST_S = 30.0
"""How long a request that was accepted waits for a lost broker to come back."""

TTL_GRACE_S = 2.0
"""The broker ends a request at its deadline. If it does not, the client ends it this much later."""

MAX_OPEN = 1024
MAX_GAPS = 8
CANCEL_MODES = ("keep", "drop", "close")


@dataclass(frozen=True, slots=True)
class Send:
    """Frames for the socket."""

    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for whoever opened the request `id`. After a `Result` the request is no longer open."""

    id: bytes
    event: Event


Action = Send | Tell


class Core:
    """The open requests of one client, and what it knows of the broker. Times are in monotonic seconds."""

    def __init__(
        self,
        *,
        agent: str = "",
        endpoint: str = "",
        timeout_s: float = 3.0,
        patience_s: float = 10.0,
        process: wire.Process | None = None,
    ) -> None:
        self.client = wire.new_id()
        self.agent = agent[:100]
        self.process = process
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.broker = b""
        self._open: dict[bytes, Exchange] = {}
        self._up = False
        self._lost_at: float | None = 0.0
        self._heard_at = 0.0
        self._probing = False
        self._reason = ""
        self._actions: list[Action] = []

    @property
    def busy(self) -> bool:
        """Whether any request is open, so that `tick` must be called."""
        return bool(self._open)

    # -- what the callers want

    def open(self, request: wire.Request, payloads: list[bytes], kind: str, now: float) -> list[Action]:
        """Open a request. Raises BadRequest if its id is already open, and Busy if too many are open."""
        if request.id in self._open:
            raise BadRequest("a request with this id is already in progress: use a new id for each request")
        if len(self._open) >= MAX_OPEN:
            raise Busy(f"{MAX_OPEN} requests of this client are open: wait until some have ended", retry_ms=100)
        exchange = Exchange(request, payloads, kind, now, now + request.ttl_ms / 1000)
        if not self._open:
            self._heard_at = max(self._heard_at, now)
        self._open[request.id] = exchange
        if self._up:
            self._request(exchange, now)
        return self._take()

    def consumed(self, request_id: bytes, n: int) -> list[Action]:
        """The reader took `n` pieces."""
        if exchange := self._open.get(request_id):
            exchange.window.unread -= n
            self._grant(exchange)
        return self._take()

    def supply(self, request_id: bytes, offset: int, data: bytes, last: bool) -> list[Action]:
        """The answer to a `Want`: at most 1 MiB of the file from byte `offset`."""
        if (exchange := self._open.get(request_id)) and self._up:
            chunk, events = exchange.supplied(offset, data, last)
            if chunk is not None:
                self._send(chunk, [data])
            self._tell(exchange, events)
        return self._take()

    def cancel(self, request_id: bytes, mode: str) -> list[Action]:
        """Ask to end a request early. Its result still arrives. If no broker has it, it ends at once."""
        if mode not in CANCEL_MODES:
            raise BadRequest(f"{mode!r} is not a way to cancel: use keep, drop or close")
        if exchange := self._open.get(request_id):
            exchange.cancel_mode = mode
            if exchange.attempt == 0 or exchange.retry_at is not None:
                self._end(exchange, cancelled("cancelled before it began: nothing was read and nothing has changed"))
            elif self._up:
                self._send(wire.Cancel(request_id, mode))
        return self._take()

    def forget(self, request_id: bytes) -> list[Action]:
        """Cancel a request whose result nobody waits for."""
        actions = self.cancel(request_id, "drop")
        self._open.pop(request_id, None)
        return [action for action in actions if isinstance(action, Send)]

    def close(self) -> list[Action]:
        """Leave. The broker cancels requests that save nothing."""
        for exchange in list(self._open.values()):
            self._end(exchange, cancelled("the client was closed before the answer came"))
        if self._up:
            self._send(wire.Bye("closed", code="leaving"))
        self._up = False
        return self._take()

    # -- what the socket saw

    def connected(self, now: float) -> list[Action]:
        """There is a connection: send HELLO, then send every open request again."""
        self._up = True
        self._lose(now)
        self._greet(now)
        self._resend(now)
        return self._take()

    def disconnected(self, now: float, why: str = "") -> list[Action]:
        """The connection is lost. `why` is the likely cause."""
        self._up = False
        self._reason = why or self._reason
        self._lose(now)
        return self._take()

    def turned_away(self, error: SsmprovError, now: float) -> list[Action]:
        """The broker rejected the connection: no open request will be answered."""
        actions = self.disconnected(now)
        for exchange in list(self._open.values()):
            self._end(exchange, Result(error=error))
        return [*actions, *self._take()]

    def received(self, frames: list[bytes], now: float) -> list[Action]:
        """Handle one message. Ignore it if it is malformed, or if its request is not open."""
        try:
            message, payloads = wire.decode(frames)
        except wire.WireError:
            return []
        self._heard_at = now
        if isinstance(message, wire.Hello):
            self._greeted(message, now)
        elif isinstance(message, wire.Pulse):
            self._send(wire.Pulse())
        elif isinstance(message, wire.Bye):
            self._dismissed(message, now)
        elif exchange := self._open.get(getattr(message, "id", b"")):
            self._answered(exchange, message, payloads, now)
        return self._take()

    def tick(self, now: float) -> list[Action]:
        """Check the times: deadlines, silence, retries. Call `received` first for all messages that have arrived."""
        for exchange in list(self._open.values()):
            self._watch(exchange, now)
        if self._up and self._open and now - self._heard_at >= SILENCE_S:
            self._lose(now)
            self._greet(now)
            self._probing = True
        return self._take()

    # -- the broker

    def _greet(self, now: float) -> None:
        self._heard_at = now
        self._probing = False
        self._send(wire.Hello(self.client, agent=self.agent, process=self.process))

    def _lose(self, now: float) -> None:
        if self._lost_at is None:
            self._lost_at = now

    def _greeted(self, message: wire.Hello, now: float) -> None:
        self._lost_at = None
        self.broker = message.client
        if self._probing:
            self._probing = False
            self._resend(now)

    def _dismissed(self, message: wire.Bye, now: float) -> None:
        """The broker said BYE: it rejects this client, is shutting down, or no longer knows it."""
        self._reason = f"it last said: {message.reason}"
        if message.error is not None:
            for exchange in list(self._open.values()):
                self._end(exchange, Result(error=error_of(message.error)))
        elif self._lost_at is None:
            self._lose(now)
            self._greet(now)
            self._resend(now)

    # -- requests

    def _resend(self, now: float) -> None:
        for exchange in list(self._open.values()):
            if exchange.retry_at is not None:
                continue
            if exchange.resendable:
                self._request(exchange, now)
            else:
                self._break_off(exchange)

    def _break_off(self, exchange: Exchange) -> None:
        self._send(wire.Cancel(exchange.id, "drop"))
        why = "the connection broke during a file transfer; nothing has changed, so try again"
        self._end(exchange, Result(error=Unavailable(why)))

    def _request(self, exchange: Exchange, now: float) -> None:
        self._send(exchange.next_request(now), exchange.payloads)
        if exchange.cancel_mode:
            self._send(wire.Cancel(exchange.id, exchange.cancel_mode))

    def _answered(self, exchange: Exchange, message: wire.Message, payloads: list[bytes], now: float) -> None:
        try:
            exchange.known = True
            if isinstance(message, wire.Accepted):
                self._tell(exchange, exchange.accepted(message))
            elif isinstance(message, wire.Partial):
                self._tell(exchange, exchange.partial(message, payloads))
                self._grant(exchange)
            elif isinstance(message, wire.Chunk):
                self._tell(exchange, exchange.chunk(message, payloads))
                self._grant(exchange)
            elif isinstance(message, wire.Credit):
                self._tell(exchange, exchange.credited(message))
            elif isinstance(message, wire.Final):
                self._ended(exchange, message, payloads, now)
        except Gap:
            self._missed(exchange, message, now)
        except TooLong:
            self._spoilt(exchange, f"the reply is larger than {wire.MAX_TEXT // 2**20} MiB, the limit for a text")
        except UnicodeDecodeError as error:
            self._spoilt(exchange, f"the reply is not valid UTF-8: {error.reason}")

    def _ended(self, exchange: Exchange, message: wire.Final, payloads: list[bytes], now: float) -> None:
        if message.error is None:
            self._tell(exchange, exchange.final(message, payloads))
            return
        error = error_of(message.error)
        if isinstance(error, Busy):
            if message.attempt < exchange.attempt:
                return
            retry_at = now + max(error.retry_ms, 10) / 1000
            if retry_at <= min(exchange.opened_at + self.patience_s, exchange.deadline) and not exchange.cancel_mode:
                exchange.retry_at = retry_at
                return
        self._end(exchange, Result(error=error))

    def _missed(self, exchange: Exchange, message: wire.Message, now: float) -> None:
        if getattr(message, "attempt", 0) < exchange.attempt:
            return
        exchange.gaps += 1
        if not exchange.resendable:
            self._break_off(exchange)
        elif exchange.gaps > MAX_GAPS:
            self._spoilt(exchange, "parts of the reply were lost several times")
        else:
            self._request(exchange, now)

    def _spoilt(self, exchange: Exchange, why: str) -> None:
        self._send(wire.Cancel(exchange.id, "drop"))
        self._end(exchange, Result(error=wire.WireError(why)))

    def _watch(self, exchange: Exchange, now: float) -> None:
        if now >= exchange.deadline + TTL_GRACE_S:
            if self._up and exchange.attempt:
                self._send(wire.Cancel(exchange.id, "drop"))
            self._end(
                exchange, Result(error=TimedOut("the request's time ran out and the broker did not say how it ended"))
            )
        elif self._lost_at is not None and now - max(self._lost_at, exchange.opened_at) >= self._endures(exchange):
            self._end(exchange, Result(error=self._unreachable(exchange)))
        elif self._up and exchange.retry_at is not None and now >= exchange.retry_at:
            self._request(exchange, now)

    def _endures(self, exchange: Exchange) -> float:
        return LOST_S if exchange.known else self.timeout_s

    def _unreachable(self, exchange: Exchange) -> SsmprovError:
        where = f" at {self.endpoint}" if self.endpoint else ""
        if exchange.known:
            fault = f"the broker{where} went away and has not come back; whether the request took effect is unknown"
            return Unreachable(f"{fault}: start it with `ssmprov up` and check", fault=fault)
        said = f" ({self._reason})" if self._reason else ""
        fault = f"no broker answers{where}{said}"
        return Unreachable(f"{fault}: start one with `ssmprov up`", fault=fault)

    def _end(self, exchange: Exchange, result: Result) -> None:
        self._tell(exchange, [result])

    def _tell(self, exchange: Exchange, events: list[Event]) -> None:
        for event in events:
            self._actions.append(Tell(exchange.id, event))
            if isinstance(event, Result):
                self._open.pop(exchange.id, None)

    def _grant(self, exchange: Exchange) -> None:
        if self._up and exchange.id in self._open and (n := exchange.window.grant()):
            self._send(wire.Credit(exchange.id, n))

    def _send(self, message: wire.Message, payloads: list[bytes] | None = None) -> None:
        self._actions.append(Send(wire.encode(message, payloads or [])))

    def _take(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
