"""Valid messages of every kind and operation: what the frames, the broker, the client and the worker are fed from."""

from __future__ import annotations

from fuzz.frames import join
from ssmprov import ops, wire
from ssmprov.errors import Problem

CLIENT, TURN, OTHER = b"c" * 16, b"t" * 16, b"o" * 16
CARD = wire.ModelCard("talk", "scripted", "f" * 64, "scripted", 300, 0, "fp32", "greedy")
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
    "probe": ops.Probe("topk", 4, [0, 3], "content_read_only", 7, 20),
    "settings.ls": ops.SettingsLs(),
    "settings.show": ops.SettingsShow("greedy"),
    "settings.set": ops.SettingsSet("mine", "greedy", {"temp": 1.0}),
    "status": ops.Status(),
    "settle": ops.Settle(TURN, wire.pack(PROBLEM), "a"),
    "warm": ops.Warm(),
}
ROW = ops.Row("a", "ab" * 32, "talk", "f" * 64, "cd" * 32, 5, 1000, 1.5, 2, "talk/0", True, False, True)
STEP = ops.Step("ab" * 32, "cd" * 32, 5, 2, 9, 1.5, "turn", "text", True, ["a"])
SEEN = ops.LayerProbed(1.0, 1.5, [ops.SlotWeight(0, 3, 0.75)], 0.02, 0.02, 0.1)
NEXT = ops.NextToken(65, "a", 0.5)
RESULTS = (
    ops.TurnResult("fence", "a", "ab" * 32, "cd" * 32, 7, 5, 3, 2, 9, 0, "hot", True, "talk/0", 1.0, 2.0, 3.0, 4.0),
    ops.Page([ROW], True),
    ops.Shown(ROW, 7, {"temp": 0.5}, 100, ["a"]),
    ops.Steps([STEP, STEP], True),
    ops.ForkResult("ab" * 32, ["b"], {"b": "talk/0"}, 1.0),
    ops.Probed([SEEN, SEEN], [NEXT], 4, 16, 2.77, 5, 9, 2, "ab" * 32, 3, 3, True, 0.25, [NEXT], 3, 3, "talk/0", 1.0),
    ops.Settled(True, wire.pack(None), "ab" * 32),
    ops.StatusResult(
        ops.BrokerStatus(1, 2.0, 1, 0, 0, 3, 3, 0, 0.5, 0.5, False),
        [ops.ModelStatus("talk", "scripted", "f" * 64)],
        [ops.WorkerStatus("talk/0", "talk", 1, "here", 1, "ready", 8, 0, 0)],
        {"talk:a": "talk/0"},
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
            running=[wire.Running(TURN, 1, CLIENT, "turn", "a", "b")],
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
    (wire.Pulse(1, 2, 3, 4, 5), []),
    (wire.Chunk(TURN, 1, 1, 1, 0, True), [b"data" * 20]),
    (wire.Bye("leaving", PROBLEM), []),
]


def seeds() -> list[bytes]:
    """Every message, its frames joined."""
    return [join(wire.encode(message, payloads)) for message, payloads in MESSAGES]
