"""The choice of model, context and worker, and a table of all workers."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import QSignalBlocker, Qt, pyqtSignal
from PyQt6.QtGui import QFocusEvent, QPalette
from PyQt6.QtWidgets import (
    QComboBox,
    QCompleter,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from composer.panels.worker_table import WorkerTable
from ssmprov.errors import BadRequest
from ssmprov.names import RULE, check_name
from ssmprov.ops import ModelStatus, StatusResult

ANY_WORKER = "any worker"
NO_BROKER = "No broker answers."


class WorkersPanel(QWidget):
    """Shows the broker's status. Updates keep the selection and the text being typed."""

    model_chosen = pyqtSignal(str)
    context_chosen = pyqtSignal(str)
    worker_chosen = pyqtSignal(str)  # '' is any worker
    start_wanted = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Model, context and workers")
        self._status: StatusResult | None = None
        self._model = self._context = self._worker = ""

        self.state = QLabel()
        self.state.setAccessibleName("State of the broker")
        self.state.setWordWrap(True)
        self.start = QPushButton("Start a broker")
        self.start.setAccessibleName("Start a broker")
        self.start.setToolTip("Start a broker with ssmprov.toml, or with the embedded model if there is no such file")
        self.start.clicked.connect(lambda _=False: self.start_wanted.emit())
        self.models = _box("Model", "The model that reads and writes")
        self.models.activated.connect(self._on_model)
        self.contexts = _ContextBox()
        self.contexts.setAccessibleName("Context")
        self.contexts.setToolTip(
            "The context that your turns continue. If you choose another one, its transcript is shown, and this one is "
            "kept. Enter a new name to start a new transcript."
        )
        self.contexts.activated.connect(lambda _: self._on_context())
        self.contexts.left.connect(self._on_left)
        if (line := self.contexts.lineEdit()) is not None:
            line.returnPressed.connect(self._on_context)
            line.textEdited.connect(lambda _: self._say(""))
        self.worker_box = _box("Worker", "The worker that keeps the context in memory")
        self.worker_box.activated.connect(self._on_worker)
        self.word = QLabel()
        self.word.setWordWrap(True)
        self.word.setAccessibleName("Problem with the name")
        self.word.hide()
        self.details = QLabel()
        self.details.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        self.details.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.table = WorkerTable()
        self._arrange()
        self.show_status(None)

    def _arrange(self) -> None:
        em = self.fontMetrics().height()
        top = QHBoxLayout()
        top.addWidget(self.state, 1)
        top.addWidget(self.start)
        form = QFormLayout()
        form.setVerticalSpacing(em // 2)
        form.setHorizontalSpacing(em)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Model", self.models)
        form.addRow("", self.details)
        form.addRow("Context", self.contexts)
        form.addRow("", self.word)
        form.addRow("Worker", self.worker_box)
        form.setRowVisible(self.word, False)
        self._form = form
        column = QVBoxLayout(self)
        column.setSpacing(em * 2 // 3)
        column.addLayout(top)
        column.addLayout(form)
        column.addWidget(self.table, 1)

    # -- what the window provides

    def show_status(self, status: StatusResult | None) -> None:
        """Show the broker's status; None if no broker answers."""
        self._status = status
        self.start.setVisible(status is None)
        for widget in (self.models, self.worker_box, self.table):
            widget.setEnabled(status is not None)
        if status is None:
            self.state.setText(NO_BROKER)
            self.details.setText("")
            self.table.show_workers([])
        else:
            broker = status.broker
            what = "The broker is shutting down" if broker.draining else "Connected to the broker"
            self.state.setText(f"{what}: {broker.running} running, {broker.queued} queued.")
            self.table.show_workers(status.workers)
        self._fill_models()
        self._fill_workers()

    def set_contexts(self, names: Sequence[str]) -> None:
        """Offer these names. The text being typed stays."""
        line = self.contexts.lineEdit()
        typed, place = self.contexts.currentText(), line.cursorPosition() if line is not None else 0
        if [self.contexts.itemText(i) for i in range(self.contexts.count())] == list(names):
            return
        with QSignalBlocker(self.contexts):
            self.contexts.clear()
            self.contexts.addItems(list(names))
            self.contexts.setCurrentIndex(self.contexts.findText(typed))
            self.contexts.setEditText(typed)
        if line is not None:
            line.setCursorPosition(place)

    def set_model(self, name: str) -> None:
        self._model = name
        self._fill_models()
        self._fill_workers()

    def set_context(self, name: str) -> None:
        self._context = name
        self.contexts.setEditText(name)
        self._say("")

    def set_worker(self, name: str) -> None:
        self._worker = name
        self._fill_workers()

    # -- what the window reads

    @property
    def model(self) -> str:
        return self._model

    @property
    def context(self) -> str:
        return self._context

    @property
    def worker(self) -> str:
        """The chosen worker, '' for any."""
        return self._worker

    # -- the rest

    def _found(self) -> ModelStatus | None:
        models = self._status.models if self._status is not None else []
        return next((model for model in models if model.name == self._model), None)

    def _fill_models(self) -> None:
        names = [model.name for model in self._status.models] if self._status is not None else []
        shown = names if not self._model or self._model in names else [*names, self._model]
        _refill(self.models, [(name, name) for name in shown], self._model)
        model = self._found()
        if model is None:
            self.details.setText("This model is not served now." if self._model and self._status is not None else "")
        else:
            said = (model.runtime, model.architecture, model.dtype, f"{model.state_bytes / 2**20:.1f} MiB per context")
            self.details.setText(" · ".join(part for part in said if part))
        self.details.setToolTip(self.details.text())
        self._form.setRowVisible(self.details, bool(self.details.text()))

    def _fill_workers(self) -> None:
        workers = self._status.workers if self._status is not None else []
        names = [worker.name for worker in workers if worker.model == self._model]
        entries = [(ANY_WORKER, ""), *((name, name) for name in names)]
        if self._worker and self._worker not in names:
            entries.append((f"{self._worker} (gone)", self._worker))
        _refill(self.worker_box, entries, self._worker)

    def _on_model(self, index: int) -> None:
        name = str(self.models.itemData(index) or "")
        if name and name != self._model:
            self._worker = ""
            self.set_model(name)
            self.model_chosen.emit(name)

    def _on_worker(self, index: int) -> None:
        name = str(self.worker_box.itemData(index) or "")
        if name != self._worker:
            self._worker = name
            self.worker_chosen.emit(name)

    def _on_context(self) -> None:
        name = self.contexts.currentText().strip()
        if name == self._context:
            return
        try:
            check_name(name)
        except BadRequest:
            self._say(f"This is not a valid name for a context: {RULE}. Names that begin with @ are reserved.")
            return
        self._say("")
        self._context = name
        self.context_chosen.emit(name)

    def _on_left(self) -> None:
        if self.contexts.currentText().strip():
            self._on_context()
        else:
            self.set_context(self._context)

    def _say(self, text: str) -> None:
        self.word.setText(text)
        self._form.setRowVisible(self.word, bool(text))


class _ContextBox(QComboBox):
    """An editable list of names. Emits `left` when it loses the focus."""

    left = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        completer = self.completer()
        if completer is not None:
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
            completer.setCaseSensitivity(Qt.CaseSensitivity.CaseSensitive)

    def focusOutEvent(self, e: QFocusEvent | None) -> None:
        super().focusOutEvent(e)
        if e is not None and e.reason() != Qt.FocusReason.PopupFocusReason:
            self.left.emit()


def _box(name: str, tip: str) -> QComboBox:
    box = QComboBox()
    box.setAccessibleName(name)
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(12)
    return box


def _refill(box: QComboBox, entries: Sequence[tuple[str, str]], chosen: str) -> None:
    """Replace the entries only if they differ, because that would close an open list."""
    if [(box.itemText(i), box.itemData(i)) for i in range(box.count())] != list(entries):
        with QSignalBlocker(box):
            box.clear()
            for text, value in entries:
                box.addItem(text, value)
    box.setCurrentIndex(box.findData(chosen))
