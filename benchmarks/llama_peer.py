"""llama-server for comparison: found, started with the same model, and called over HTTP by one thread per stream.

It listens on a Unix socket, as our broker does. Its prompt caches are off, because no prompt is used twice.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

PROGRAM = "SSMPROV_LLAMA_SERVER"
"""The environment variable that names the program."""

START_S = 120.0
STOP_S = 20.0
GREEDY = {"temperature": 0.0, "samplers": ["temperature"], "ignore_eos": True}


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer: seconds until its first piece, the longest gap between pieces, and the text."""

    first_s: float
    gap_s: float
    text: str


class Watch:
    """Records when the pieces of a stream arrive."""

    def __init__(self) -> None:
        self._came = [perf_counter()]
        self._parts: list[str] = []

    def take(self, piece: str) -> None:
        self._came.append(perf_counter())
        self._parts.append(piece)

    def stream(self) -> Stream:
        began, first, *later = self._came
        gaps = [after - before for before, after in pairwise([first, *later])]
        return Stream(first - began, max(gaps, default=0.0), "".join(self._parts))


def program() -> Path | None:
    """The program llama-server: from the environment, or the one that `make llama-server` built."""
    named = os.environ.get(PROGRAM)
    found = Path(named) if named else Path(sys.prefix) / "llama-server" / "bin" / "llama-server"
    return found if found.is_file() else None


class LlamaServer:
    """A llama-server process with one slot for each of `streams` contexts of `n_ctx` tokens."""

    def __init__(self, file: Path, model: Path, *, streams: int, n_ctx: int, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llama-server-")
        folder = Path(self._folder.name)
        self._socket = str(folder / "http.sock")
        command = [str(file), "--model", str(model), "--host", self._socket, "--slot-save-path", f"{folder}{os.sep}"]
        command += ["--no-ui", "--no-cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0"]
        command += ["--parallel", str(streams), "--ctx-size", str(n_ctx * streams), "--threads", str(threads)]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def stream(self, prompt: str, tokens: int) -> Stream:
        """Continue a text by this many tokens. Raises RuntimeError for any other number."""
        watch = Watch()
        connection, response = self._post("/completion", prompt=prompt, n_predict=tokens, stream=True, **GREEDY)
        last: dict[str, Any] = {}
        with connection:
            for line in response:
                if line.startswith(b"data: "):
                    last = json.loads(line[6:])
                    if last["content"]:
                        watch.take(last["content"])
        if last.get("tokens_predicted") != tokens:
            raise RuntimeError(f"llama-server wrote {last.get('tokens_predicted')} tokens instead of {tokens}")
        return watch.stream()

    def tokens(self, text: str) -> list[int]:
        return [int(token) for token in self._ask("/tokenize", content=text)["tokens"]]

    def prime(self, tokens: list[int], name: str) -> None:
        """Read a text and write its slot to a file."""
        self._ask("/completion", prompt=tokens, n_predict=0, id_slot=0, cache_prompt=True)
        self._ask("/slots/0?action=save", filename=name)

    def resume(self, tokens: list[int], name: str) -> None:
        """Restore a slot, read the last of `tokens`, which is new to it, and write one token.

        Raises RuntimeError if it read more than that one token.
        """
        self._ask("/slots/0?action=restore", filename=name)
        done = self._ask("/completion", prompt=tokens, n_predict=1, id_slot=0, cache_prompt=True, **GREEDY)
        if (read := done["timings"]["prompt_n"]) != 1:
            raise RuntimeError(f"llama-server restored a slot and read {read} tokens again")

    def _ask(self, path: str, **body: object) -> Any:
        connection, response = self._post(path, **body)
        with connection:
            return json.loads(response.read())

    def _post(self, path: str, **body: object) -> tuple[_Connection, http.client.HTTPResponse]:
        connection = _Connection(self._socket)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            said = response.read().decode(errors="replace")
            connection.close()
            raise RuntimeError(f"llama-server answered {path} with status {response.status}: {said}")
        return connection, response

    def _await(self) -> None:
        """Wait until it has loaded its model."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                connection = _Connection(self._socket)
                with connection:
                    connection.request("GET", "/health")
                    if connection.getresponse().status == http.client.OK:
                        return
            except (OSError, http.client.HTTPException):
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"llama-server did not start:\n{said[-2000:]}")
            time.sleep(0.05)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, closed at the end of a `with` block."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
