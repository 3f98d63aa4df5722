r"""Rows of the track `code`: a request with its language, and a program of a few lines with `\n` for line breaks."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from specialists.rows import escaped

_NAMES = ("total", "count", "value", "first", "price", "size", "score", "level")
_FIELDS = ("id", "name", "age", "city", "price", "date")
_TABLES = ("users", "orders", "books", "items", "towns")
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}

Made = tuple[str, str, str]
"""The task, the request and the program."""


def compose(rng: Random) -> str:
    language = rng.choice(tuple(_MAKERS))
    task, request, program = _MAKERS[language](rng)
    return escaped(f"[code][lang:{language}][task:{task}]<prompt>{request}</prompt><solution>{program}</solution>")


def _python(rng: Random) -> Made:
    verb, name = rng.choice(tuple(_SIGNS)), rng.choice(_NAMES)
    if rng.random() < 0.5:
        return "write", f"{verb} two numbers as {name}", f"def {name}(a, b):\n    return a {_SIGNS[verb]} b\n"
    least = rng.randint(1, 9)
    return (
        "write",
        f"keep what is over {least} in {name}",
        f"def {name}(items):\n    return [item for item in items if item > {least}]\n",
    )


def _c(rng: Random) -> Made:
    verb, name = rng.choice(tuple(_SIGNS)), rng.choice(_NAMES)
    if rng.random() < 0.5:
        return (
            "write",
            f"{verb} two ints as {name}",
            f"int {name}(int a, int b) {{\n    return a {_SIGNS[verb]} b;\n}}\n",
        )
    last = rng.randint(2, 9)
    return (
        "write",
        f"sum 1 to {last} in {name}",
        f"int {name}(void) {{\n    int sum = 0;\n    for (int i = 1; i <= {last}; i++)\n        sum += i;\n"
        "    return sum;\n}\n",
    )


def _sql(rng: Random) -> Made:
    table, field, other = rng.choice(_TABLES), *rng.sample(_FIELDS, 2)
    least = rng.randint(1, 99)
    draw = rng.random()
    if draw < 0.4:
        return (
            "query",
            f"{field} of {table} where {other} is over {least}",
            (f"SELECT {field} FROM {table} WHERE {other} > {least};"),  # noqa: S608
        )
    if draw < 0.7:
        return "query", f"how many {table} by {field}", f"SELECT {field}, COUNT(*) FROM {table} GROUP BY {field};"  # noqa: S608
    return "change", f"remove {table} with {field} {least}", f"DELETE FROM {table} WHERE {field} = {least};"  # noqa: S608


def _json(rng: Random) -> Made:
    name, number = rng.choice(_NAMES), rng.randint(0, 99)
    if rng.random() < 0.5:
        return "write", f"{name} is {number}", f'{{"{name}": {number}}}'
    numbers = [rng.randint(0, 9) for _ in range(rng.randint(2, 4))]
    return "write", f"{name} are {' '.join(map(str, numbers))}", f'{{"{name}": {numbers}}}'


def _bash(rng: Random) -> Made:
    word, last = rng.choice(_FIELDS), rng.randint(2, 9)
    draw = rng.random()
    if draw < 0.4:
        return "write", f"count to {last}", f"for i in $(seq {last}); do\n  echo $i\ndone\n"
    if draw < 0.7:
        return "write", f"lines with {word} in a file", f'grep -c "{word}" "$1"\n'
    return "write", f"make a folder {word}", f'if [ ! -d "{word}" ]; then\n  mkdir "{word}"\nfi\n'


_MAKERS: dict[str, Callable[[Random], Made]] = {"python": _python, "c": _c, "sql": _sql, "json": _json, "bash": _bash}
