"""A client that has lost its connection may come back; one whose process has ended does not."""

from __future__ import annotations

import os
import subprocess
import sys

from rig import TICK_S, Caller, Rig, id_of, turn

from broker.events import Ended
from ssmprov import wire
from ssmprov.process import has_ended, host, started_at, this

PROCESS = wire.Process(4711, 99, "here")


def caller(rig: Rig) -> Caller:
    client = rig.caller()
    client.say(wire.Hello(client.id, process=PROCESS))
    return client


def test_a_client_that_is_gone_is_asked_for_until_it_is_back() -> None:
    rig = Rig()
    hand, client = rig.hand(), caller(rig)
    client.asks(turn(1))
    hand.gets(1)
    client.is_lost()
    rig.tick(TICK_S)
    assert [(look.client, look.process) for look in rig.looked] == [(client.id, PROCESS)] * 2
    client.again()
    rig.tick(TICK_S)
    assert len(rig.looked) == 2
    assert not hand.heard(wire.Cancel)


def test_the_turns_of_an_ended_process_are_cancelled_at_once_but_for_those_that_save() -> None:
    rig = Rig()
    hand, client = rig.hand(), caller(rig)
    client.asks(turn(1))
    client.asks(turn(2, "", "kept"))
    client.is_lost()
    rig.handle(Ended(rig.now, client.id))
    assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]
    rig.looked.clear()
    rig.tick(TICK_S)
    assert rig.looked == []


def test_an_end_that_comes_late_does_not_touch_one_who_is_back() -> None:
    rig = Rig()
    hand, client = rig.hand(), caller(rig)
    client.asks(turn(1))
    client.is_lost()
    client.again()
    rig.handle(Ended(rig.now, client.id))
    assert not hand.heard(wire.Cancel)


def test_nobody_asks_for_a_client_without_work_or_one_that_says_nothing_of_itself() -> None:
    rig = Rig()
    rig.hand()
    caller(rig).is_lost()
    silent = rig.caller()
    silent.asks(turn(1))
    silent.is_lost()
    assert rig.looked == []


def test_whether_a_process_has_ended() -> None:
    pid, started, where = this()
    assert (pid, where) == (os.getpid(), host())
    assert not has_ended(pid, started)
    assert has_ended(pid, started - 1)  # its id has passed on to another
    assert not has_ended(pid, 0)
    assert not has_ended(1, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = started_at(child.pid)
        assert not has_ended(child.pid, began)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(child.pid, began)  # nobody has taken its status yet
        child.wait()
        assert has_ended(child.pid, began)
