"""Text files from Windows: a byte-order mark is skipped, and UTF-16 is reported with its remedy."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from composer.writing.choices import read_lines
from specialists.contract import read_contract
from specialists.grammars import grammar_of
from specialists.plan import read_plan
from specialists.rows import read_rows
from specialists.samples import read_pairs
from specialists.stages import GATES, read_gates
from ssmprov import configuration, encoding
from ssmprov.errors import BadRequest
from ssmprov.keys import AllowList, public_of
from ssmprov.settings import Sets

BOM = codecs.BOM_UTF8
PUBLIC = "a" * 40


def settings_of(path: Path) -> object:
    return Sets(path.parent).load(path.stem).temp


def keys_of(path: Path) -> object:
    path.chmod(0o600)
    return list(AllowList(path.parent.parent).read())


def rows_of(path: Path) -> object:
    rows, report = read_rows(path, grammar_of("pairs"))
    report.refuse()
    return [(row.prompt, row.answer) for row in rows]


READERS: dict[str, tuple[str, str, Callable[[Path], object], object]] = {
    "configuration": ("ssmprov.toml", "[broker]\nqueue = 7\n",
                      lambda path: configuration.load(path).tables.broker.queue, 7),
    "sampling set": ("coder.json", '{"temp": 0.5}', settings_of, 0.5),
    "allowed keys": (".keys/allowed.json", json.dumps({"me": {"public": PUBLIC, "role": "read", "since": 0.0}}),
                     keys_of, ["me"]),
    "public key": ("me.pub", PUBLIC + "\r\n", lambda path: public_of(str(path)), PUBLIC),
    "gates": ("gates.toml", "", lambda path: read_gates(path) == GATES, True),
    "rows": ("rows.txt", "hello\tworld\r\n", rows_of, [("hello", "world")]),
    "pairs": ("pairs.txt", "hello\tworld\tno\r\n",
              lambda path: [pair.chosen for pair in read_pairs(path, grammar_of("pairs"), ascii_only=True)], ["world"]),
    "choices": ("s1", "'Hello'\r\n", lambda path: read_lines(path.read_bytes()), (["Hello"], [])),
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_a_byte_order_mark_is_skipped(tmp_path: Path, kind: str) -> None:
    name, text, read, expected = READERS[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    for before in (b"", BOM):
        path.write_bytes(before + text.encode())
        assert read(path) == expected
    assert path.read_bytes().startswith(BOM)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["configuration", "sampling set", "gates", "rows", "pairs"])
def test_utf_16_is_told_with_its_remedy(tmp_path: Path, kind: str, order: str) -> None:
    name, text, read, _ = READERS[kind]
    path = tmp_path / name
    path.write_bytes(("\ufeff" + text).encode(order))
    with pytest.raises(BadRequest, match="save it as UTF-8") as caught:
        read(path)
    assert caught.value.details == {"encoding": "utf-16"}


@pytest.mark.parametrize(("name", "read"), [("contract.toml", read_contract), ("plan.toml", None)])
def test_files_of_a_specialist_may_begin_with_a_mark(
    tmp_path: Path, name: str, read: Callable[[Path], object] | None
) -> None:
    said = []
    for before in (b"", BOM):
        (tmp_path / name).write_bytes(before + b"nonsense = 1\n")
        with pytest.raises(BadRequest) as caught:
            read(tmp_path / name) if read is not None else read_plan(tmp_path)
        said.append(caught.value.message)
    assert said[0] == said[1], "the first is about the key, so the second must be, too"


def test_bytes_that_are_not_utf_8_are_named_by_place() -> None:
    with pytest.raises(BadRequest, match="input is not UTF-8 text: byte 2 is 0xff"):
        encoding.text_of(b"ab\xff", "input")
    assert encoding.text_of(BOM + b"a", "input") == "a"
    assert encoding.exactly(BOM + b"a", "input") == "\ufeffa"
