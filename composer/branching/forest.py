"""The checkpoints that the window shows as a tree: named ones, branch points, and each step of the current path.

The broker's tree contains only named checkpoints, branch points and roots. The log contains every step of one lineage,
or only the newest steps. Together they make a forest, which `lay_out` turns into rows. Nothing here recurses, because
a lineage may be longer than Python's stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssmprov.ops import Row, StatusResult, Step
from ssmprov.transcript import turns_of

_SNIPPET = 100
_KINDS = {"import": "imported state", "replay": "replayed from text"}

FOLD_FROM = 8
"""At least this many plain steps in a row are folded into one row."""
KEEP_NEAR = 4
"""The last steps before the head are never folded, because people go back to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A checkpoint. `parent` is its nearest shown ancestor, '' for a root. `step_tokens` tokens were read since then.

    `title` is its last turn ("Turn 12 INTERFACE"), `excerpt` the beginning of that turn's text. `bytes` is 0 if it is
    not known. `worker` is the one that keeps it in memory, '' for none.
    """

    object: str
    parent: str = ""
    names: tuple[str, ...] = ()
    tokens: int = 0
    step_tokens: int = 0
    created: float = 0.0
    title: str = ""
    excerpt: str = ""
    bytes: int = 0
    worker: str = ""
    pinned: bool = False
    stored: bool = True
    on_path: bool = False
    head: bool = False

    @property
    def label(self) -> str:
        """A short description."""
        return self.title or self.excerpt or f"#{self.object[:12]}"


@dataclass(frozen=True, slots=True)
class Forest:
    """Nodes by object. `name` is the current context, `head` its checkpoint ('' if it has read nothing)."""

    nodes: Mapping[str, Node]
    name: str = ""
    head: str = ""
    _children: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        tree: Sequence[Step],
        log: Sequence[Step],
        rows: Mapping[str, Row],
        workers: Mapping[str, str],
        name: str,
    ) -> Forest:
        """Combine the contracted tree and the current path (newest first, possibly cut off).

        `rows` and `workers` are keyed by name: the listed checkpoints, and the workers that hold or pin them.
        """
        steps = {step.object: step for step in tree}
        parents = {step.object: step.parent if step.parent in steps else "" for step in tree}
        above = _above_cut(log, parents)
        steps.update({step.object: step for step in log})
        parents.update({step.object: step.parent for step in log})
        if log:
            parents[log[-1].object] = above
        head = log[0].object if log else _object_of(rows, name, steps)
        path = _path(parents, head)
        listed = {row.object: row for row in rows.values()}
        nodes = {
            key: _node(step, parents[key], rows, listed.get(key), workers, on_path=key in path, head=key == head)
            for key, step in steps.items()
        }
        return cls(nodes, name, head, _children_of(nodes))

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, object: str) -> bool:
        return object in self.nodes

    def parent(self, object: str) -> Node | None:
        node = self.nodes.get(object)
        return self.nodes.get(node.parent) if node is not None else None

    def children(self, object: str) -> list[Node]:
        """The main child first: the one on the current path, or else the newest. Then the others, newest first.

        The children of '' are the roots.
        """
        return [self.nodes[child] for child in self._children.get(object, ())]

    def siblings(self, object: str) -> list[Node]:
        """All nodes that continue the same checkpoint, this one included, oldest first."""
        node = self.nodes.get(object)
        return sorted(self.children(node.parent), key=_age) if node is not None else []

    def path(self) -> list[Node]:
        """The current path, root first."""
        found: list[Node] = []
        node = self.nodes.get(self.head)
        while node is not None:
            found.append(node)
            node = self.nodes.get(node.parent)
        return found[::-1]


@dataclass(slots=True, kw_only=True)
class Line:
    """A row of the tree: a node, or a run of folded steps. `lines` are nested below it.

    `starts` is true if the row begins a branch; otherwise it continues the previous row of the same list.
    """

    key: str
    node: Node | None = None
    folded: tuple[Node, ...] = ()
    starts: bool = False
    lines: list[Line] = field(default_factory=list)


def lay_out(forest: Forest) -> list[Line]:
    """The rows. A chain is one list, however long; other branches are nested below their branch point."""
    top: list[Line] = []
    pending = [(top, root.object) for root in reversed(forest.children(""))]
    while pending:
        target, object = pending.pop()
        chain: list[Line] = []
        others: list[tuple[list[Line], str]] = []
        following: Node | None = forest.nodes[object]
        while following is not None:
            line = Line(key=following.object, node=following, starts=not chain)
            chain.append(line)
            below = forest.children(following.object)
            others += [(line.lines, other.object) for other in reversed(below[1:])]
            following = below[0] if below else None
        target += _folded(forest, chain)
        pending += others
    return top


def workers_of(status: StatusResult, model: str) -> dict[str, str]:
    """The workers that hold or pin the contexts of a model, by name of the context."""
    lead = f"{model}:"
    found = {**status.contexts, **status.pins}
    return {key.removeprefix(lead): worker for key, worker in found.items() if key.startswith(lead)}


def _folded(forest: Forest, chain: Sequence[Line]) -> list[Line]:
    """The chain, with long runs of plain steps folded."""
    shown: list[Line] = []
    run: list[Line] = []
    for index, line in enumerate(chain):
        node = line.node
        assert node is not None
        near = index >= len(chain) - 1 - KEEP_NEAR
        parts = len(forest.children(node.object)) > 1
        plain = not (line.starts or near or parts or node.names or node.head)
        if plain:
            run.append(line)
            continue
        shown += _fold(run)
        run = []
        shown.append(line)
    return shown + _fold(run)


def _fold(run: list[Line]) -> list[Line]:
    if len(run) < FOLD_FROM:
        return run
    nodes = tuple(line.node for line in run if line.node is not None)
    return [Line(key=f"fold:{nodes[0].object}", node=None, folded=nodes, lines=run)]


def _above_cut(log: Sequence[Step], parents: Mapping[str, str]) -> str:
    """The parent node in the tree of the oldest step of the log."""
    if not log:
        return ""
    if log[-1].parent in parents:
        return log[-1].parent
    seen = {step.object for step in log}
    oldest = next((step.object for step in reversed(log) if step.object in parents), "")
    above = parents.get(oldest, "")
    return "" if above in seen else above


def _object_of(rows: Mapping[str, Row], name: str, steps: Mapping[str, Step]) -> str:
    row = rows.get(name)
    return row.object if row is not None and row.object in steps else ""


def _path(parents: Mapping[str, str], head: str) -> dict[str, None]:
    """From the head to its root, in order. Stops at a cycle, although no store should contain one."""
    path: dict[str, None] = {}
    while head and head in parents and head not in path:
        path[head] = None
        head = parents[head]
    return path


def _children_of(nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    children: dict[str, list[Node]] = {}
    for node in nodes.values():
        children.setdefault(node.parent, []).append(node)
    for below in children.values():
        below.sort(key=_age, reverse=True)
        below.sort(key=lambda node: not node.on_path)
    return {key: tuple(node.object for node in below) for key, below in children.items()}


def _age(node: Node) -> tuple[float, str]:
    return node.created, node.object


def _node(
    step: Step,
    parent: str,
    rows: Mapping[str, Row],
    row: Row | None,
    workers: Mapping[str, str],
    *,
    on_path: bool,
    head: bool,
) -> Node:
    title, excerpt = _says(step)
    pin = next((rows[name].pinned for name in step.names if name in rows and rows[name].pinned), "")
    hot = next((workers[name] for name in step.names if name in workers), "")
    return Node(
        object=step.object,
        parent=parent,
        names=tuple(step.names),
        tokens=step.tokens,
        step_tokens=step.step_tokens,
        created=step.created,
        title=title,
        excerpt=excerpt,
        bytes=row.bytes if row is not None else 0,
        worker=pin or hot,
        pinned=bool(pin),
        stored=step.stored,
        on_path=on_path,
        head=head,
    )


def _says(step: Step) -> tuple[str, str]:
    """The title of the last turn in the excerpt, and the text of the last turn that has any."""
    turns = turns_of(step.excerpt) if "(Turn" in step.excerpt else []
    if not turns:
        return _KINDS.get(step.kind, ""), _line_of(step.excerpt)
    said = (_line_of(turn.content) for turn in reversed(turns))
    return f"Turn {turns[-1].number} {turns[-1].role}", next(filter(None, said), "")


def _line_of(text: str) -> str:
    """The beginning of a text on one line."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _SNIPPET else words[: _SNIPPET - 1].rstrip() + "…"
