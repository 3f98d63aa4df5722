"""Actions on a turn of the transcript, with their dialogs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PyQt6.QtCore import QObject, Qt
from PyQt6.QtGui import QGuiApplication
from PyQt6.QtWidgets import QFileDialog, QInputDialog, QWidget

from composer.branching.compare import CompareDialog
from composer.branching.edit_turn import EditTurnDialog
from composer.branching.fork_dialog import ForkDialog
from composer.conductor import BUSY, Compose, Conductor
from composer.link import Job
from composer.moves import Moves
from composer.reading.transcript_pane import TranscriptPane
from composer.rerolls import Rerolls
from composer.watching import Watcher
from composer.writing.compose_panel import ComposePanel
from ssmprov import durable
from ssmprov.causes import explained, shown
from ssmprov.errors import SsmprovError
from ssmprov.transcript import HALF_FENCE, Turn, half_step, quote, turns_of
from transcripts.branches import Candidate
from transcripts.textfile import text_of

MOST_REPLIES = 16
DEFAULT_REPLIES = 4


class Desk(QObject):
    """Acts on the chosen turn, or on the last one if none is chosen."""

    def __init__(
        self,
        conductor: Conductor,
        moves: Moves,
        watcher: Watcher,
        pane: TranscriptPane,
        compose: ComposePanel,
        window: QWidget,
    ) -> None:
        super().__init__(window)
        self._conductor = conductor
        self._moves = moves
        self._watcher = watcher
        self._pane = pane
        self._compose = compose
        self._window = window
        self._rerolls = Rerolls(conductor, moves, window)
        self._compare: CompareDialog | None = None
        self._files: list[Path] = []
        self._putting = False

    # -- which turn

    @property
    def index(self) -> int:
        """The index of the chosen turn, or of the last one; -1 if there are no turns."""
        items = self._conductor.book.items
        chosen = self._pane.chosen
        if 0 <= chosen < len(items) and isinstance(items[chosen], Turn):
            return chosen
        return next((i for i in range(len(items) - 1, -1, -1) if isinstance(items[i], Turn)), -1)

    @property
    def comparing(self) -> CompareDialog | None:
        """The dialog that compares two branches, once it was opened."""
        return self._compare

    @property
    def drawn(self) -> dict[int, Candidate]:
        """The rerolls that are done, by their number."""
        return self._rerolls.found

    def _turns(self) -> list[Turn]:
        return [item for item in self._conductor.book.items if isinstance(item, Turn)]

    def turn(self) -> Turn | None:
        """The chosen turn, or the last one. Shows a hint if there is none."""
        index = self.index
        item = self._conductor.book.items[index] if index >= 0 else None
        if isinstance(item, Turn):
            return item
        self._conductor.hint.emit("There is no turn yet: write one first.")
        return None

    # -- rerolls and edits

    def reroll(self) -> None:
        if self.turn() is not None:
            self._moves.reroll(self.index)

    def rerolls(self) -> None:
        """Ask how many replies to write, and write them."""
        turn = self.turn()
        if turn is None:
            return
        at = self._moves.byte_of(self.index)
        dialog = QInputDialog(self._window)
        dialog.setWindowTitle("Several replies")
        dialog.setLabelText(f"How many replies for turn {turn.number} ({turn.role})?")
        dialog.setInputMode(QInputDialog.InputMode.IntInput)
        dialog.setIntRange(2, MOST_REPLIES)
        dialog.setIntValue(DEFAULT_REPLIES)
        dialog.intValueSelected.connect(lambda count: self._rerolls.start(turn, at, count))
        dialog.open()

    def edit(self) -> None:
        turn = self.turn()
        if turn is None:
            return
        index, shown = self.index, self._conductor.book.text
        dialog = EditTurnDialog(self._window)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.show_turn(turn.number, turn.role, turn.content, sorted({item.role for item in self._turns()}))

        def wanted(role: str, content: str, regenerate: bool) -> None:
            if self._conductor.book.text != shown:
                self._conductor.hint.emit("The transcript has changed in the meantime, so the turn was not changed.")
                return
            asked = turns_of(f"(Turn 1) {self._compose.draft().reply}")
            reply = asked[0].role if asked else turn.role
            self._moves.edit(index, role, content, regenerate=regenerate, reply_role=reply)

        dialog.wanted.connect(wanted)
        dialog.show()

    def go_back(self) -> None:
        if self.turn() is not None:
            self._moves.go_back(self.index)

    def fork(self, object_id: str = "") -> None:
        """Ask for a name and a worker; fork this checkpoint, or the context after the chosen turn."""
        if not object_id and self.turn() is None:
            return
        index, shown = self.index, self._conductor.book.text
        turn = self.turn()
        what = f"checkpoint #{object_id[:12]}" if object_id or turn is None else f"turn {turn.number} ({turn.role})"
        status, model = self._watcher.status, self._conductor.wishes.model
        workers = [worker.name for worker in status.workers if worker.model == model] if status is not None else []
        dialog = ForkDialog(self._window)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.set_taken(self._watcher.names)
        dialog.ask(what, workers)

        def wanted(name: str, worker: str) -> None:
            if object_id:
                self._moves.fork_object(object_id, name, worker)
            elif self._conductor.book.text == shown:
                self._moves.fork(index, name, worker)
            else:
                self._conductor.hint.emit("The transcript has changed in the meantime, so nothing was forked.")

        dialog.wanted.connect(wanted)

    # -- comparing

    def compare(self, left: str, right: str) -> None:
        """Compare what two checkpoints have read, side by side."""
        forest = self._watcher.forest
        if not left or not right or forest is None:
            self._conductor.hint.emit("First choose a branch in the tree (F9) to compare with the current one.")
            return
        branches = self._conductor.branches()
        titles = [
            node.names[0] if (node := forest.nodes.get(key)) and node.names else key[:12] for key in (left, right)
        ]

        def work(_job: Job) -> tuple[str, str]:
            return tuple(branches.text(key).decode("utf-8", "replace") for key in (left, right))  # type: ignore[return-value]

        def show(texts: tuple[str, str]) -> None:
            if self._compare is None:
                self._compare = CompareDialog(self._window)
            dialog = self._compare
            dialog.go_wanted.disconnect() if dialog.receivers(dialog.go_wanted) else None
            dialog.go_wanted.connect(lambda side: self._moves.go_to(left if side == "left" else right))
            dialog.show_texts(titles[0], texts[0], titles[1], texts[1])
            dialog.show()
            dialog.raise_()

        self._conductor.link.run(work, show, self._conductor.trouble.emit)

    # -- the turn's text

    def copy(self) -> None:
        turn = self.turn()
        clipboard = QGuiApplication.clipboard()
        if turn is not None and clipboard is not None:
            clipboard.setText(turn.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))

    def quote(self) -> None:
        """Insert the turn as a quotation at the beginning of the prompt."""
        turn = self.turn()
        if turn is not None:
            text = quote(turn).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            self._compose.prompt.set_text(f"{text}\n\n{self._compose.prompt.text}")
            self._compose.focus_prompt()

    def go_on(self) -> None:
        """Let the model continue the open turn."""
        if self._open_turn():
            self._conductor.send_text(lambda number: ("", number - 1), shown=self._conductor.book.text)

    def close_turn(self) -> None:
        """Add the fence to the open turn."""
        if self._open_turn():
            self._conductor.send_text(lambda number: (HALF_FENCE, number - 1), shown=self._conductor.book.text)

    def _open_turn(self) -> bool:
        items = self._conductor.book.items
        if items and isinstance(items[-1], Turn) and not items[-1].closed:
            return True
        self._conductor.hint.emit("The last turn is already closed.")
        return False

    # -- files

    def choose_files(self) -> None:
        dialog = QFileDialog(self._window, "Add files as FILE turns")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.filesSelected.connect(lambda names: self.put([Path(name) for name in names]))
        dialog.open()

    def put(self, paths: Sequence[Path]) -> None:
        """Add files as FILE turns, one after the other, as PUT_FILE does."""
        if self._conductor.busy and not self._putting:
            self._conductor.hint.emit(BUSY)
            return
        self._files += paths
        if not self._putting:
            self._next_file()

    def _next_file(self) -> None:
        self._putting = False
        while self._files and not self._putting:
            path = self._files.pop(0)
            try:
                content = text_of(path)
            except SsmprovError as error:
                self._conductor.trouble.emit(error)
                continue
            except OSError as error:
                self._conductor.trouble.emit(explained(error, f"{shown(path)} cannot be read", path))
                continue
            self._putting = self._put(content)

    def _put(self, content: str) -> bool:
        compose: Compose = lambda number: (half_step(number, "FILE", content), number)  # noqa: E731
        return self._conductor.send_text(compose, then=self._next_file, otherwise=self._give_up_files)

    def _give_up_files(self) -> None:
        """A file was not added, so the files after it are dropped rather than added at a surprising moment."""
        self._putting = False
        if left := [path.name for path in self._files]:
            self._files.clear()
            self._conductor.hint.emit(f"These files were not added either: {', '.join(left)[:300]}.")

    def save_copy(self) -> None:
        dialog = QFileDialog(self._window, "Save a copy of the transcript")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(self._write_copy)
        dialog.open()

    def _write_copy(self, name: str) -> None:
        data = self._conductor.book.text.encode("utf-8", "surrogateescape")

        def work(_job: Job) -> str:
            durable.replace(Path(name), data)
            return name

        self._conductor.link.run(
            work, lambda _: self._conductor.hint.emit(f"Saved to {name}."), self._conductor.trouble.emit
        )
