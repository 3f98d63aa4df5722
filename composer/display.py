"""Checks that Qt and a screen are available, because Qt itself would end the process."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from ssmprov.errors import Unsupported

LIBRARIES = (
    "libegl1 libgl1 libfontconfig1 libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 "
    "libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1"
)


def check_display() -> None:
    """Check that Qt can be loaded and has a screen. Raises Unsupported."""
    try:
        import mdit_py_plugins  # noqa: F401
        import ziamath  # noqa: F401
        from PyQt6 import QtGui, QtSvg, QtWidgets  # noqa: F401
        from PyQt6.QtCore import QLibraryInfo
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"the window needs the Python module {error.name!r}, which is not installed: install ssmprov with the "
            "extra `composer` (./install.sh --extras rwkv,metrics,composer)"
        ) from error
    except ImportError as error:
        raise _cannot_load(error) from error
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if sys.platform != "linux" or platform not in ("", "xcb") or os.environ.get("WAYLAND_DISPLAY"):
        return
    if not os.environ.get("DISPLAY"):
        raise Unsupported(
            "there is no screen to draw on (neither DISPLAY nor WAYLAND_DISPLAY is set): start the Composer in a "
            "desktop session, or connect with `ssh -X`"
        )
    _check_x11(Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath)) / "platforms" / "libqxcb.so")


def _check_x11(plugin: Path) -> None:
    """Do what Qt does first on X11: load its plugin and the plugin's libraries, and connect."""
    try:
        ctypes.CDLL(str(plugin))
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError as error:
        raise _cannot_load(error) from error
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(None, None)
    refused = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    if refused:
        raise Unsupported(f"the screen {os.environ['DISPLAY']} does not answer: check the variable DISPLAY")


def _cannot_load(error: Exception) -> Unsupported:
    return Unsupported(
        f"Qt cannot be loaded ({error}): install the system libraries that it needs. On Debian: "
        f"`apt install {LIBRARIES}`"
    )
