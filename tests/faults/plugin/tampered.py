"""The scripted runtime in a worker that faults on demand, at places that no signal from outside would hit.

A test writes `tamper-DEVICE.json` beside the script, `{"at": PLACE, "do": DEED}`; the worker of that device takes it
away when it comes to the place, and does the deed:

    forward                                         before the model reads its next tokens
    create, write, sync, rename, sync_directory     after that step of writing a checkpoint's object
    commit                                          after the catalogue's commit, before anybody is told

    kill, stop      SIGKILL, SIGSTOP to its own process
    hang            never go on, with every other thread alive
    fail            raise an error that nobody has foreseen
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers.checkpoints.files import Files
from workers.checkpoints.store import Store
from workers.runtimes import scripted
from workers.runtimes.base import Feed, Logits, Plan

STEPS = ("create", "write", "sync", "rename", "sync_directory")


def open_runtime(plan: Plan) -> scripted.ScriptedRuntime:
    order = plan.path.with_name(f"tamper-{plan.device}.json")
    runtime = scripted.open_runtime(plan)
    forward = runtime.forward

    def tampered(feeds: Sequence[Feed]) -> Logits:
        _obey(order, "forward")
        return forward(feeds)

    runtime.forward = tampered  # type: ignore[method-assign]
    for step in STEPS:
        _after(Files, step, order, step)
    _after(Store, "commit_all", order, "commit")
    return runtime


def _after(owner: type, name: str, order: Path, place: str) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    def tampered(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        _obey(order, place)
        return result

    setattr(owner, name, tampered)


def _obey(order: Path, place: str) -> None:
    try:
        wanted = json.loads(order.read_bytes())
    except FileNotFoundError:
        return
    if wanted["at"] != place:
        return
    order.unlink()
    match wanted["do"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            threading.Event().wait()
        case "fail":
            raise RuntimeError("the fault that was ordered")
