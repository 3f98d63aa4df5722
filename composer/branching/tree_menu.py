"""The menu of a checkpoint in the branch tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PyQt6.QtCore import pyqtSignal
from PyQt6.QtGui import QAction, QGuiApplication
from PyQt6.QtWidgets import QMenu, QWidget

from composer.branching.forest import Forest, Node
from ssmprov.names import specialist_of


class BranchMenu(QMenu):
    """Its signals say what the user wants to do with the checkpoint that it was filled for."""

    go_wanted = pyqtSignal(str)
    fork_wanted = pyqtSignal(str)
    compare_wanted = pyqtSignal(str, str)
    unname_asked = pyqtSignal(str)
    move_wanted = pyqtSignal(str, str)
    report_wanted = pyqtSignal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTipsVisible(True)

    def fill(self, forest: Forest | None, object: str, workers: Sequence[str]) -> None:
        """Offer the actions for `object`. The name of the current context cannot be removed."""
        self.clear()
        node = forest.nodes.get(object) if forest is not None else None
        if forest is None or node is None:
            return
        head, elsewhere = forest.head, object != forest.head
        _add(self, "&Go here", lambda: self.go_wanted.emit(object), elsewhere)
        _add(self, "&Fork here…", lambda: self.fork_wanted.emit(object))
        _add(self, "&Compare with current", lambda: self.compare_wanted.emit(head, object), elsewhere and bool(head))
        _add(self, "Copy &hash", lambda: _copy(f"#{object}"))
        for specialist in sorted(filter(None, map(specialist_of, node.names))):
            _add(self, f"&Report on {_plain(specialist)}", partial(self.report_wanted.emit, specialist))
        self.addSeparator()
        self._add_moves(node, workers)
        self._add_names(node, forest.name)

    def _add_moves(self, node: Node, workers: Sequence[str]) -> None:
        below = self._submenu("&Move to worker", bool(node.names and workers), "Only a named checkpoint can be moved")
        for name in node.names:
            under = below if len(node.names) == 1 else below.addMenu(_plain(name)) or below
            for worker in workers:
                here = node.pinned and worker == node.worker
                act = _add(under, _plain(worker), partial(self.move_wanted.emit, name, worker), not here)
                act.setCheckable(here)
                act.setChecked(here)
            if workers:
                under.addSeparator()
                _add(under, "&Any worker", partial(self.move_wanted.emit, name, ""), node.pinned)

    def _add_names(self, node: Node, current: str) -> None:
        names = [name for name in node.names if name != current]
        why = "There is no name to remove. The current context keeps its name."
        if len(names) == 1:
            _add(self, f"Remove the &name “{_plain(names[0])}”…", lambda: self.unname_asked.emit(names[0]))
            return
        below = self._submenu("Remove a &name", bool(names), why)
        for name in names:
            _add(below, f"{_plain(name)}…", partial(self.unname_asked.emit, name))

    def _submenu(self, title: str, possible: bool, why: str) -> QMenu:
        below = QMenu(title, self)
        below.setEnabled(possible)
        action = below.menuAction()
        if action is not None and not possible:
            action.setToolTip(why)
        self.addMenu(below)
        return below


def _add(menu: QMenu, text: str, wanted: Callable[[], None], possible: bool = True) -> QAction:
    def triggered() -> None:  # drops the `checked` argument that Qt passes
        wanted()

    action = QAction(text, menu)
    action.triggered.connect(triggered)
    action.setEnabled(possible)
    menu.addAction(action)
    return action


def _plain(name: str) -> str:
    """A name for a menu, where a single ampersand would mark a shortcut key."""
    return name.replace("&", "&&")


def _copy(text: str) -> None:
    clipboard = QGuiApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
