"""The dock with the tree of branches and the buttons for the chosen checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import QModelIndex, QPoint, Qt, QTimer, pyqtSignal
from PyQt6.QtGui import QKeyEvent, QResizeEvent
from PyQt6.QtWidgets import (
    QAbstractItemView,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QStackedLayout,
    QStyle,
    QToolButton,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from composer.branching.forest import Forest, lay_out
from composer.branching.question import Question
from composer.branching.tree_delegate import TreeDelegate
from composer.branching.tree_menu import BranchMenu
from composer.branching.tree_model import AGE, SIZE, TOKENS, WHAT, WORKER, TreeModel

NOTHING = "There are no branches yet. They appear when you send the first turn."
_AGES_EVERY_MS = 30_000
_OPEN_AT_FIRST = 300
"""With more branching rows than this, rows off the current path start collapsed."""
_ROOM_EMS = {TOKENS: 29, SIZE: 33, WORKER: 37, AGE: 42}
"""The least width of the tree, in ems, that shows a column. The tooltip shows hidden columns."""
_WIDTHS = {TOKENS: "000,000  ", SIZE: "000.0 MiB  ", WORKER: "10 (pinned)  ", AGE: "59 min  "}


class _Tree(QTreeView):
    """The view. Delete asks to remove a name, and the width decides which columns are shown."""

    unname_pressed = pyqtSignal()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Delete:
            self.unname_pressed.emit()
            return
        super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        em = self.fontMetrics().horizontalAdvance("m")
        for column, room in _ROOM_EMS.items():
            self.setColumnHidden(column, self.width() < room * em)


class TreeDock(QDockWidget):
    """Shows a forest. It changes nothing itself; its signals say what the user wants."""

    go_wanted = pyqtSignal(str)
    fork_wanted = pyqtSignal(str)
    compare_wanted = pyqtSignal(str, str)
    unname_wanted = pyqtSignal(str)
    move_wanted = pyqtSignal(str, str)
    report_wanted = pyqtSignal(str)
    refresh_wanted = pyqtSignal()
    chosen_changed = pyqtSignal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Branches", parent)
        self.setObjectName("branches")
        self._forest: Forest | None = None
        self._workers: tuple[str, ...] = ()
        self._open: dict[str, bool] = {}
        self._restoring = False
        self._asked = ""
        self._model = TreeModel(self)
        self.tree = _Tree()
        self._reason = QLabel(NOTHING)
        self.question = Question("&Remove", "&Keep")
        self.menu = BranchMenu(self)
        self._build()
        self._ages = QTimer(self)
        self._ages.setInterval(_AGES_EVERY_MS)
        self._ages.timeout.connect(self._model.tell_ages)
        self._ages.start()
        self._tell_choice()

    # -- used by the window

    def show_forest(self, forest: Forest | None, workers: Sequence[str], why: str = "") -> None:
        """Show a forest, or say why there is none. The choice and the expanded rows stay."""
        self._workers = tuple(workers)
        self._stack.setCurrentIndex(0 if forest else 1)
        self._reason.setText(why or NOTHING)
        if forest == self._forest:
            return
        line = self._model.line(self.tree.currentIndex())
        key, before = line.key if line is not None else "", self._forest
        bar = self.tree.verticalScrollBar()
        place = bar.value() if bar is not None else 0
        self._forest = forest
        self._model.show_lines(lay_out(forest) if forest is not None else [])
        self._restore_open()
        follow = forest is not None and (before is None or before.head != forest.head)
        if forest is not None:
            was_head = follow and before is not None and key == before.head
            gone = not self._model.index_of(key).isValid()
            self.choose(forest.head if was_head or gone else key, scroll=follow)
        if bar is not None and not follow:
            bar.setValue(place)
        self._tell_choice()

    @property
    def chosen(self) -> str:
        """The chosen checkpoint, '' for none."""
        line = self._model.line(self.tree.currentIndex())
        return line.node.object if line is not None and line.node is not None else ""

    def choose(self, object: str, *, scroll: bool = True) -> None:
        """Choose a checkpoint and expand the rows above it."""
        index = self._model.index_of(object)
        if not index.isValid():
            return
        self.tree.setCurrentIndex(index)
        if scroll:
            self.tree.scrollTo(index)  # this also expands the rows above it

    def choose_head(self) -> None:
        if self._forest is not None:
            self.choose(self._forest.head)

    def choose_parent(self) -> None:
        if self._forest is not None and (node := self._forest.parent(self._from())) is not None:
            self.choose(node.object)

    def choose_child(self) -> None:
        if self._forest is not None and (below := self._forest.children(self._from())):
            self.choose(below[0].object)

    def choose_sibling(self, by: int) -> None:
        """Choose the next (1) or previous (-1) node that continues the same checkpoint. Wraps around at the ends."""
        if self._forest is None or not (beside := self._forest.siblings(self._from())):
            return
        objects = [node.object for node in beside]
        self.choose(objects[(objects.index(self._from()) + by) % len(objects)])

    def ask_unname(self, name: str) -> None:
        """Ask in the dock whether to remove a name."""
        self._asked = name
        self.question.ask(
            f"Remove the name “{name}”? The next clean-up deletes its checkpoint unless another name keeps it."
        )

    # -- internals

    def _build(self) -> None:
        tree = self.tree
        tree.setModel(self._model)
        tree.setItemDelegate(TreeDelegate(tree))
        tree.setAccessibleName("Branches")
        tree.setUniformRowHeights(True)
        tree.setAllColumnsShowFocus(True)
        tree.setFrameShape(QFrame.Shape.NoFrame)
        tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        tree.setExpandsOnDoubleClick(False)
        tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        tree.setIndentation(round(1.5 * tree.fontMetrics().horizontalAdvance("m")))
        tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = tree.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionsMovable(False)
            header.setSectionResizeMode(WHAT, QHeaderView.ResizeMode.Stretch)
            for column, widest in _WIDTHS.items():
                header.resizeSection(column, tree.fontMetrics().horizontalAdvance(widest))
        tree.activated.connect(self._activate)
        tree.unname_pressed.connect(self._ask_for_chosen)
        tree.customContextMenuRequested.connect(self._show_menu)
        tree.expanded.connect(lambda index: self._remember(index, True))
        tree.collapsed.connect(lambda index: self._remember(index, False))
        selection = tree.selectionModel()
        if selection is not None:
            selection.currentChanged.connect(self._tell_choice)

        self.menu.aboutToShow.connect(self._fill_menu)
        self.menu.go_wanted.connect(self.go_wanted)
        self.menu.fork_wanted.connect(self.fork_wanted)
        self.menu.compare_wanted.connect(self.compare_wanted)
        self.menu.move_wanted.connect(self.move_wanted)
        self.menu.report_wanted.connect(self.report_wanted)
        self.menu.unname_asked.connect(self.ask_unname)
        self.question.accepted.connect(self._unname)
        self.question.declined.connect(lambda: tree.setFocus(Qt.FocusReason.OtherFocusReason))

        gap = tree.fontMetrics().height() // 2
        self._reason.setWordWrap(True)
        self._reason.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._reason.setMargin(2 * gap)
        self._stack = QStackedLayout()
        self._stack.addWidget(tree)
        self._stack.addWidget(self._reason)
        self._stack.setCurrentIndex(1)

        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(self._stack, 1)
        layout.addWidget(self.question)
        layout.addLayout(self._build_buttons(gap))
        self.setWidget(body)

    def _build_buttons(self, gap: int) -> QHBoxLayout:
        def button(text: str, tip: str) -> QToolButton:
            made = QToolButton()
            made.setText(text)
            made.setToolTip(tip)
            made.setAccessibleName(text.replace("&", "").rstrip("…"))
            made.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            made.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
            return made

        self._go = button("Go here", "Move the current context to the chosen checkpoint (Enter)")
        self._go.clicked.connect(lambda: self.go_wanted.emit(self.chosen))
        self._fork = button("Fork here…", "Give the chosen checkpoint a new name")
        self._fork.clicked.connect(lambda: self.fork_wanted.emit(self.chosen))
        self._compare = button("Compare", "Compare the chosen checkpoint with the current one")
        self._compare.clicked.connect(lambda: self.compare_wanted.emit(self._forest_head(), self.chosen))
        self._more = button("More", "More actions for the chosen checkpoint")
        self._more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._more.setMenu(self.menu)
        refresh = button("Refresh", "Load the branches from the broker again")
        style = self.style()
        if style is not None:
            refresh.setIcon(style.standardIcon(QStyle.StandardPixmap.SP_BrowserReload))
        refresh.clicked.connect(self.refresh_wanted)
        row = QHBoxLayout()
        row.setContentsMargins(gap, gap, gap, gap)
        row.setSpacing(gap)
        for made in (self._go, self._fork, self._compare, self._more):
            row.addWidget(made)
        row.addStretch(1)
        row.addWidget(refresh)
        return row

    def _forest_head(self) -> str:
        return self._forest.head if self._forest is not None else ""

    def _from(self) -> str:
        return self.chosen or self._forest_head()

    def _activate(self, index: QModelIndex) -> None:
        line = self._model.line(index)
        if line is None:
            return
        if line.node is None:
            first = index.siblingAtColumn(WHAT)
            self.tree.setExpanded(first, not self.tree.isExpanded(first))
        elif not line.node.head:
            self.go_wanted.emit(line.node.object)

    def _tell_choice(self) -> None:
        chosen, head = self.chosen, self._forest_head()
        self._go.setEnabled(bool(chosen) and chosen != head)
        self._compare.setEnabled(bool(chosen) and bool(head) and chosen != head)
        self._fork.setEnabled(bool(chosen))
        self._more.setEnabled(bool(chosen))
        self.chosen_changed.emit(chosen)

    def _restore_open(self) -> None:
        """Expand what was expanded. At first, expand rows with branches below them, but no folded runs."""
        rows = list(self._model.branching())
        few = len(rows) <= _OPEN_AT_FIRST
        self._restoring = True
        for index in rows:
            line = self._model.line(index)
            if line is not None:
                first = line.node is not None and (few or line.node.on_path)
                self.tree.setExpanded(index, self._open.get(line.key, first))
        self._restoring = False

    def _remember(self, index: QModelIndex, is_open: bool) -> None:
        line = self._model.line(index)
        if line is not None and not self._restoring:
            self._open[line.key] = is_open

    def _fill_menu(self) -> None:
        self.menu.fill(self._forest, self.chosen, self._workers)

    def _show_menu(self, place: QPoint) -> None:
        index = self.tree.indexAt(place)
        if index.isValid():
            self.tree.setCurrentIndex(index.siblingAtColumn(WHAT))
        view = self.tree.viewport()
        if self.chosen and view is not None:
            self.menu.popup(view.mapToGlobal(place))

    def _ask_for_chosen(self) -> None:
        """Ask to remove the name of the chosen row. If it has several, open the menu to choose one."""
        node = self._forest.nodes.get(self.chosen) if self._forest is not None else None
        if node is None or self._forest is None:
            return
        names = [name for name in node.names if name != self._forest.name]
        if len(names) == 1:
            self.ask_unname(names[0])
        elif names:
            self._more.showMenu()

    def _unname(self) -> None:
        self.tree.setFocus(Qt.FocusReason.OtherFocusReason)
        self.unname_wanted.emit(self._asked)
