"""What the demo prints: headings, notes, commands with their output, and pipelines while they write."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping

from demo.house import House, Trouble

LULL_S = 0.08


def section(title: str) -> None:
    print(f"\n== {title}\n", flush=True)


def note(text: str) -> None:
    print(f"  {text}".rstrip(), flush=True)


def show(house: House, line: str, status: int = 0) -> str:
    """Print a shell command, run it, print what it wrote, and return its standard output.

    Raises Trouble if its exit status is different.
    """
    note(f"$ {line}")
    done = house.shell(line, status)
    for output in (done.stdout + done.stderr).splitlines():
        note(output)
    return done.stdout


def watch(running: Mapping[str, subprocess.Popen[bytes]], began: float) -> dict[str, str]:
    """Print the output of several processes as it arrives, and return it. Raises Trouble if one fails."""
    texts = dict.fromkeys(running, b"")
    with selectors.DefaultSelector() as selector:
        for name, process in running.items():
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select()
            time.sleep(LULL_S)  # collect a few tokens to make a readable line
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if data:
                    texts[key.data] += data
                    note(f"{time.monotonic() - began:6.2f}  {key.data:8} {data.decode('utf-8', 'replace')!r}")
                else:
                    selector.unregister(key.fileobj)
    for name, process in running.items():
        assert process.stdout is not None
        process.stdout.close()
        if process.wait():
            raise Trouble(f"the pipeline of {name} ended with status {process.returncode}: {texts[name].decode()}")
    return {name: text.decode() for name, text in texts.items()}
