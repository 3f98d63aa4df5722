"""Who waits for whom on one port, and whose context becomes the live one."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from bridges import PATIENCE_S, Bridge, heard


@pytest.fixture(autouse=True)
def sources(client: Any) -> None:
    for name in "abc":
        client.turn(name, context="fresh", save=name, create=True)
    client.settings_set("half", {"temp": 0.5})
    client.settings_set("third", {"temp": 0.3})


def first(connections: Sequence[socket.socket]) -> socket.socket:
    """The connection that is answered first."""
    ready, _, _ = select.select(connections, [], [], PATIENCE_S)
    assert ready
    return ready[0]


def started(bridge: Bridge, client: Any, count: int = 1) -> None:
    """Wait until so many turns of the port run."""
    while client.status().broker.running < count:
        pass


def test_prompts_of_a_port_are_answered_one_after_the_other(bridge: Bridge, client: Any) -> None:
    with bridge.open("slow") as slow, bridge.open("1") as one, bridge.open("2") as two:
        assert first([slow, one, two]) is slow
        assert [heard(slow), heard(one), heard(two)] == ["s" * 80, "ok", "ok"]
    assert client.text(bridge.live) == "slow" + "s" * 80 + "1ok2ok"


def test_a_command_waits_for_the_prompts_before_it(bridge: Bridge, client: Any) -> None:
    with bridge.open("slow") as slow, bridge.open("/save waited") as save:
        assert first([slow, save]) is slow
        assert heard(save).startswith("[saved -> waited ")
    assert client.text("waited") == "slow" + "s" * 80


def test_requests_with_bang_lines_run_beside_a_slow_one(bridge: Bridge, client: Any) -> None:
    with bridge.open("!a half\nslow") as slow, bridge.open("!b half\nquick") as quick:
        assert first([slow, quick]) is quick
        assert heard(quick) == "ok"
        assert client.text(bridge.live) == "bokquickok"
        heard(slow)
    assert client.text(bridge.live) == "bokquickok"  # the later arrival stays the live context


def test_a_bang_line_does_not_wait_for_a_slow_prompt_and_the_prompt_keeps_its_context(
    bridge: Bridge, client: Any
) -> None:
    with bridge.open("slow") as slow:
        started(bridge, client)
        with bridge.open("!b half named\nquick") as quick, bridge.open("after") as after:
            assert first([slow, quick]) is quick
            assert heard(quick) == "ok"
            assert client.text("named") == "bokquickok"
            heard(slow)
            assert heard(after) == "ok"
    assert client.text(bridge.live) == "bokquickokafterok"
    assert bridge.say("/t") == "temp = 0.5"


def test_requests_with_one_save_name_follow_each_other_in_order_of_arrival(bridge: Bridge, client: Any) -> None:
    with bridge.open("!a half chain\nslow") as one:
        started(bridge, client)
        with bridge.open("!chain third chain\nnext") as two, bridge.open("!chain half chain\nlast") as three:
            assert first([one, two, three]) is one
            assert [heard(one), heard(two), heard(three)] == ["s" * 80, "ok", "ok"]
    assert client.text("chain") == client.text(bridge.live) == "aokslow" + "s" * 80 + "nextoklastok"
    assert bridge.say("/t") == "temp = 0.5"


def test_a_prompt_waits_for_bang_lines_and_goes_on_from_the_last_of_them(bridge: Bridge, client: Any) -> None:
    with bridge.open("!a half\nslow") as one:
        started(bridge, client)
        with bridge.open("!b third\nquick") as two, bridge.open("then") as three:
            assert first([one, two, three]) is two
            heard(two)
            assert first([one, three]) is one
            assert heard(three) == "ok"
    assert client.text(bridge.live) == "bokquickokthenok"
    assert bridge.say("/t") == "temp = 0.3"


def test_a_client_that_leaves_in_mid_turn_cancels_it(bridge: Bridge, client: Any) -> None:
    bridge.say("before")
    with bridge.open("slow"):
        started(bridge, client)
    assert bridge.say("after") == "ok"
    assert client.text(bridge.live) == "beforeokafterok"


def test_a_client_that_leaves_while_it_waits_is_never_run(bridge: Bridge, client: Any) -> None:
    with bridge.open("slow") as slow:
        started(bridge, client)
        bridge.open("never").close()
        heard(slow)
    assert bridge.say("after") == "ok"
    assert client.text(bridge.live) == "slow" + "s" * 80 + "afterok"


def test_a_client_that_leaves_cancels_a_turn_with_a_bang_line_too(bridge: Bridge, client: Any) -> None:
    bridge.say("before")
    with bridge.open("!a half gone\nslow"):
        started(bridge, client)
    assert bridge.say("after") == "ok"
    assert client.text(bridge.live) == "beforeokafterok"
    assert not client.ls("gone").rows
    assert bridge.say("/t") == "temp = 1.0"


def test_two_ports_of_one_model_have_each_their_own_context_and_settings(
    bridge: Bridge, make_bridge: Callable[..., Bridge], client: Any
) -> None:
    other = make_bridge()
    bridge.say("/t 0.5")
    bridge.say("here")
    other.say("there")
    assert client.text(bridge.live) == "hereok"
    assert client.text(other.live) == "thereok"
    assert other.say("/t") == "temp = 1.0"
