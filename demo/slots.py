"""An Addressed State Model: it reads the text of a context into its slots, and shows which slots it uses."""

from __future__ import annotations

from demo.house import MINI, House, Trouble
from demo.screen import note, section, show
from ssmprov.transcript import full_step

ASM = "asm-mini"
TABLE = f"""
[[model]]
name = "{ASM}"
runtime = "asm"
path = "@{ASM}"
settings = "greedy"
slots = 4

[[bridge]]
port = 6505
model = "{ASM}"
"""


def tour(house: House, name: str, turn: int, said: str) -> None:
    """Show it, starting from a context of the embedded model. With a text, also show how it would read that text."""
    section("An Addressed State Model: another kind of memory reads the same text")
    show(house, f"ssmprov ckpt replay {MINI}:{name} --to {ASM} --save {name}")
    texts = {house.shell(f"ssmprov ckpt show {model}:{name} --text").stdout for model in (MINI, ASM)}
    if len(texts) != 1:
        raise Trouble(f"{MINI}:{name} and {ASM}:{name} have read different texts")
    note("checked: the two contexts have read the same text, byte for byte")
    if said:
        note("the slots that it reads for its next reply, and its reply without four of them:")
        (house.home / "turn.txt").write_text(full_step(turn, "USER", said, "INTERFACE"), encoding="utf-8")
        show(house, f"ssmprov probe {ASM}:{name} --top 2 --slotmask 0,1,2,3 < turn.txt")
