"""The tour: prime once, fork, run two specialists at once, use the old protocol and other models, show the costs."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

from clients import Client, Reply
from demo import kinds, slots
from demo.house import MINI, House, Trouble, ask
from demo.screen import note, section, show, watch
from ssmprov.errors import SsmprovError
from ssmprov.transcript import FENCE, FENCE_REST, full_step

NAMES = ("echo", "shouter")
ORDERS = {
    "echo": "You are an echo. Repeat what the user says.",
    "shouter": "You are a shouter. Answer in capitals.",
}
SAID = "the small cat sleeps in the garden"


def main() -> int:
    """Run the tour. Returns 0, or 1 after printing an error message."""
    began = time.monotonic()
    try:
        with House(lambda house: slots.TABLE + kinds.prepare(house)) as house:
            Tour(house, began).run()
        took = f"The demo took {time.monotonic() - began:.1f} s, and everything has stopped."
        print(f"\n{took} Run `make up` to keep serving, and `.venv/bin/ssmprov composer` to open the window.")
    except (Trouble, SsmprovError, OSError, subprocess.SubprocessError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class Tour:
    """The sections in order. `figures` collects the numbers for the last one."""

    def __init__(self, house: House, began: float) -> None:
        self.house = house
        self.began = began
        self.turn = 0
        self.figures: list[tuple[str, str]] = []

    def run(self) -> None:
        self.serving()
        self.priming()
        self.forking()
        self.specialists()
        self.both_at_once()
        self.old_protocol()
        self.moving()
        slots.tour(self.house, "shouter", self.turn)
        self.other_kinds()
        section("The contexts and the broker now")
        show(self.house, "ssmprov ckpt tree")
        show(self.house, "ssmprov status")
        section("Costs")
        width = max(len(what) for what, _ in self.figures)
        for what, figure in self.figures:
            print(f"  {what:{width}}  {figure}")

    def serving(self) -> None:
        section("Serving: one broker, and workers and a bridge for each model")
        note(f"ready after {time.monotonic() - self.began:.1f} s; the broker's endpoint is {self.house.endpoint}")
        ports = ", ".join(f"{port} ({model})" for model, port in self.house.ports.items())
        note(f"ports for the old tools on 127.0.0.1: {ports}")
        if missing := kinds.missing(self.house):
            note(missing)
        show(self.house, "ssmprov models")

    def priming(self) -> None:
        section("Priming: the model reads a transcript of 18 turns once, through the old tools' port")
        primer = (resources.files("demo") / "primer.txt").read_text(encoding="utf-8")
        self.turn = primer.count(FENCE)
        began = time.monotonic()
        reply = ask(self.house.port, primer.removesuffix(FENCE_REST))
        took_s = time.monotonic() - began
        note(f"sent {len(primer.encode())} bytes that end with a half fence; the reply is {reply!r}")
        if reply != FENCE_REST:
            raise Trouble("the fence was not completed")
        note(f"/save primed -> {ask(self.house.port, '/save primed').strip()}")
        size = len(primer.encode())
        self.figures.append(("reading the transcript once", f"{took_s:.2f} s ({size / took_s:.0f} bytes per second)"))

    def forking(self) -> None:
        section("Forking: two forks, pinned to different workers, without copying any state")
        for worker, name in enumerate(NAMES):
            show(self.house, f"ssmprov ckpt fork primed {name} --on {worker}")
        with self.client() as client:
            began = time.monotonic()
            result = client.fork("rwkv7-mini:primed", [f"spare/{i}" for i in range(8)], spread=True)
            took_ms = (time.monotonic() - began) * 1000
            client.rm([f"{MINI}:{name}" for name in result.targets])
        self.figures.append(("eight more forks", f"{took_ms:.1f} ms for the round trip"))

    def specialists(self) -> None:
        section("Specialists: one turn gives each fork its task")
        for name in NAMES:
            show(
                self.house,
                f"printf '%s' '{ORDERS[name]}' | ssmprov pipe {moving(name)} --in CONTEXT --turn {self.turn}",
            )
        self.turn += 1

    def both_at_once(self) -> None:
        section("Both at once, as filters in two shell pipelines (seconds and pieces of text)")
        lines = {
            name: f"printf '%s' '{SAID}' | ssmprov pipe {moving(name)} --in USER --out INTERFACE "
            f"--turn {self.turn} --stream --bare"
            for name in NAMES
        }
        for line in lines.values():
            note(f"$ {line}")
        began = time.monotonic()
        texts = watch({name: self.house.start(line) for name, line in lines.items()}, began)
        for name, text in texts.items():
            note(f"{name:8} {text.strip()!r}")
        self.turn += 2
        self.figures.append(
            ("two specialists at once", f"{time.monotonic() - began:.2f} s, including the start of both shells")
        )

    def old_protocol(self) -> None:
        section("The old protocol: a bang line names the context, the settings and where to save")
        for name in NAMES:
            request = f"!{name} mini {name}\n{full_step(self.turn, 'USER', 'one reading, many readers', 'INTERFACE')}"
            reply = ask(self.house.port, request)
            note(f"!{name} mini {name} -> {reply.removesuffix(FENCE)!r}")
        self.turn += 2

    def moving(self) -> None:
        section("Moving: the echo continues on the other worker without reading anything again")
        show(self.house, "ssmprov ckpt move echo 1")
        with self.client() as client:
            result = self.say(client, "rwkv7-mini:echo", "good evening").result
            row = client.show("rwkv7-mini:echo").row
            began = time.monotonic()
            client.move("rwkv7-mini:echo", "0")
            took_ms = (time.monotonic() - began) * 1000
        speed = result.reply_tokens / max(result.reply_ms / 1000, 1e-6)
        self.figures += [
            ("moving a context to another worker", f"{took_ms:.1f} ms"),
            ("its next turn there", f"{result.restore_ms:.1f} ms to start, {result.prefill_tokens} tokens read again"),
            ("saving a turn durably", f"{result.commit_ms:.1f} ms"),
            ("decoding", f"{speed:.0f} tokens per second"),
            ("a checkpoint", f"{row.bytes / 1024:.0f} KiB after {row.tokens} tokens, and always the same size"),
        ]

    def other_kinds(self) -> None:
        if kinds.GGUF in self.house.ports:
            took_s = kinds.tour(self.house, "shouter", self.turn)
            self.figures.append((f"a turn of {len(self.house.ports)} models at once", f"{took_s:.2f} s"))

    def say(self, client: Client, context: str, text: str) -> Reply:
        """Run one turn of a context, and print where it ran."""
        prompt = full_step(self.turn, "USER", text, "INTERFACE")
        self.turn += 2
        reply = client.turn(prompt, context=context, save=context)
        note(f"{context} on {reply.result.worker}: {text!r} -> {reply.text.removesuffix(FENCE)!r}")
        note(f"prefill {reply.result.prefill_tokens} tokens, {reply.result.tokens} read since its root")
        return reply

    def client(self) -> Client:
        return Client(self.house.endpoint, home=Path(self.house.home))


def moving(name: str) -> str:
    return f"--load {name} --save {name}"
