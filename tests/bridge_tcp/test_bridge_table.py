"""Every row of the protocol's table, and each decided fault, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from bridges import heard

FENCE = "end)~~~\n\n"


def test_a_prompt_is_answered_with_the_reply_and_moves_the_live_context(bridge: Any, client: Any) -> None:
    assert bridge.say("hello") == "ok"
    assert bridge.say("again") == "ok"
    assert client.text(bridge.live) == "hellookagainok"


def test_each_connection_is_one_request_and_what_follows_the_nul_is_ignored(bridge: Any, client: Any) -> None:
    assert bridge.say(b"one\0two\0three") == "ok"
    assert client.text(bridge.live) == "oneok"


def test_an_end_before_the_nul_gets_a_bare_nul_and_changes_nothing(bridge: Any, client: Any) -> None:

    with bridge.open(b"half a request") as connection:
        connection.shutdown(socket.SHUT_WR)
        assert heard(connection) == ""
    assert not client.ls(bridge.live, reserved=True).rows


@pytest.mark.parametrize(("command", "name"), [("/save", "kv.pkl"), ("/save a/b.c", "a/b.c"), ("  /SAVE x ", "x")])
def test_save_names_the_live_context_and_tells_the_size_of_its_object(
    bridge: Any, client: Any, command: str, name: str
) -> None:
    bridge.say("hello")
    reply = bridge.say(command)
    row = client.show(name).row
    assert reply == f"[saved -> {name} ({row.bytes} bytes)]\n"
    assert row.object == client.show(bridge.live).row.object


@pytest.mark.parametrize("name", ["../x", ".hidden", "@bridge/1", "/etc/passwd", "a b", "x" * 200])
def test_a_name_that_is_none_is_refused(bridge: Any, name: str) -> None:
    bridge.say("hello")
    assert bridge.say(f"/save {name}").startswith("[save error] ")


def test_an_empty_live_context_is_saved_empty(bridge: Any, client: Any) -> None:
    reply = bridge.say("/save blank")
    assert reply == f"[saved -> blank ({client.show('blank').row.bytes} bytes)]\n"
    assert client.text("blank") == ""
    bridge.say("said since")
    assert bridge.say("/load blank") == "[loaded <- blank]\n"
    assert client.text(bridge.live) == ""


def test_load_makes_a_saved_context_the_live_one(bridge: Any, client: Any) -> None:
    bridge.say("first")
    bridge.say("/save kept")
    bridge.say("second")
    assert bridge.say("/load kept") == "[loaded <- kept]\n"
    assert client.text(bridge.live) == "firstok"
    assert bridge.say("/load nowhere").startswith("[load error] ")
    assert bridge.say("/load ../x").startswith("[load error] ")
    assert client.text(bridge.live) == "firstok"


def test_load_without_a_name_takes_the_default_one(bridge: Any) -> None:
    bridge.say("first")
    bridge.say("/save")
    assert bridge.say("/load") == "[loaded <- kv.pkl]\n"


def test_sets_are_saved_and_loaded(bridge: Any, client: Any) -> None:
    bridge.say("/t 0.25")
    size = client.settings_set("probe", client.settings_show().values | {"temp": 0.25}).bytes
    assert bridge.say("/save_set") == f"[saved set -> set.json ({size} bytes)]\n"
    assert bridge.say("/save_set mine.json") == f"[saved set -> mine.json ({size} bytes)]\n"
    assert client.settings_show("mine").values["temp"] == 0.25
    bridge.say("/t 0.5")
    assert bridge.say("/load_set") == "[loaded set <- set.json]\n"
    assert bridge.say("/t") == "temp = 0.25"
    assert bridge.say("/load_set greedy") == "[loaded set <- greedy]\n"
    assert bridge.say("/t") == "temp = 0.0"
    assert bridge.say("/load_set nowhere").startswith("[load_set error] ")
    assert bridge.say("/load_set ../x").startswith("[load_set error] ")
    assert bridge.say("/save_set ../x").startswith("[save_set error] ")
    assert bridge.say("/t") == "temp = 0.0"


@pytest.mark.parametrize(
    ("word", "first", "value", "shown", "bad"),
    [
        ("/t", "temp = 1.0", "0.18", "temp = 0.18", "hot"),
        ("/p", "top_p = 1.0", ".88", "top_p = 0.88", "1.5"),
        ("/k", "top_k = 0", "40", "top_k = 40", "0.5"),
        ("/min_p", "min_p = 0.0", "0.12", "min_p = 0.12", "-1"),
        ("/pen_freq", "pen_freq = 0.0", "0.2", "pen_freq = 0.2", "nan"),
        ("/pen_pres", "pen_pres = 0.0", "0.1", "pen_pres = 0.1", "x"),
        ("/pen_rep", "pen_rep = 1.0", "1.10", "pen_rep = 1.1", "0"),
        ("/max", "max = 8192", "500", "max = 500", "-3"),
    ],
)
def test_a_setting_is_shown_and_set_and_a_bad_value_changes_nothing(
    bridge: Any, word: str, first: str, value: str, shown: str, bad: str
) -> None:
    assert bridge.say(word) == first
    assert bridge.say(f"{word} {value}") == ""
    assert bridge.say(word) == shown
    assert bridge.say(f"{word} {bad}") == ""
    assert bridge.say(word.upper()) == shown


def test_the_settings_are_those_that_a_turn_runs_with(bridge: Any, client: Any) -> None:
    bridge.say("/t 0.5")
    bridge.say("/max 100")
    bridge.say("hello")
    found = client.show(bridge.live).settings
    assert (found["temp"], found["max"]) == (0.5, 100)


def test_the_help_tells_every_command_and_the_settings(bridge: Any) -> None:
    bridge.say("/k 7")
    text = bridge.say("/?")
    for word in ("/save", "/load", "/save_set", "/load_set", "/t", "/pen_rep", "/max", "!LOAD", "top_k = 7"):
        assert word in text


def test_an_unknown_command_gets_an_empty_reply_and_is_not_read(bridge: Any, client: Any) -> None:
    assert bridge.say("/nonsense with words") == ""
    assert not client.ls(bridge.live, reserved=True).rows


# -- bang lines


@pytest.fixture
def primed(bridge: Any, client: Any) -> Any:
    """A bridge with the context `primed` and the set `mine`."""
    client.turn("primer", context="fresh", save="primed", create=True, seed=1)
    client.settings_set("mine", {"temp": 0.75})
    return bridge


@pytest.mark.parametrize("save", ["after", "!after"])
def test_a_bang_line_loads_generates_and_saves_and_becomes_the_ports_own(primed: Any, client: Any, save: str) -> None:
    assert primed.say(f"!primed mine {save}\nhello") == "ok"
    assert client.text("after") == "primerokhellook"
    assert client.text("primed") == "primerok"
    assert client.text(primed.live) == "primerokhellook"
    assert client.show("after").settings["temp"] == 0.75
    assert primed.say("/t") == "temp = 0.75"
    assert primed.say("more") == "ok"
    assert client.text(primed.live) == "primerokhellookmoreok"
    assert client.text("after") == "primerokhellook"


def test_a_bang_line_of_one_word_keeps_the_ports_settings(primed: Any, client: Any) -> None:
    primed.say("/t 0.5")
    assert primed.say("! primed \nhello") == "ok"
    assert client.show(primed.live).settings["temp"] == 0.5
    assert primed.say("/t") == "temp = 0.5"
    assert [row.name for row in client.ls(primed.live, reserved=True).rows] == [primed.live]


def test_a_bang_line_without_words_is_none(bridge: Any, client: Any) -> None:
    assert bridge.say("!  \nhello") == "ok"
    assert client.text(bridge.live) == "hellook"


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("!nowhere mine after", "load error"),
        ("!nowhere nowhere after", "load error"),
        ("!../x mine", "load error"),
        ("!other:primed", "load error"),
        ("!primed nowhere after", "load_set error"),
        ("!primed ../x after", "load_set error"),
        ("!primed mine ../x", "save error"),
        ("!primed mine @bridge/1", "save error"),
        ("!a b c d", "error"),
    ],
)
def test_a_bang_line_that_fails_generates_nothing_and_changes_nothing(
    primed: Any, client: Any, line: str, label: str
) -> None:
    primed.say("before")
    heads = {row.name: row.object for row in client.ls(reserved=True).rows}
    for body in ("hello", "", "/t 0.1"):
        assert primed.say(f"{line}\n{body}").startswith(f"[{label}] ")
    assert {row.name: row.object for row in client.ls(reserved=True).rows} == heads
    assert primed.say("/t") == "temp = 1.0"


def test_a_bang_line_before_a_command_applies_first(primed: Any, client: Any) -> None:
    size = client.show("primed").row.bytes
    assert primed.say("!primed mine\n/save copy") == f"[saved -> copy ({size} bytes)]\n"
    assert client.text("copy") == client.text(primed.live) == "primerok"
    assert primed.say("!primed mine\n/t") == "temp = 0.75"
    assert primed.say("!primed mine\n/t 0.5") == ""
    assert primed.say("/t") == "temp = 0.5"
    primed.say("other")
    primed.say("/save second")
    assert primed.say("!primed mine third\n/load second") == "[loaded <- second]\n"
    assert client.text("third") == client.text(primed.live) == client.text("second")
    assert primed.say("!primed\n/nonsense") == ""
    assert client.text(primed.live) == "primerok"


def test_a_bang_line_alone_loads_and_saves_and_generates_nothing(primed: Any, client: Any) -> None:
    assert primed.say("!primed mine alone") == ""
    assert primed.say("!primed mine alone\n") == ""
    assert client.text("alone") == client.text(primed.live) == "primerok"
    assert primed.say("/t") == "temp = 0.75"
    assert [row.name for row in client.ls(primed.live, reserved=True).rows] == [primed.live]


def test_an_empty_prompt_goes_on_with_the_live_context(bridge: Any, client: Any) -> None:
    assert bridge.say("").startswith("[error] ")
    bridge.say("/max 3")
    assert bridge.say("slow") == "sss"
    assert bridge.say("") == "sss"
    assert client.text(bridge.live) == "slowssssss"


def test_an_older_step_can_be_loaded(primed: Any, client: Any) -> None:
    primed.say("!primed mine steps\none")
    primed.say("!steps mine steps\ntwo")
    assert primed.say("/load steps~1") == "[loaded <- steps~1]\n"
    assert client.text(primed.live) == "primerokoneok"


# -- decided faults


def test_a_half_step_is_completed_by_force(bridge: Any, client: Any) -> None:
    assert bridge.say("(Turn 1) [USER]: Hi.\n\n~~~(") == FENCE
    assert client.text(bridge.live) == "(Turn 1) [USER]: Hi.\n\n~~~(end)~~~\n\n"


def test_nothing_is_stripped_and_the_text_is_what_the_state_has_read(bridge: Any, client: Any) -> None:
    for prompt in ("  lead", "trail \n", "\n\nemoji", "odd"):
        before = client.text(bridge.live) if client.ls(bridge.live, reserved=True).rows else ""
        reply = bridge.say(prompt)
        assert client.text(bridge.live) == before + prompt + reply


def test_characters_of_several_bytes_arrive_whole(bridge: Any) -> None:
    assert bridge.say("emoji") == "\N{EARTH GLOBE EUROPE-AFRICA} é\n\n~~~(end)~~~\n\n"


def test_a_wrong_fence_is_cut_at_the_mark_and_closed(bridge: Any, client: Any) -> None:
    reply = bridge.say("odd")
    assert reply.endswith("~~~(end)~~~\n\n")
    assert "foo" not in reply
    assert client.text(bridge.live) == "odd" + reply


def test_the_port_lets_the_model_write_headers_as_the_old_runner_did(bridge: Any, client: Any) -> None:
    assert bridge.say("on?") == "yes\n(Turn 3) [USER]: more"
    assert client.text(bridge.live).endswith("on?yes\n(Turn 3) [USER]: more")


def test_a_limit_cuts_text_and_state_alike(bridge: Any, client: Any) -> None:
    bridge.say("/max 5")
    assert bridge.say("slow") == "sssss"
    assert client.text(bridge.live) == "slowsssss"


def test_bytes_that_are_no_utf8_are_refused_with_their_place(bridge: Any, client: Any) -> None:
    assert bridge.say(b"good\xffbad\0").startswith("[error] the request is not valid UTF-8 (byte 0xff at offset 4)")
    assert not client.ls(bridge.live, reserved=True).rows
