"""A TOML text knows in which line each of its values begins, however it is written."""

from __future__ import annotations

import pytest

from ssmprov.configuration import parse
from ssmprov.errors import BadRequest
from ssmprov.toml_file import TomlFile

TEXT = '''# a comment = 1
[broker]
queue = 5  # queue = 6

[[model]]
name = "a"
prompt = """
[[model]]
workers = 3
"""
devices = [
  # "gpu"
  "cpu",
  "cpu",
]
[[model]]
  "name" = 'b'
  workers = 2
  deep.down = 1
  inline = { x = 1, y = [2] }
[other]
last = 1'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("broker",), 2),
        (("broker", "queue"), 3),
        (("model",), 5),
        (("model", 0, "name"), 6),
        (("model", 0, "prompt"), 7),
        (("model", 0, "devices"), 11),
        (("model", 1), 16),
        (("model", 1, "name"), 17),
        (("model", 1, "workers"), 18),
        (("model", 1, "deep", "down"), 19),
        (("model", 1, "inline", "y", 0), 20),
        (("other", "last"), 22),
        (("model", 0, "workers"), 0),
        (("model", 2), 0),
        (("nothing",), 0),
        ((), 0),
    ],
)
def test_the_line_of_a_value(key: tuple[str | int, ...], line: int) -> None:
    assert TomlFile(TEXT, "it").line(key) == line
    assert TomlFile(TEXT.replace("\n", "\r\n"), "it").line(key) == line


def test_a_text_that_is_too_much_work_is_left_without_a_line() -> None:
    text = 'x = """\n' + "line\n" * 10_000 + '"""\ny = 1\n'
    assert TomlFile(text, "it").line(("y",)) in (0, 10_003)


MODELS = """
[[model]]
name = "one"
runtime = "rwkv"
path = "x"

[[model]]
name = "two"
runtime = "rwkv"
path = "y"
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("hot_byte = 1", "my.toml, line 11: model 'two': unknown key 'hot_byte'; did you mean hot_bytes?"),
        ("\nworkers = 'x'", "my.toml, line 12: model 'two': workers: Expected `int`, got `str`"),
        ("threads = 0", "my.toml, line 11: model 'two': Expected `int` >= 1 - at `$.threads`"),
        ('hot_bytes = "much"', "my.toml, line 11: model 'two': 'much' is not a valid size"),
        ("devices = []", "my.toml, line 11: model 'two': it needs at least one device"),
        ("[[bridge]]\nport = 7\nmodel = 'tow'", "my.toml, line 13: bridge 7: there is no model 'tow'"),
        ("[[bridge]]\nmodel = 'two'", "my.toml, line 11: [bridge]: a [[bridge]] table needs the key 'port'"),
        ("[broker]\nqueue = 0", "my.toml, line 12: [broker]: queue: Expected `int` >= 1"),
        ("[brokr]", "my.toml, line 11: unknown key 'brokr'; did you mean broker?"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_model(more: str, says: str) -> None:
    with pytest.raises(BadRequest) as told:
        parse(MODELS + more, "my.toml")
    assert str(told.value).startswith(says)
    assert told.value.details["file"] == "my.toml"
    assert f"line {told.value.details['line']}:" in says
