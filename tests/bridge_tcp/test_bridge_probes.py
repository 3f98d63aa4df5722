"""Probes over the old protocol: what the port remembers of how they read, and what it says where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from bridges import Bridge
from cluster import Cluster
from slotted import MODEL

from clients.blocking import Client
from shell import old_protocol as port
from ssmprov.errors import SsmprovError


@pytest.fixture(scope="module")
def served(slotted: Cluster) -> Client:
    return slotted.client()


@pytest.fixture(scope="module")
def started(slotted: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("slots")
    config, ready = folder / "bridge.toml", folder / "ready"
    config.write_text(f"{slotted.config.read_text()}\n[[bridge]]\nport = 0\nmodel = {json.dumps(MODEL)}\n")
    arguments = ("-m", "bridge_tcp", "--config", str(config), "--index", "0", "--ready-file", str(ready))
    bridge = Bridge(slotted, slotted.start("bridge to slots", *arguments), ready)
    yield bridge
    bridge.process.kill()


@pytest.fixture
def slots(started: Bridge, served: Client) -> Iterator[Bridge]:
    """A bridge to the model with slots; its live context is empty, and probes read plainly."""
    yield started
    if served.ls(started.live, model=MODEL, reserved=True).rows:
        served.rm([started.live], model=MODEL)
    for request in ("/routing softmax", "/slotmask off"):
        assert started.say(request) == ""


def test_a_model_without_slots_says_so_and_nothing_changes(bridge: Any, client: Any) -> None:
    for request, label in {
        "/probe some text": "probe",
        "/routing": "routing",
        "/routing top1": "routing",
        "/slotmask 0 3": "slotmask",
    }.items():
        assert bridge.say(request).startswith(f"[{label} error] the runtime 'scripted' has no addressed slots")
    assert not client.ls(bridge.live, reserved=True).rows
    assert bridge.say("hello") == "ok"


def test_a_probe_reads_after_the_live_context_and_leaves_it_as_it_is(slots: Bridge, served: Client) -> None:
    assert slots.say("/probe some text").startswith("9 tokens read after the empty context; 2 heads of 5 slots")
    assert not served.ls(slots.live, model=MODEL, reserved=True).rows
    slots.say("/max 1")
    slots.say("hello")
    row = served.show(slots.live, model=MODEL).row
    assert slots.say("/probe some text").startswith(f"9 tokens read after {row.tokens} tokens of #{row.object[:12]};")
    assert served.show(slots.live, model=MODEL).row == row
    assert slots.say("/probe") == "[probe error] a probe needs a text of at least one character"


def test_the_port_remembers_how_probes_read(slots: Bridge) -> None:
    assert (slots.say("/routing"), slots.say("/slotmask")) == ("routing = softmax", "slotmask = off")
    assert (slots.say("/routing topk 3"), slots.say("/SLOTMASK 3, 0")) == ("", "")
    assert (slots.say("/routing"), slots.say("/slotmask")) == ("routing = topk 3", "slotmask = 0 3")
    for request, reply in {
        "/slotmask 7": "[slotmask error] slot 7 cannot be masked: this model's slots are 0..4",
        "/slotmask two": "[slotmask error] 'two' is not a slot",
        "/routing topk 9": "[routing error] topk = 9: this model has 5 slots",
        "/routing sideways": "[routing error] unknown routing 'sideways': use softmax, top1 or topk N",
    }.items():
        assert slots.say(request).startswith(reply)
    seen = slots.say("/probe some text")
    assert "\nrouting topk 3, slotmask 0 3 (read)\n" in seen
    assert "\ndivergence from plain reading: " in seen
    assert "routing = topk 3\nslotmask = 0 3\n" in slots.say("/?")
    assert (slots.say("/routing softmax"), slots.say("/slotmask off")) == ("", "")
    assert "divergence" not in slots.say("/probe some text")


def test_a_bang_line_before_a_probe_applies_first(slots: Bridge, served: Client) -> None:
    served.turn("primer", model=MODEL, save="bang-probe", max_tokens=0)
    assert slots.say("!bang-probe\n/probe x").startswith("1 tokens read after 6 tokens of #")
    assert served.text(slots.live, model=MODEL) == "primer"


def test_a_failed_probe_is_a_failure_for_the_shell_tools_too(slots: Bridge) -> None:
    for request in ("/probe", "/routing sideways", "/slotmask 7"):
        with pytest.raises(SsmprovError, match=r"\[\w+ error\]"):
            port.ask(slots.port, request)
