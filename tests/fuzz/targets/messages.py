"""Valid messages of every kind and operation: what the frames, the broker, the client and the worker are fed from."""

from __future__ import annotations

from fuzz.frames import join
from ssmprov import ops, wire
from ssmprov.errors import Problem

CLIENT, TURN, OTHER = b"c" * 16, b"t" * 16, b"o" * 16
CARD = wire.ModelCard(
    name="talk",
    runtime="scripted",
    fingerprint="f" * 64,
    architecture="scripted",
    vocabulary=300,
    state_bytes=0,
    dtype="fp32",
    settings="greedy",
)
PROBLEM = Problem("busy", "the queue is full", 100, {"head": "ab", "n": [1, {"a": None}]}, "talk/0", "Traceback")

ARGS = {
    "turn": ops.Turn("a", "ab" * 32, True, "greedy", {"temp": 0.5, "top_k": 3}, 7, 100, 200, True),
    "ckpt.ls": ops.List("a", "b", 10, True),
    "ckpt.show": ops.Show(True, 3, True),
    "ckpt.log": ops.Log(5, "ab" * 32),
    "ckpt.tree": ops.Tree(10),
    "ckpt.fork": ops.Fork(["b", "c/d"], ["talk/0", "talk/1"], True, True, "none"),
    "ckpt.move": ops.Move("talk/1"),
    "ckpt.rm": ops.Remove(["a", "b"]),
    "ckpt.export": ops.Export(),
    "ckpt.import": ops.Import("a", 100, "ab" * 32, True),
    "ckpt.verify": ops.Verify(),
    "ckpt.gc": ops.Collect(True),
    "ckpt.replay": ops.Replay("a", True),
    "probe": ops.Probe(routing="topk", topk=4, masked=[0, 3], where="content_read_only", top=7, reply_tokens=20),
    "settings.ls": ops.SettingsLs(),
    "settings.show": ops.SettingsShow("greedy"),
    "settings.set": ops.SettingsSet("mine", "greedy", {"temp": 1.0}),
    "status": ops.Status(),
    "settle": ops.Settle(TURN, wire.pack(PROBLEM), "a"),
    "warm": ops.Warm(),
}
ROW = ops.Row(
    name="a",
    object="ab" * 32,
    model="talk",
    fingerprint="f" * 64,
    parent="cd" * 32,
    tokens=5,
    bytes=1000,
    created=1.5,
    steps=2,
    pinned="talk/0",
    opaque=True,
    exact=False,
    stored=True,
)
STEP = ops.Step(
    object="ab" * 32,
    parent="cd" * 32,
    tokens=5,
    step_tokens=2,
    step_bytes=9,
    created=1.5,
    kind="turn",
    excerpt="text",
    stored=True,
    names=["a"],
)
SEEN = ops.LayerProbed(
    entropy=1.0, mean_entropy=1.5, top=[ops.SlotWeight(0, 3, 0.75)], gate=0.02, gamma=0.02, strength=0.1
)
NEXT = ops.NextToken(65, "a", 0.5)
RESULTS = (
    ops.TurnResult(
        stop="fence",
        name="a",
        object="ab" * 32,
        parent="cd" * 32,
        seed=7,
        tokens=5,
        prompt_tokens=3,
        reply_tokens=2,
        reply_bytes=9,
        prefill_tokens=0,
        restored="hot",
        exact=True,
        worker="talk/0",
        restore_ms=1.0,
        prompt_ms=2.0,
        reply_ms=3.0,
        commit_ms=4.0,
    ),
    ops.Page([ROW], True),
    ops.Shown(row=ROW, seed=7, settings={"temp": 0.5}, names=["a"]),
    ops.Steps([STEP, STEP], True),
    ops.ForkResult("ab" * 32, ["b"], {"b": "talk/0"}, 1.0),
    ops.Probed(
        layers=[SEEN, SEEN],
        next=[NEXT],
        heads=4,
        slots=16,
        max_entropy=2.77,
        tokens=5,
        context_tokens=9,
        prefill_tokens=2,
        object="ab" * 32,
        reply_tokens=3,
        reply_bytes=3,
        intervened=True,
        divergence=0.25,
        plain_next=[NEXT],
        plain_reply_tokens=3,
        plain_reply_bytes=3,
        worker="talk/0",
        ms=1.0,
    ),
    ops.Settled(True, wire.pack(None), "ab" * 32),
    ops.StatusResult(
        broker=ops.BrokerStatus(
            pid=1,
            uptime_s=2.0,
            clients=1,
            queued=0,
            running=0,
            accepted=3,
            answered=3,
            refused=0,
            requests_per_s=0.5,
            partials_per_s=0.5,
            draining=False,
        ),
        models=[ops.ModelStatus(name="talk", runtime="scripted", fingerprint="f" * 64)],
        workers=[
            ops.WorkerStatus(
                name="talk/0", model="talk", pid=1, host="here", epoch=1, state="ready", slots=8, running=0, hot_bytes=0
            )
        ],
        contexts={"talk:a": "talk/0"},
    ),
    None,
)

REQUESTS = [
    wire.Request(TURN, op, "talk", "a", 2, 5000, 32, 3, 1, CLIENT, wire.pack(args)) for op, args in ARGS.items()
]
MESSAGES: list[tuple[wire.Message, list[bytes]]] = [
    (wire.Hello(CLIENT, "client", (1, 2), 200, 100, "agent"), []),
    (wire.Hello(OTHER, "worker"), []),
    (
        wire.Register(
            worker="talk/0",
            model=CARD,
            store="store",
            slots=8,
            pid=4242,
            started=99,
            host="here",
            epoch=1,
            stall_ms=60_000,
            running=[wire.Running(id=TURN, attempt=1, client=CLIENT, op="turn", context="a", save="b")],
        ),
        [bytes(wire.pack({"a": "talk/0"}))],
    ),
    *((request, [b"text"] if request.op == "turn" else []) for request in REQUESTS),
    (wire.Accepted(TURN, 2, 3), []),
    (wire.Partial(TURN, 1, 1, 1, 0, 2), ["wörd".encode()]),
    (wire.Partial(TURN, 2, 1, 1, 0, 0, 5, 10), []),
    *((wire.Final(TURN, 1, 1, 2, 3, result=wire.pack(result)), [b"rest"]) for result in RESULTS),
    (wire.Final(TURN, 1, 1, 0, 0, PROBLEM), []),
    (
        wire.Final(TURN, 1, 1, 0, 0, None, result_frames=1, hot=["a"], pins={"a": ""}),
        [bytes(wire.pack(RESULTS[1])), b"x"],
    ),
    (wire.Cancel(TURN, "keep"), []),
    (wire.Credit(TURN, 5, 1, 3, 2), []),
    (wire.Pulse(progress=1, running=2, hot_bytes=3, tokens=4, prefill_tokens=5), []),
    (wire.Chunk(id=TURN, seq=1, attempt=1, epoch=1, offset=0, last=True), [b"data" * 20]),
    (wire.Bye("leaving", PROBLEM), []),
]


def seeds() -> list[bytes]:
    """Every message, its frames joined."""
    return [join(wire.encode(message, payloads)) for message, payloads in MESSAGES]
