"""The tour: ask, prime once, fork, run two specialists at once, use the old port and other models, show the costs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from clients import Client
from demo import kinds, slots
from demo.house import MINI, House, Trouble, ask, check
from demo.screen import note, section, show, watch
from demo.words import Drawn, drawn
from ssmprov.errors import SsmprovError
from ssmprov.transcript import FENCE, full_step

QUESTION, ANSWER = "What is a context?", "A context is a model's whole state after reading a text."
UNKNOWN = "I do not know."
ORDERS = {
    "echo": "You are an echo. Repeat what the user says.",
    "shouter": "You are a shouter. Answer in capitals.",
}
REPLIES: dict[str, Callable[[str], str]] = {"echo": str, "shouter": str.upper}


def main(arguments: Sequence[str] = ()) -> int:
    """Run the tour. Returns 0, or 1 after printing an error message."""
    parser = argparse.ArgumentParser(prog="demo", description="Shows ssmprov at work, from end to end.")
    parser.add_argument("--seed", type=int, default=1, help="choose other words for what is said")
    parser.add_argument("--routing", action="store_true", help="also show which slots asm-mini uses")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        with House(lambda house: slots.TABLE + kinds.prepare(house)) as house:
            Tour(house, began, drawn(chosen.seed), routing=chosen.routing).run()
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

    def __init__(self, house: House, began: float, words: Drawn, *, routing: bool = False) -> None:
        self.house = house
        self.began = began
        self.words = words
        self.routing = routing
        self.turn = 0
        self.figures: list[tuple[str, str]] = []

    def run(self) -> None:
        self.serving()
        self.asking()
        self.remembering()
        self.priming()
        self.forking()
        self.specialists()
        self.both_at_once()
        self.old_protocol()
        self.moving()
        slots.tour(self.house, "shouter", self.turn, self.words.sentences[2] if self.routing else "")
        self.other_kinds()
        section("The contexts and the broker now")
        show(self.house, "ssmprov ckpt tree")
        show(self.house, "ssmprov status")
        section("Costs")
        width = max(len(what) for what, _ in self.figures)
        for what, figure in self.figures:
            print(f"  {what:{width}}  {figure}")

    def serving(self) -> None:
        section("Serving: a broker, and workers for each model")
        note(f"ready after {time.monotonic() - self.began:.1f} s; the broker's endpoint is {self.house.endpoint}")
        ports = ", ".join(f"{port} ({model})" for model, port in self.house.ports.items())
        note(f"ports for the old tools on 127.0.0.1: {ports}")
        if missing := kinds.missing(self.house):
            note(missing)

    def asking(self) -> None:
        section(f"Asking: {MINI}, the embedded model, is tiny; it knows a little about ssmprov")
        check(show(self.house, f"ssmprov say '{QUESTION}'"), ANSWER)

    def remembering(self) -> None:
        section("Remembering: a context keeps what it was told, and other contexts know nothing about it")
        where = f"Where is the {self.words.thing}?"
        check(show(self.house, f"ssmprov say --to notes '{self.words.fact}'"), self.words.fact)
        check(show(self.house, f"ssmprov say --to notes '{where}'"), self.words.fact)
        check(show(self.house, f"ssmprov say '{where}'"), UNKNOWN)

    def priming(self) -> None:
        section("Priming: the model reads a transcript of 18 turns once")
        primer = resources.files("demo") / "primer.txt"
        text = primer.read_text(encoding="utf-8")
        self.turn = text.count(FENCE)
        (self.house.home / "primer.txt").write_text(text, encoding="utf-8")
        began = time.monotonic()
        show(self.house, "ssmprov pipe --save primed --max-tokens 0 < primer.txt")
        took_s = time.monotonic() - began
        size = len(text.encode())
        note(f"it read {size} bytes, and `primed` is the state after them")
        self.figures.append(("reading the transcript once", f"{took_s:.2f} s ({size / took_s:.0f} bytes per second)"))

    def forking(self) -> None:
        section("Forking: two forks, pinned to different workers, without copying any state")
        for worker, name in enumerate(ORDERS):
            show(self.house, f"ssmprov ckpt fork primed {name} --on {worker}")
        with self.client() as client:
            began = time.monotonic()
            result = client.fork(f"{MINI}:primed", [f"spare/{i}" for i in range(8)], spread=True)
            took_ms = (time.monotonic() - began) * 1000
            client.rm([f"{MINI}:{name}" for name in result.targets])
        self.figures.append(("eight more forks", f"{took_ms:.1f} ms for the round trip"))

    def specialists(self) -> None:
        section("Specialists: one turn gives each fork its task")
        for name, order in ORDERS.items():
            show(
                self.house,
                f"printf '%s' '{order}' | ssmprov pipe {moving(name)} --in CONTEXT --turn {self.turn} --bare",
            )
        self.turn += 1

    def both_at_once(self) -> None:
        section("Both at once, as filters in two shell pipelines (seconds and pieces of text)")
        said = self.words.sentences[0]
        lines = {
            name: f"printf '%s' '{said}' | ssmprov pipe {moving(name)} --in USER --out INTERFACE "
            f"--turn {self.turn} --stream --bare"
            for name in ORDERS
        }
        for line in lines.values():
            note(f"$ {line}")
        began = time.monotonic()
        texts = watch({name: self.house.start(line) for name, line in lines.items()}, began)
        for name, text in texts.items():
            note(f"{name:8} {text.strip()!r}")
            check(text, REPLIES[name](said))
        self.turn += 2
        self.figures.append(
            ("two specialists at once", f"{time.monotonic() - began:.2f} s, including the start of both shells")
        )

    def old_protocol(self) -> None:
        section("The old tools' port: the line after `!` names the context, the settings and where to save")
        said = self.words.sentences[1]
        for name in ORDERS:
            request = f"!{name} mini {name}\n{full_step(self.turn, 'USER', said, 'INTERFACE')}"
            reply = ask(self.house.port, request).removesuffix(FENCE)
            note(f"!{name} mini {name}: {said!r} -> {reply!r}")
            check(reply, REPLIES[name](said))
        self.turn += 2

    def moving(self) -> None:
        section("Moving: the echo continues on the other worker without reading anything again")
        show(self.house, "ssmprov ckpt move echo 1")
        with self.client() as client:
            said = self.words.sentences[2]
            reply = client.turn(
                full_step(self.turn, "USER", said, "INTERFACE"), context=f"{MINI}:echo", save=f"{MINI}:echo"
            )
            self.turn += 2
            result = reply.result
            note(f"echo on {result.worker}: {said!r} -> {reply.text.removesuffix(FENCE)!r}")
            note(f"it read {result.prefill_tokens} tokens before its prompt, and {result.tokens} since its beginning")
            check(reply.text.removesuffix(FENCE), said)
            row = client.show(f"{MINI}:echo").row
            began = time.monotonic()
            client.move(f"{MINI}:echo", "0")
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
            took_s = kinds.tour(self.house, "shouter", self.turn, self.words.sentences[2])
            self.figures.append((f"a turn of {len(self.house.ports)} models at once", f"{took_s:.2f} s"))

    def client(self) -> Client:
        return Client(self.house.endpoint, home=Path(self.house.home))


def moving(name: str) -> str:
    return f"--load {name} --save {name}"
