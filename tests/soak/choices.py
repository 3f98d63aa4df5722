"""What a client asks next: seeded, and steered by what it has seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from soak.history import Order

SCRIPTED, RWKV = "talk", "tiny"
SHARED = [f"s/{i}" for i in range(4)]
"""Names that all clients fight over, in each model."""

OWN = 3
ENDINGS = ["[SHORT]:", "[SHORT]: ", "[FENCE]:", "[UTF]:", "[LONG]:", "[LONG]:"]
SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "[LONG]:", "pieces": [f" w{i}" for i in range(90)]},
        {"after": "[FENCE]:", "pieces": [" as", " you", " say", ".", "\n\n", "~~~", "(end", ")~~~\n\n"]},
        {"after": "[UTF]:", "pieces": [" é", "\N{EARTH GLOBE EUROPE-AFRICA}", " ok", "\N{GREEK SMALL LETTER PI}"]},
        {"after": "", "pieces": ["hel", "lo", "!"]},
    ],
    "token_delay_s": 0.004,
}


class Choices:
    """One player's. `mark` begins the prompts of its turns, so that each can be found again in any text."""

    def __init__(self, random: Random, owner: str, mark: str, files: Path) -> None:
        self._random = random
        self._owner = owner
        self._mark = mark
        self._files = files
        self._count = 0
        self._heads: dict[tuple[str, str], str] = {}
        self._exported: list[tuple[str, str]] = []
        self._kinds: list[tuple[int, Callable[[str], Order]]] = [
            (30, self._turn),
            (8, self._swap),
            (5, self._branch),
            (6, self._unsaved),
            (3, self._older),
            (8, self._fork),
            (4, self._move),
            (5, self._remove),
            (12, self._look),
            (3, self._export),
            (3, self._import),
            (1, self._collect),
            (1, self._verify),
            (1, self._replay),
        ]

    def next(self) -> Order:
        self._count += 1
        weights, kinds = zip(*self._kinds, strict=True)
        return self._random.choices(kinds, weights)[0](self._random.choice([SCRIPTED, SCRIPTED, RWKV]))

    def learn(self, order: Order, result: dict[str, Any]) -> None:
        """Remember where names stand, for compare-and-swaps; and what was exported."""
        if order.op == "turn" and (save := order.args.get("save")):
            self._heads[order.model, save] = result.get("object", "")
        elif order.op == "ckpt.show":
            self._heads[order.model, order.context] = result.get("row", {}).get("object", "")
        elif order.op == "ckpt.export":
            self._exported = [*self._exported[-5:], (order.model, order.file)]

    # -- names

    def _name(self) -> str:
        if self._random.random() < 0.5:
            return self._random.choice(SHARED)
        return f"{self._owner}/n{self._random.randrange(OWN)}"

    def _new(self) -> str:
        return f"{self._owner}/f{self._random.randrange(6)}"

    def _order(self, op: str, model: str, context: str = "", **args: Any) -> Order:
        return Order(self._random.randbytes(16).hex(), op, model, context, args)

    # -- turns

    def _say(self, model: str, context: str, **args: Any) -> Order:
        random = self._random
        order = self._order("turn", model, context, **args)
        order.prompt = f"<{self._mark}.{self._count}>{random.choice(['', 'some words, ', 'x' * 300])}"
        order.prompt += random.choice(ENDINGS)
        if model == RWKV:
            order.args |= {"max_tokens": random.choice([0, 4, 12, 24]), "values": {"temp": random.choice([0.0, 1.0])}}
        elif random.random() < 0.1:
            order.args["max_tokens"] = random.choice([0, 1, 5])
        if random.random() < 0.5:
            order.how = "stream"
            order.args["stream"] = True
            if random.random() < 0.3:
                order.pause_ms = random.choice([1, 5, 30])
            if random.random() < 0.3:
                order.cancel_after = random.choice([0, 1, 3, 10])
                order.cancel_mode = random.choice(["keep", "drop", "close"])
        return order

    def _turn(self, model: str) -> Order:
        name = self._name()
        return self._say(model, name, save=name, create=True)

    def _diary(self, model: str) -> Order:
        name = f"{self._owner}/diary"
        return self._say(model, name, save=name, create=True)

    def _swap(self, model: str) -> Order:
        name = self._random.choice(SHARED)
        head = self._heads.get((model, name), "") or "none"
        return self._say(model, name, save=name, create=True, if_head=head)

    def _branch(self, model: str) -> Order:
        if self._random.random() < 0.6:
            return self._diary(model)
        return self._say(model, self._name(), save=self._new())

    def _unsaved(self, model: str) -> Order:
        return self._say(model, self._random.choice([self._name(), ""]))

    def _older(self, model: str) -> Order:
        name = self._name()
        save = self._random.choice([{}, {}, {"save": self._new()}, {"save": name}])
        return self._say(model, f"{name}~{self._random.randint(1, 6)}", **save)

    # -- names and what is kept

    def _fork(self, model: str) -> Order:
        random = self._random
        source = self._name()
        targets = random.sample(
            [self._new(), self._name(), f"{self._owner}/g{random.randrange(4)}"], k=random.choice([1, 1, 2])
        )
        args: dict[str, Any] = {"targets": [target for target in targets if target != source] or [self._new()]}
        where = random.random()
        if where < 0.2:
            args["spread"] = True
        elif where < 0.4:
            args["on"] = [f"{model}/{random.randrange(2)}"]
        how = random.random()
        if how < 0.3:
            args["overwrite"] = True
        elif how < 0.6 and (head := self._heads.get((model, args["targets"][0]))):
            args |= {"overwrite": True, "if_head": head}
            args["targets"] = args["targets"][:1]
        return self._order("ckpt.fork", model, source, **args)

    def _move(self, model: str) -> Order:
        worker = self._random.choice([f"{model}/0", f"{model}/1", ""])
        return self._order("ckpt.move", model, self._name(), worker=worker)

    def _remove(self, model: str) -> Order:
        names = [self._new()] if self._random.random() < 0.7 else [self._name()]
        return self._order("ckpt.rm", model, names=names)

    def _look(self, model: str) -> Order:
        random = self._random
        match random.randrange(5):
            case 0:
                prefix = random.choice(["", "s/", f"{self._owner}/"])
                return self._order("ckpt.ls", model, prefix=prefix, limit=1000)
            case 1:
                return self._order("ckpt.log", model, self._name(), limit=random.choice([3, 50]))
            case 2:
                return self._order("ckpt.show", model, self._name(), text=True)
            case 3:
                return self._order("ckpt.tree", model)
        return self._order("ckpt.show", model, random.choice(SHARED))

    def _export(self, model: str) -> Order:
        order = self._order("ckpt.export", model, self._name())
        order.how, order.file = "export", str(self._files / f"{self._mark}.{self._count}")
        return order

    def _import(self, model: str) -> Order:
        if not self._exported:
            return self._export(model)
        order = self._order("ckpt.import", *self._random.choice([(m, "") for m, _ in self._exported]))
        model, order.file = self._random.choice(self._exported)
        order.model, order.how = model, "import"
        order.args = {"save": f"{self._owner}/i{self._random.randrange(3)}"}
        return order

    def _collect(self, model: str) -> Order:
        return self._order("ckpt.gc", model)

    def _verify(self, model: str) -> Order:
        return self._order("ckpt.verify", model)

    def _replay(self, model: str) -> Order:
        save = {"save": self._new()} if self._random.random() < 0.5 else {}
        return self._order("ckpt.replay", model, self._name(), **save)
