"""Composes long unrelated texts, as files to read before a conversation: prose, tables and Python source."""

from __future__ import annotations

from training.words import Words


def prose(words: Words, size: int) -> str:
    """Paragraphs of sentences, about `size` bytes."""
    parts, total = [], 0
    while total < size:
        paragraph = " ".join(words.sentence() for _ in range(words.rng.randint(1, 6)))
        if words.rng.random() < 0.15:
            paragraph = words.rng.choice(("# ", "## ", "- ", "> ", "1. ")) + words.phrase()
        parts.append(paragraph)
        total += len(paragraph) + 2
    return "\n\n".join(parts)


def source(words: Words, size: int) -> str:
    """Something that looks like a Python module, about `size` bytes."""
    parts, total = [f'"""{words.sentence()}"""\n', f"import {words.invented()}\n"], 60
    while total < size:
        part = _class(words) if words.rng.random() < 0.25 else _function(words, "")
        parts.append(part)
        total += len(part) + 2
    return "\n\n".join(parts)


def table(words: Words, size: int) -> str:
    """Rows of numbers and names: csv, json or markdown, about `size` bytes."""
    kind, rows, total = words.rng.choice(("csv", "json", "markdown")), [], 0
    while total < size:
        a, b, c = words.word(), words.number(), words.rng.choice((words.code(), words.name()))
        rows.append(
            {"csv": f"{a},{b},{c}", "json": f'{{"{a}": {b}, "name": "{c}"}}', "markdown": f"| {a} | {b} | {c} |"}[kind]
        )
        total += len(rows[-1]) + 1
    return "\n".join(rows)


def any_filler(words: Words, size: int) -> tuple[str, str]:
    """A file name and its content."""
    make, suffix = words.rng.choice(((prose, "md"), (source, "py"), (source, "py"), (table, "txt")))
    name = f"{words.invented()}.{suffix}"
    return (f"{words.invented()}/{name}" if words.rng.random() < 0.5 else name), make(words, size)


def _expression(words: Words) -> str:
    a, b = words.invented(), words.rng.choice((words.invented(), str(words.number()), f'"{words.word()}"'))
    return words.rng.choice(
        (f"{a}({b})", f"{a}.{words.invented()}", f"{a} + {b}", f"[{a} for {a} in {words.invented()}]", f"{a}[{b}]", b)
    )


def _function(words: Words, indent: str) -> str:
    names = [words.invented() for _ in range(words.rng.randint(0, 3))]
    arguments = ", ".join(f"{name}: {words.rng.choice(('int', 'str', 'bytes', 'float'))}" for name in names)
    lines = [
        f"def {words.invented()}_{words.invented()}({arguments}) -> {words.rng.choice(('None', 'int', 'str', 'bool'))}:"
    ]
    if words.rng.random() < 0.5:
        lines.append(f'    """{words.sentence()}"""')
    for _ in range(words.rng.randint(1, 5)):
        name = words.invented()
        lines += words.rng.choice(
            (
                [f"    {name} = {_expression(words)}"],
                [f"    if {_expression(words)}:", f"        {name} = {_expression(words)}"],
                [f"    for {name} in {_expression(words)}:", f"        self.{name}.append({_expression(words)})"],
                [f'    raise ValueError(f"{words.phrase(3)} {{{name}}}")'],
                [f"    # {words.phrase()}", f"    {name}({_expression(words)})"],
            )
        )
    lines.append(f"    return {_expression(words)}")
    return "\n".join(indent + line for line in lines)


def _class(words: Words) -> str:
    head = f"class {words.invented().capitalize()}:"
    return "\n\n".join([head] + [_function(words, "    ") for _ in range(words.rng.randint(1, 3))])
