"""The main window: it lays out the panels and connects their signals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PyQt6.QtCore import QEvent, QPoint, QProcess, Qt, QTimer, QUrl
from PyQt6.QtGui import QCloseEvent, QDesktopServices
from PyQt6.QtWidgets import (
    QApplication,
    QDockWidget,
    QFileDialog,
    QMainWindow,
    QMenu,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from clients import Client
from composer import guide
from composer.actions import Actions
from composer.branching.tree_dock import TreeDock
from composer.conductor import Conductor
from composer.desk import Desk
from composer.keeping import Keeper
from composer.link import Link
from composer.moves import Moves
from composer.panels.notice_bar import NoticeBar
from composer.panels.sampling_panel import SamplingPanel
from composer.panels.status_line import StatusLine
from composer.panels.workers_panel import WorkersPanel
from composer.reading.book import Book
from composer.reading.transcript_pane import TranscriptPane
from composer.serving import Server, program
from composer.slash import Slashes
from composer.steering import Steering
from composer.troubles import Troubles
from composer.watching import Watcher
from composer.writing.compose_panel import ComposePanel
from composer.writing.draft import Draft
from ssmprov.configuration import CONFIG_FILE
from ssmprov.names import SPECIALISTS
from transcripts.record import Record

CLOSE_MS = 5000
"""How long closing waits for the running turn to end."""


class Window(QMainWindow):
    """Shows the transcript of one directory and continues it with a context."""

    def __init__(self, client: Client, directory: Path, home: Path, model: str = "", context: str = "") -> None:
        super().__init__()
        self.directory = directory
        self.setWindowTitle(f"{directory.name or directory} — Composer")
        self.setObjectName("composer")
        self.setDockNestingEnabled(True)
        self.link = Link(client, self)
        self.book = Book(directory, self)
        self.conductor = Conductor(self.link, self.book, Record(directory), self)
        self.moves = Moves(self.conductor, self)
        self.watcher = Watcher(self.conductor, self)
        self.server = Server(home, self)
        self._home = home
        self.notices = NoticeBar(self)
        self.pane = TranscriptPane(self.book, self)
        self.compose = ComposePanel(directory, self)
        self.sampling = SamplingPanel(self)
        self.workers = WorkersPanel(self)
        self.status_line = StatusLine(self)
        self.tree = TreeDock(self)
        self.desk = Desk(self.conductor, self.moves, self.watcher, self.pane, self.compose, self)
        self.slashes = Slashes(self.conductor, self.moves, self.watcher, self.sampling, self)
        self.steering = Steering(
            self.conductor,
            self.moves,
            self.watcher,
            self.workers,
            self.sampling,
            self.tree,
            self.status_line,
            self.notices,
        )
        embedded = not (home / CONFIG_FILE).exists()
        offer = "Start with the embedded model" if embedded else "Start a broker"
        self.troubles = Troubles(
            self.notices,
            offer,
            lambda: None if self.server.running else self.serve,
            self.steering.refresh,
            self.steering.offers,
        )
        self.keeper = Keeper(self, directory, self.pane, self.compose, self.sampling, self.workers, self.troubles)
        self._arrange()
        self.actions_ = Actions(self, self._do())
        self._send_keys = self.actions_.add_send_keys(self, self._choose_send_key)
        self._connect()
        self._closing = False
        self.keeper.restore(self.conductor.own.now, model, context)
        self._choose_send_key(self.compose.send_key)
        self._show_checks()
        self.steering.start(self.keeper.used)
        self.troubles.report("book", self.book.trouble_now, error=True)
        self.troubles.report("context", self.conductor.own.trouble_now, error=True)
        self.conductor.launch()
        self.watcher.start()
        self._enable()

    def _arrange(self) -> None:
        middle = QWidget()
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.notices)
        column.addWidget(self.pane, 1)
        self.setCentralWidget(middle)
        self.compose_dock = QDockWidget("Write", self)
        self.compose_dock.setObjectName("compose")
        self.compose_dock.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetMovable)
        self.compose_dock.setWidget(self.compose)
        self.tree.setObjectName("tree")
        self.settings_dock = QDockWidget("Model and sampling", self)
        self.settings_dock.setObjectName("settings")
        panels = QWidget()
        stacked = QVBoxLayout(panels)
        stacked.addWidget(self.workers)
        stacked.addWidget(self.sampling)
        stacked.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(panels)
        self.settings_dock.setWidget(scroll)
        left = Qt.DockWidgetArea.LeftDockWidgetArea
        self.addDockWidget(left, self.compose_dock)
        self.addDockWidget(left, self.tree)
        self.addDockWidget(left, self.settings_dock)
        self.setTabPosition(Qt.DockWidgetArea.AllDockWidgetAreas, QTabWidget.TabPosition.North)
        self.tabifyDockWidget(self.tree, self.settings_dock)
        self.tree.raise_()
        em = self.fontMetrics().horizontalAdvance("M")
        self.resize(em * 110, em * 66)
        self.resizeDocks([self.compose_dock], [em * 38], Qt.Orientation.Horizontal)
        self.resizeDocks([self.compose_dock, self.tree], [em * 20, em * 40], Qt.Orientation.Vertical)
        bar = self.statusBar()
        assert bar is not None, "a main window always has a status bar"
        bar.addPermanentWidget(self.status_line, 1)
        QWidget.setTabOrder(self.compose, self.pane)

    # -- signals

    def _connect(self) -> None:
        conductor, watcher = self.conductor, self.watcher
        self.compose.sent.connect(self._send)
        self.compose.stop_wanted.connect(conductor.stop)
        self.compose.files_dropped.connect(self.desk.put)
        self.compose.trouble.connect(lambda text: self.troubles.report("compose", text))
        self.pane.files_dropped.connect(self.desk.put)
        self.pane.menu_wanted.connect(self._turn_menu)
        self.pane.link_clicked.connect(self._ask_link)
        self.pane.turn_chosen.connect(lambda _index: self._enable())
        self.book.trouble.connect(lambda text: self.troubles.report("book", text, error=True))
        conductor.busy_changed.connect(self.compose.set_busy)
        conductor.busy_changed.connect(lambda _busy: self._enable())
        conductor.accepted.connect(self.compose.accept)
        conductor.refused.connect(self.compose.restore)
        conductor.trouble.connect(self.troubles.show)
        conductor.hint.connect(self.troubles.hint)
        conductor.scene_changed.connect(lambda _scene: self._enable())
        self.moves.history_changed.connect(self._enable)
        self.moves.forked.connect(lambda name: self.troubles.hint(f"Forked as {name}."))
        watcher.unreached.connect(self.troubles.show)
        self.steering.reached.connect(self.troubles.reached)
        self.steering.settled.connect(self.troubles.settled)
        conductor.own.trouble.connect(lambda text: self.troubles.report("context", text, error=True))
        self.sampling.save_wanted.connect(self.slashes.save_set)
        self.workers.worker_chosen.connect(self._pin)
        self.workers.start_wanted.connect(self.serve)
        self.tree.go_wanted.connect(self.moves.go_to)
        self.tree.fork_wanted.connect(self.desk.fork)
        self.tree.compare_wanted.connect(self.desk.compare)
        self.slashes.probed.connect(lambda text: guide.show_probe(self, text))
        self.tree.unname_wanted.connect(self.slashes.unname)
        self.tree.move_wanted.connect(self.slashes.move)
        self.tree.report_wanted.connect(self._open_report)
        self.tree.refresh_wanted.connect(watcher.look_at_tree)
        self.tree.visibilityChanged.connect(lambda _visible: self._show_checks())
        self.settings_dock.visibilityChanged.connect(lambda _visible: self._show_checks())
        self.server.ready.connect(self._served)
        self.server.failed.connect(self._not_served)

    def _do(self) -> dict[str, Callable[[], object]]:
        desk, moves, pane, tree = self.desk, self.moves, self.pane, self.tree
        return {
            "put": desk.choose_files, "open": self._open_directory, "save_copy": desk.save_copy,
            "serve": self.serve, "stop_serving": self.stop_serving, "quit": self.close,
            "send": self.compose.send, "half": self.compose.send_half, "full": self.compose.send_full,
            "raw": self.compose.send_raw, "go_on": desk.go_on, "close_turn": desk.close_turn,
            "stop": self._stop, "drop": lambda: self.conductor.stop("drop"),
            "previous": lambda: pane.choose_step(-1), "next": lambda: pane.choose_step(1),
            "copy": desk.copy, "quote": desk.quote,
            "undo": moves.undo, "redo": moves.redo, "reroll": desk.reroll, "rerolls": desk.rerolls, "edit": desk.edit,
            "back": desk.go_back, "fork": desk.fork, "compare": self._compare_chosen, "go_chosen": self._go_chosen,
            "parent": tree.choose_parent, "child": tree.choose_child, "sibling": lambda: tree.choose_sibling(1),
            "sibling_before": lambda: tree.choose_sibling(-1), "reread": moves.reread,
            "tab": self._turn_tab, "find": pane.show_search, "find_next": pane.find_next,
            "find_previous": pane.find_previous, "earlier": pane.load_earlier, "end": pane.jump_to_end,
            "larger": lambda: pane.zoom(1), "smaller": lambda: pane.zoom(-1), "usual": lambda: pane.zoom(0),
            "prompt": self.compose.focus_prompt, "reader": pane.setFocus,
            "tree": lambda: self._toggle(self.tree), "settings": lambda: self._toggle(self.settings_dock),
            "refresh": self.steering.refresh, "full_screen": self._full_screen,
            "edit_s1": lambda: self.compose.edit_list("s1"), "edit_s2": lambda: self.compose.edit_list("s2"),
            "edit_s3": lambda: self.compose.edit_list("s3"),
            "keys": lambda: guide.show_keys(self, self.actions_.send_key), "about": lambda: guide.show_about(self),
        }  # fmt: skip

    # -- turns

    def _send(self, draft: Draft) -> None:
        self.notices.clear()
        if draft.slash:
            self.slashes.run(draft)
        else:
            self.conductor.send(draft)

    def _enable(self) -> None:
        moves = self.moves
        self.actions_.enable(
            busy=self.conductor.busy, chosen=self.pane.chosen >= 0, undo=moves.can_undo, redo=moves.can_redo
        )
        self.actions_["serve"].setEnabled(not self.server.running)
        self.actions_["stop_serving"].setEnabled(self.server.running)

    def _stop(self) -> None:
        """Esc stops the turn, or closes the part of the window that has the focus if Esc closes that."""
        focus = QApplication.focusWidget()
        parts: tuple[tuple[QWidget, Callable[[], object]], ...] = (
            (self.pane.search_bar, self.pane.search_bar.close_bar),
            (self.notices, self.notices.close_notice),
            (self.tree.question, self.tree.question.no.click),
            (self.sampling.name_row, self.sampling.close_name),
        )
        close = next((close for part, close in parts if focus is not None and part.isAncestorOf(focus)), None)
        if close is not None:
            close()
        else:
            self.conductor.stop()

    def _turn_menu(self, index: int, place: QPoint) -> None:
        self.pane.choose(index)
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for key in ("reroll", "rerolls", "edit", "back", "fork", "", "quote", "copy"):
            if key:
                menu.addAction(self.actions_[key])
            else:
                menu.addSeparator()
        menu.popup(place)

    def _ask_link(self, url: QUrl) -> None:
        shown = url.toDisplayString()

        def open_it() -> None:
            QDesktopServices.openUrl(url)

        self.notices.show_hint(f"Open this link? {shown}", [("Open link", open_it)])

    def _open_report(self, specialist: str) -> None:
        path = self._home / SPECIALISTS / specialist / "report.html"
        if path.is_file():
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
        else:
            self.notices.show_hint(f"There is no report yet. To write one, run: ssmprov specialist report {specialist}")

    def _pin(self, worker: str) -> None:
        self.slashes.move(self.conductor.wishes.context, worker)

    def _compare_chosen(self) -> None:
        head = self.conductor.scene.head if self.conductor.scene is not None else ""
        self.desk.compare(head, self.tree.chosen)

    def _go_chosen(self) -> None:
        if self.tree.chosen:
            self.moves.go_to(self.tree.chosen)
        else:
            self.notices.show_hint("Choose a branch in the tree first (F9).")

    # -- the broker that this window starts

    def serve(self) -> None:
        if not self.server.running:
            self.notices.show_hint("Starting a broker. This takes a few seconds.")
            self.server.start()
            self._enable()

    def stop_serving(self) -> None:
        self.server.stop(self._enable)

    def _not_served(self, text: str) -> None:
        first, _, rest = text.partition("\n")
        self.notices.show_error(first, details=rest)
        self._enable()

    def _served(self) -> None:
        self.notices.clear()
        self._enable()
        self.watcher.poll()

    # -- view

    def _toggle(self, dock: QDockWidget) -> None:
        if dock.isVisible() and not dock.visibleRegion().isEmpty():
            dock.hide()
        else:
            dock.show()
            dock.raise_()
        self._show_checks()

    def _show_checks(self) -> None:
        self.actions_["tree"].setChecked(not self.tree.isHidden())
        self.actions_["settings"].setChecked(not self.settings_dock.isHidden())

    def _turn_tab(self) -> None:
        self.pane.tab = "raw" if self.pane.tab == "rendered" else "rendered"

    def _full_screen(self) -> None:
        if self.isFullScreen():
            self.showNormal()
        else:
            self.showFullScreen()

    def _open_directory(self) -> None:
        dialog = QFileDialog(self, "Open the directory of a transcript")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(self._open_window)
        dialog.open()

    def _open_window(self, directory: str) -> None:
        """Open a window in a new process: each window belongs to one directory."""
        if not QProcess.startDetached(program(), ["composer", directory])[0]:
            self.notices.show_error(f"Could not open a window for {directory}.")

    # -- the session

    def _choose_send_key(self, key: str) -> None:
        self.compose.send_key = key
        self._send_keys[key].setChecked(True)
        self.actions_.show_send_key(key)

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.WindowStateChange:
            self.actions_["full_screen"].setChecked(self.isFullScreen())

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """First stop and keep a running turn. A broker that this window started ends with it."""
        assert event is not None, "Qt always passes an event"
        if self._closing:
            event.accept()
            return
        event.ignore()
        self.keeper.save()
        if self.conductor.busy:
            self.notices.show_hint("The window closes when the turn has ended.")
            self.conductor.busy_changed.connect(lambda busy: None if busy else self._leave())
            QTimer.singleShot(CLOSE_MS, self._leave)
            self.conductor.stop()
        else:
            self._leave()

    def _leave(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.keeper.stop()
        self.watcher.stop()
        self.hide()
        self.link.close()
        self.server.stop(self._gone)

    def _gone(self) -> None:
        self.close()
        app = QApplication.instance()
        if app is not None:
            app.quit()
