"""The tree and the current path become one forest, and a long story is not indented a thousand times."""

from __future__ import annotations

import time

from cluster import busy
from hypothesis import given
from hypothesis import strategies as st

from composer.branching.forest import FOLD_FROM, KEEP_NEAR, Forest, Line, Node, lay_out, workers_of
from ssmprov.ops import BrokerStatus, Row, StatusResult, Step
from ssmprov.transcript import FENCE, full_step, half_step


def step(object: str, parent: str = "", names: list[str] | None = None, **more: object) -> Step:
    return Step(object=object, parent=parent, names=names or [], **{"tokens": 10, "step_tokens": 5, **more})  # type: ignore[arg-type]


def chain(count: int, start: str = "") -> list[Step]:
    """A lineage, newest first."""
    objects = [f"{start}{n}" for n in range(count)]
    pairs = zip(objects, ["", *objects], strict=False)
    return [step(one, parent, created=float(n)) for n, (one, parent) in enumerate(pairs)][::-1]


def objects(nodes: list[Node]) -> list[str]:
    return [node.object for node in nodes]


def flat(lines: list[Line]) -> list[str]:
    """All nodes, each nested list in brackets after the row it stands below."""
    shown = []
    for line in lines:
        shown.append(line.node.object if line.node is not None else f"{len(line.folded)} steps")
        if line.lines and line.node is not None:
            shown += ["(", *flat(line.lines), ")"]
    return shown


# root ── b ── c ── d (live)     the tree knows root, b, d and x; the log c, too
#         └── x (other) ── y (third)
TREE = [
    step("root"),
    step("b", "root"),
    step("x", "b", ["other"], created=3.0),
    step("y", "x", ["third"], created=4.0),
    step("d", "b", ["live"], created=2.0),
]
LOG = [step("d", "c", ["live"], created=2.0), step("c", "b"), step("b", "root"), step("root")]


def test_the_tree_and_the_steps_of_the_current_path_become_one_forest() -> None:
    forest = Forest.build(TREE, LOG, {}, {}, "live")
    assert objects(forest.path()) == ["root", "b", "c", "d"]
    assert forest.head == "d"
    assert [node.object for node in forest.nodes.values() if node.head] == ["d"]
    assert objects(forest.children("b")) == ["c", "x"]
    assert forest.parent("d") == forest.nodes["c"]
    assert forest.parent("root") is None
    assert [node.on_path for node in map(forest.nodes.__getitem__, ["root", "c", "x"])] == [True, True, False]


def test_the_mainline_is_the_current_path_and_else_the_newest_child() -> None:
    tree = [step("r"), step("a", "r", created=1.0), step("b", "r", created=3.0), step("c", "r", created=2.0)]
    assert objects(Forest.build(tree, [], {}, {}, "x").children("r")) == ["b", "c", "a"]
    on_a = Forest.build(tree, [step("a", "r", created=1.0), step("r")], {}, {}, "x")
    assert objects(on_a.children("r")) == ["a", "b", "c"]
    assert objects(on_a.siblings("c")) == ["a", "c", "b"]
    assert on_a.siblings("nothing") == []


def test_a_cut_lineage_hangs_below_its_nearest_listed_ancestor() -> None:
    tree = [step("r"), step("m", "r", ["old"]), step("z", "m", ["live"]), step("w", "m", ["w"])]
    log = [step("z", "y", ["live"]), step("y", "x")]
    forest = Forest.build(tree, log, {}, {}, "live")
    assert objects(forest.path()) == ["r", "m", "y", "z"]
    assert objects(forest.children("m")) == ["y", "w"]


def test_a_lineage_of_which_the_tree_knows_nothing_stands_alone() -> None:
    forest = Forest.build([step("r")], [step("z", "y"), step("y", "x")], {}, {}, "live")
    assert objects(forest.children("")) == ["y", "r"]
    assert objects(forest.path()) == ["y", "z"]


def test_a_head_without_a_log_is_found_by_its_name() -> None:
    rows = {"live": Row(name="live", object="d"), "gone": Row(name="gone", object="nowhere")}
    assert Forest.build(TREE, [], rows, {}, "live").head == "d"
    assert Forest.build(TREE, [], rows, {}, "gone").head == ""
    assert Forest.build([], [], {}, {}, "live").path() == []


def test_sizes_and_workers_come_with_the_names() -> None:
    rows = {
        "live": Row(name="live", object="d", bytes=123, pinned="mini/1"),
        "other": Row(name="other", object="x", bytes=5),
    }
    forest = Forest.build(TREE, LOG, rows, {"live": "mini/0", "other": "mini/0"}, "live")
    head, other, plain = (forest.nodes[key] for key in "dxc")
    assert (head.bytes, head.worker, head.pinned) == (123, "mini/1", True)
    assert (other.bytes, other.worker, other.pinned) == (5, "mini/0", False)
    assert (plain.bytes, plain.worker, plain.pinned) == (0, "", False)


