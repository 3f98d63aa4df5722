"""The menus: every action with its text, its shortcut and what it does, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PyQt6.QtGui import QAction, QActionGroup, QKeySequence
from PyQt6.QtWidgets import QMainWindow, QMenu, QMenuBar


@dataclass(frozen=True, slots=True)
class Entry:
    """One action. `when` says when it can be used: '' always, idle, busy, turn (one is chosen), undo or redo."""

    menu: str
    key: str
    text: str
    shortcut: str
    tip: str
    when: str = ""
    checkable: bool = False


ENTRIES: tuple[Entry, ...] = (
    Entry("&File", "put", "&Put files…", "Ctrl+O", "Add text files to the transcript as FILE turns", "idle"),
    Entry("&File", "open", "Open &directory…", "Ctrl+Shift+O", "Open another directory's transcript in its own window"),
    Entry("&File", "save_copy", "&Save a copy…", "Ctrl+Shift+S", "Write the transcript to another file"),
    Entry("&File", "serve", "Start a &broker", "Ctrl+Shift+B", "Serve the working directory's configuration from here"),
    Entry("&File", "stop_serving", "Stop &that broker", "Ctrl+Shift+Q", "End the broker that was started from here"),
    Entry("&File", "quit", "&Quit", "Ctrl+Q", "Close the window; a turn under way is ended and kept"),
    Entry("&Turn", "send", "&Send", "Ctrl+Return", "Send as the three lists say", "idle"),
    Entry("&Turn", "half", "&Half step", "Ctrl+1", "A closed turn, which is only read", "idle"),
    Entry("&Turn", "full", "&Full step", "Ctrl+2", "A closed turn, and the model writes the next one", "idle"),
    Entry("&Turn", "raw", "&Raw", "Ctrl+3", "The text as it is", "idle"),
    Entry("&Turn", "go_on", "&Continue the open turn", "Ctrl+4", "Have the model write on in the last turn", "idle"),
    Entry("&Turn", "close_turn", "C&lose the open turn", "Ctrl+5", "Add the fence to the last turn", "idle"),
    Entry("&Turn", "stop", "S&top, and keep what is there", "Esc", "End the turn under way; its text stays", "busy"),
    Entry(
        "&Turn", "drop", "Stop, and &drop the turn", "Shift+Esc", "End the turn under way; nothing of it stays", "busy"
    ),
    Entry("&Turn", "previous", "Choose the turn &above", "Alt+Up", "Choose the turn above"),
    Entry("&Turn", "next", "Choose the turn &below", "Alt+Down", "Choose the turn below"),
    Entry("&Turn", "copy", "Cop&y its source", "Ctrl+Shift+C", "Copy the chosen turn as it stands in the file", "turn"),
    Entry(
        "&Turn",
        "quote",
        "&Quote it in the prompt",
        "Ctrl+'",
        "Put the chosen turn as a quotation into the prompt",
        "turn",
    ),
    Entry(
        "&Branch", "undo", "&Undo", "Alt+Z", "Take the last change of the transcript back; it stays as a branch", "undo"
    ),
    Entry("&Branch", "redo", "&Redo", "Alt+Shift+Z", "Make the change again", "redo"),
    Entry(
        "&Branch", "reroll", "&Another reply", "Ctrl+R", "Have the chosen turn, or the last one, written again", "idle"
    ),
    Entry("&Branch", "rerolls", "&Several replies…", "Ctrl+Shift+R", "Draw several at once, and pick one", "idle"),
    Entry("&Branch", "edit", "&Edit the turn…", "Ctrl+Shift+E", "Change the chosen turn, the model's own too", "idle"),
    Entry("&Branch", "back", "&Go back to here", "Ctrl+B", "Go on right after the chosen turn", "idle"),
    Entry(
        "&Branch",
        "fork",
        "&Fork here…",
        "Ctrl+Shift+K",
        "Give the context as it was after the chosen turn a name",
        "idle",
    ),
    Entry("&Branch", "compare", "&Compare…", "Ctrl+Shift+D", "The chosen branch of the tree beside the current one"),
    Entry("&Branch", "go_chosen", "Go to the &chosen branch", "Ctrl+G", "Go on at what is chosen in the tree", "idle"),
    Entry("&Branch", "parent", "To the &parent", "Alt+Left", "Choose the parent in the tree"),
    Entry("&Branch", "child", "To the c&hild", "Alt+Right", "Choose the child in the tree"),
    Entry("&Branch", "sibling", "To the &next sibling", "Alt+PgDown", "Choose the next sibling in the tree"),
    Entry("&Branch", "sibling_before", "To the pre&vious sibling", "Alt+PgUp", "Choose the sibling before in the tree"),
    Entry(
        "&Branch",
        "reread",
        "Have the transcript read ane&w",
        "Ctrl+Shift+A",
        "The context begins anew and reads it all",
        "idle",
    ),
    Entry("&View", "tab", "&Rendered or raw", "Ctrl+T", "Change between the two"),
    Entry("&View", "find", "&Find…", "Ctrl+F", "Search in all turns"),
    Entry("&View", "find_next", "Find &next", "F3", "The next place"),
    Entry("&View", "find_previous", "Find &previous", "Shift+F3", "The place before"),
    Entry("&View", "earlier", "&Load earlier turns", "Ctrl+PgUp", "Show 200 more turns at the top"),
    Entry("&View", "end", "To the &end", "Alt+End", "Follow what is being written"),
    Entry("&View", "larger", "&Larger", "Ctrl++", "Larger text"),
    Entry("&View", "smaller", "&Smaller", "Ctrl+-", "Smaller text"),
    Entry("&View", "usual", "&Usual size", "Ctrl+0", "Text of the usual size"),
    Entry("&View", "prompt", "To the pro&mpt", "F6", "Write"),
    Entry("&View", "reader", "To the &transcript", "F7", "Read"),
    Entry("&View", "tree", "&Branches", "F9", "Show or hide the tree of contexts", checkable=True),
    Entry("&View", "settings", "&Model and sampling", "F10", "Show or hide model, worker and sampling", checkable=True),
    Entry("&View", "refresh", "Look again", "F5", "Ask the broker for everything shown"),
    Entry("&View", "full_screen", "F&ull screen", "F11", "Use the whole screen", checkable=True),
    Entry("&Lists", "edit_s1", "&From…", "Ctrl+Alt+1", "Edit .s1.txt, the roles of what is sent"),
    Entry("&Lists", "edit_s2", "&Then…", "Ctrl+Alt+2", "Edit .s2.txt, the dividers"),
    Entry("&Lists", "edit_s3", "&Reply…", "Ctrl+Alt+3", "Edit .s3.txt, the roles of replies"),
    Entry("&Help", "keys", "&Keys", "F1", "All shortcuts"),
    Entry("&Help", "about", "&About", "Shift+F1", "What this is"),
)

SEND_KEYS = (("shift+enter", "&Shift+Enter"), ("ctrl+enter", "&Ctrl+Enter"), ("enter", "&Enter"))


class Actions:
    """The menus of a window; `do` maps the key of an entry to what it does."""

    def __init__(self, window: QMainWindow, do: dict[str, Callable[[], object]]) -> None:
        self.by_key: dict[str, QAction] = {}
        self.send_key = ""
        self.menus: dict[str, QMenu] = {}
        bar = window.menuBar()
        assert isinstance(bar, QMenuBar), "a main window has one"
        for entry in ENTRIES:
            if entry.menu not in self.menus:
                menu = bar.addMenu(entry.menu)
                assert menu is not None, "it was just made"
                menu.setToolTipsVisible(True)
                self.menus[entry.menu] = menu
            action = QAction(entry.text, window)
            action.setShortcut(QKeySequence(entry.shortcut))
            action.setToolTip(entry.tip)
            action.setStatusTip(entry.tip)
            action.setCheckable(entry.checkable)
            action.triggered.connect(lambda _checked=False, act=do[entry.key]: act())
            window.addAction(action)
            self.menus[entry.menu].addAction(action)
            self.by_key[entry.key] = action

    def __getitem__(self, key: str) -> QAction:
        return self.by_key[key]

    def enable(self, *, busy: bool, chosen: bool, undo: bool, redo: bool) -> None:
        """Which of them can be used now."""
        state = {"": True, "idle": not busy, "busy": busy, "turn": chosen, "undo": undo and not busy}
        state["redo"] = redo and not busy
        for entry in ENTRIES:
            self.by_key[entry.key].setEnabled(state[entry.when])

    def show_send_key(self, key: str) -> None:
        """The menu tells which key sends from the prompt, too."""
        self.send_key = dict(SEND_KEYS)[key].replace("&", "")
        self["send"].setText(f"&Send\t{self.send_key}")

    def add_send_keys(self, window: QMainWindow, chosen: Callable[[str], None]) -> dict[str, QAction]:
        """The choice of the key that sends, as a submenu of the turns' menu."""
        menu = self.menus["&Turn"].addMenu("Key that sends")
        assert menu is not None, "it was just made"
        group = QActionGroup(window)
        made = {}
        for key, text in SEND_KEYS:
            action = QAction(text, window)
            action.setCheckable(True)
            action.triggered.connect(lambda _checked=False, key=key: chosen(key))
            group.addAction(action)
            menu.addAction(action)
            made[key] = action
        return made


def keys_text(send_key: str) -> str:
    """All shortcuts as an HTML table; `send_key` is the key that sends from the prompt."""
    rows = []
    menu = ""
    for entry in ENTRIES:
        if entry.menu != menu:
            menu = entry.menu
            rows.append(f"<tr><td colspan='2'><b>{menu.replace('&', '')}</b></td></tr>")
        shortcut = f"{send_key}, or {entry.shortcut}" if entry.key == "send" else entry.shortcut
        rows.append(f"<tr><td>{entry.text.replace('&', '')}&nbsp;&nbsp;</td><td>{shortcut}</td></tr>")
    return "<table>" + "".join(rows) + "</table>"
