"""The menus: one table of all actions, each with its text, shortcut and tool tip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from PyQt6.QtGui import QAction, QActionGroup, QKeySequence
from PyQt6.QtWidgets import QMainWindow, QMenu, QMenuBar


@dataclass(frozen=True, slots=True)
class Entry:
    """One menu action.

    `when` says when it is enabled. '': always. "idle" and "busy": without and with a running turn. "turn": if a turn is
    chosen. "undo" and "redo": if there is something to undo or redo.
    """

    key: str
    text: str
    shortcut: str
    tip: str
    _: KW_ONLY
    when: str = ""
    checkable: bool = False


MENUS: dict[str, tuple[Entry, ...]] = {
    "&File": (
        Entry("put", "&Add files…", "Ctrl+O", "Add text files to the transcript as FILE turns", when="idle"),
        Entry("open", "Open &directory…", "Ctrl+Shift+O", "Open another directory's transcript in a new window"),
        Entry("save_copy", "&Save a copy…", "Ctrl+Shift+S", "Save the transcript to another file"),
        Entry("serve", "Start a &broker", "Ctrl+Shift+B", "Start a broker in the working directory"),
        Entry("stop_serving", "S&top the broker", "Ctrl+Shift+Q", "Stop the broker that this window started"),
        Entry("quit", "&Quit", "Ctrl+Q", "Close the window. A running turn is stopped and kept."),
    ),
    "&Turn": (
        Entry("send", "&Send", "Ctrl+Return", "Send the text as set in the three lists", when="idle"),
        Entry("half", "&Half step", "Ctrl+1", "Send a closed turn that the model only reads", when="idle"),
        Entry("full", "&Full step", "Ctrl+2", "Send a closed turn and let the model write the reply", when="idle"),
        Entry("raw", "&Raw", "Ctrl+3", "Send the text as it is", when="idle"),
        Entry("go_on", "&Continue the open turn", "Ctrl+4", "Let the model continue the last turn", when="idle"),
        Entry("close_turn", "C&lose the open turn", "Ctrl+5", "End the last turn with a fence", when="idle"),
        Entry("stop", "S&top and keep the text", "Esc", "Stop the running turn and keep what was written", when="busy"),
        Entry("drop", "Stop and &discard the turn", "Shift+Esc", "Stop the running turn and discard it", when="busy"),
        Entry("previous", "Choose the turn &above", "Alt+Up", "Choose the previous turn"),
        Entry("next", "Choose the turn &below", "Alt+Down", "Choose the next turn"),
        Entry("copy", "Cop&y the turn", "Ctrl+Shift+C", "Copy the chosen turn as it is in the file", when="turn"),
        Entry("quote", "&Quote the turn", "Ctrl+'", "Quote the chosen turn in the prompt", when="turn"),
    ),
    "&Branch": (
        Entry("undo", "&Undo", "Alt+Z", "Undo the last change to the transcript. It stays as a branch.", when="undo"),
        Entry("redo", "&Redo", "Alt+Shift+Z", "Redo the change that was undone", when="redo"),
        Entry("reroll", "&Another reply", "Ctrl+R", "Write the chosen turn, or the last one, again", when="idle"),
        Entry("rerolls", "&Several replies…", "Ctrl+Shift+R", "Write several replies and pick one", when="idle"),
        Entry("edit", "&Edit the turn…", "Ctrl+Shift+E", "Change the chosen turn, your own or a reply", when="idle"),
        Entry("back", "&Go back to here", "Ctrl+B", "Continue right after the chosen turn", when="idle"),
        Entry("fork", "&Fork here…", "Ctrl+Shift+K", "Give the context after the chosen turn a new name", when="idle"),
        Entry("compare", "&Compare…", "Ctrl+Shift+D", "Show the chosen branch next to the current one"),
        Entry("go_chosen", "Go to the c&hosen branch", "Ctrl+G", "Continue from the chosen branch", when="idle"),
        Entry("parent", "Choose the &parent", "Alt+Left", "Choose the parent in the tree"),
        Entry("child", "Choose the ch&ild", "Alt+Right", "Choose the child in the tree"),
        Entry("sibling", "Choose the &next sibling", "Alt+PgDown", "Choose the next sibling in the tree"),
        Entry("sibling_before", "Choose the pre&vious sibling", "Alt+PgUp", "Choose the previous sibling in the tree"),
        Entry(
            "reread",
            "Read the transcript ane&w",
            "Ctrl+Shift+A",
            "Empty the context and read all turns",
            when="idle",
        ),
    ),
    "&View": (
        Entry("tab", "&Rendered or raw", "Ctrl+T", "Switch between rendered and raw text"),
        Entry("find", "&Find…", "Ctrl+F", "Search all turns"),
        Entry("find_next", "Find &next", "F3", "Go to the next match"),
        Entry("find_previous", "Find &previous", "Shift+F3", "Go to the previous match"),
        Entry("earlier", "&Load earlier turns", "Ctrl+PgUp", "Show 200 more turns at the top"),
        Entry("end", "Jump to the &end", "Alt+End", "Show the end and follow new text"),
        Entry("larger", "Lar&ger text", "Ctrl++", "Make the text larger"),
        Entry("smaller", "&Smaller text", "Ctrl+-", "Make the text smaller"),
        Entry("usual", "N&ormal size", "Ctrl+0", "Reset the size of the text"),
        Entry("prompt", "Go to the pro&mpt", "F6", "Move the focus to the prompt"),
        Entry("reader", "Go to the &transcript", "F7", "Move the focus to the transcript"),
        Entry("tree", "&Branches", "F9", "Show or hide the tree of contexts", checkable=True),
        Entry("settings", "Mo&del and sampling", "F10", "Show or hide model, worker and sampling", checkable=True),
        Entry("refresh", "Refres&h", "F5", "Load everything that is shown from the broker again"),
        Entry("full_screen", "F&ull screen", "F11", "Use the whole screen", checkable=True),
    ),
    "&Lists": (
        Entry("edit_s1", "&From…", "Ctrl+Alt+1", "Edit .s1.txt: the roles for your text"),
        Entry("edit_s2", "&Then…", "Ctrl+Alt+2", "Edit .s2.txt: the dividers"),
        Entry("edit_s3", "&Reply…", "Ctrl+Alt+3", "Edit .s3.txt: the roles for replies"),
    ),
    "&Help": (
        Entry("keys", "&Keyboard shortcuts", "F1", "Show all keyboard shortcuts"),
        Entry("about", "&About", "Shift+F1", "Show the version and the licence"),
    ),
}
ENTRIES = tuple(entry for entries in MENUS.values() for entry in entries)

SEND_KEYS = (("shift+enter", "&Shift+Enter"), ("ctrl+enter", "&Ctrl+Enter"), ("enter", "&Enter"))


class Actions:
    """The menus of a window; `do` maps the key of an entry to what it does."""

    def __init__(self, window: QMainWindow, do: dict[str, Callable[[], object]]) -> None:
        self.by_key: dict[str, QAction] = {}
        self.send_key = ""
        self.menus: dict[str, QMenu] = {}
        bar = window.menuBar()
        assert isinstance(bar, QMenuBar), "a main window always has a menu bar"
        for title, entries in MENUS.items():
            menu = bar.addMenu(title)
            assert menu is not None, "it was just made"
            menu.setToolTipsVisible(True)
            self.menus[title] = menu
            for entry in entries:
                action = self.by_key[entry.key] = _action(entry, window, do[entry.key])
                window.addAction(action)
                menu.addAction(action)

    def __getitem__(self, key: str) -> QAction:
        return self.by_key[key]

    def enable(self, *, busy: bool, chosen: bool, undo: bool, redo: bool) -> None:
        """Enable the actions that can be used now."""
        state = {"": True, "idle": not busy, "busy": busy, "turn": chosen, "undo": undo and not busy}
        state["redo"] = redo and not busy
        for entry in ENTRIES:
            self.by_key[entry.key].setEnabled(state[entry.when])

    def show_send_key(self, key: str) -> None:
        """Show in the menu which key sends from the prompt."""
        self.send_key = dict(SEND_KEYS)[key].replace("&", "")
        self["send"].setText(f"&Send\t{self.send_key}")

    def add_send_keys(self, window: QMainWindow, chosen: Callable[[str], None]) -> dict[str, QAction]:
        """Add the submenu that chooses the key that sends."""
        menu = self.menus["&Turn"].addMenu("Send with")
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


def _action(entry: Entry, window: QMainWindow, do: Callable[[], object]) -> QAction:
    action = QAction(entry.text, window)
    action.setShortcut(QKeySequence(entry.shortcut))
    action.setToolTip(entry.tip)
    action.setStatusTip(entry.tip)
    action.setCheckable(entry.checkable)
    action.triggered.connect(lambda _checked=False: do())
    return action


def keys_text(send_key: str) -> str:
    """All shortcuts as an HTML table. `send_key` is the key that sends from the prompt."""
    rows = []
    for title, entries in MENUS.items():
        rows.append(f"<tr><td colspan='2'><b>{title.replace('&', '')}</b></td></tr>")
        for entry in entries:
            shortcut = f"{send_key}, or {entry.shortcut}" if entry.key == "send" else entry.shortcut
            rows.append(f"<tr><td>{entry.text.replace('&', '')}&nbsp;&nbsp;</td><td>{shortcut}</td></tr>")
    return "<table>" + "".join(rows) + "</table>"