def test_workers_are_those_of_one_model() -> None:
    broker = BrokerStatus(
        pid=1,
        uptime_s=1.0,
        clients=0,
        queued=0,
        running=0,
        accepted=0,
        answered=0,
        refused=0,
        requests_per_s=0.0,
        partials_per_s=0.0,
        draining=False,
    )
    contexts = {"mini:live": "mini/0", "mini:a/b": "mini/0", "other:live": "other/0"}
    status = StatusResult(broker=broker, models=[], workers=[], contexts=contexts, pins={"mini:live": "mini/1"})
    assert workers_of(status, "mini") == {"live": "mini/1", "a/b": "mini/0"}


def test_a_step_is_labelled_by_its_last_turn() -> None:
    asked = full_step(3, "USER", "tell me", "INTERFACE")
    found = [
        step("1", excerpt=asked + "Once upon\na time" + FENCE),
        step("2", excerpt=asked),
        step("3", excerpt=half_step(4, "FILE", "x" * 500)[:240]),
        step("4", excerpt="just\x00 a \n text"),
        step("5", kind="import"),
        step("6"),
    ]
    nodes = Forest.build(found, [], {}, {}, "").nodes
    shown = {key: (node.title, node.excerpt, node.label) for key, node in nodes.items()}
    assert shown["1"] == ("Turn 4 INTERFACE", "Once upon a time", "Turn 4 INTERFACE")
    assert shown["2"] == ("Turn 4 INTERFACE", "tell me", "Turn 4 INTERFACE")
    assert shown["3"] == ("Turn 4 FILE", "x" * 99 + "…", "Turn 4 FILE")
    assert shown["4"] == ("", "just a text", "just a text")
    assert shown["5"] == ("imported state", "", "imported state")
    assert shown["6"] == ("", "", "#6")


def test_a_chain_is_one_list_and_other_branches_stand_below_where_they_part() -> None:
    lines = lay_out(Forest.build(TREE, LOG, {}, {}, "live"))
    assert flat(lines) == ["root", "b", "(", "x", "y", ")", "c", "d"]
    starts = [line.node.object for line in [*lines, *lines[1].lines] if line.starts and line.node]
    assert starts == ["root", "x"]


def test_several_branches_at_one_place_follow_each_other_newest_first() -> None:
    tree = [step("r"), *(step(f"a{n}", "r", created=float(n)) for n in range(3)), step("b", "a1", created=9.0)]
    assert flat(lay_out(Forest.build(tree, [], {}, {}, ""))) == ["r", "(", "a1", "b", "a0", ")", "a2"]


def test_a_long_run_of_plain_steps_is_folded() -> None:
    log = chain(40)
    log[20].names.append("named")
    lines = lay_out(Forest.build([], log, {}, {}, "live"))
    near = [str(n) for n in range(39 - KEEP_NEAR, 40)]
    assert flat(lines) == ["0", "18 steps", "19", "15 steps", *near]
    assert [line.node.object for line in lines[1].lines if line.node] == [str(n) for n in range(1, 19)]


def test_a_short_run_is_not_folded() -> None:
    lines = lay_out(Forest.build([], chain(FOLD_FROM + KEEP_NEAR + 1), {}, {}, "live"))
    assert all(line.node is not None for line in lines)


def test_a_place_where_branches_part_is_never_folded_away() -> None:
    tree = [step("20", "0"), step("side", "20", ["side"])]
    assert "20" in flat(lay_out(Forest.build(tree, chain(40), {}, {}, "live")))


def test_ten_thousand_steps_and_two_thousand_branches_take_no_stack_and_little_time() -> None:
    log = chain(10_000)
    for one in log:
        one.excerpt = full_step(1, "USER", "tell me", "INTERFACE")
    deep = [step(f"d{n}", f"d{n - 1}" if n else "5000", [f"n{n}"]) for n in range(2000)]
    begun = time.perf_counter()
    forest = Forest.build([step("5000"), *deep], log, {}, {}, "live")
    lines = lay_out(forest)
    assert time.perf_counter() - begun < 5 * busy()  # 0.3 s on a quiet machine
    assert len(forest) == 12_000
    assert len(forest.path()) == 10_000
    assert flat(lines).count("(") == 1


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    count = draw(st.integers(1, 30))
    tree = []
    for n in range(count):
        parent = draw(st.integers(-1, n - 1))
        tree.append(step(str(n), str(parent) if parent >= 0 else "", created=float(draw(st.integers(0, 5)))))
    by_object = {one.object: one for one in tree}
    log = []
    at = draw(st.sampled_from(["", *by_object]))
    while at:
        log.append(by_object[at])
        at = by_object[at].parent
    return Forest.build(tree, log[: draw(st.integers(0, 30))], {}, {}, "live")


@given(forests())
def test_every_node_is_shown_once_and_below_or_behind_its_parent(forest: Forest) -> None:
    seen: dict[str, str] = {}
    pending: list[tuple[str, list[Line]]] = [("", lay_out(forest))]
    while pending:
        above, lines = pending.pop()
        last = above
        for line in lines:
            shown = line.folded or ((line.node,) if line.node else ())
            for index, node in enumerate(shown):
                assert node.object not in seen
                starts = line.starts and index == 0
                seen[node.object] = above if starts else last
                last = node.object
            if line.node is not None:
                pending.append((line.node.object, line.lines))
            else:
                assert [inner.node for inner in line.lines] == list(line.folded)
                assert not any(inner.lines for inner in line.lines)
    assert seen == {node.object: node.parent for node in forest.nodes.values()}
