"""`ssmprov composer`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ssmprov.errors import Unsupported


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "directory", default=".", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="[DIRECTORY]"
)
@click.option("--model", default="", metavar="MODEL", help="The model that is meant, as $SSMPROV_MODEL.")
@click.option("--context", default="", metavar="NAME", help="The context to go on with (else the last one, or live).")
@click.pass_context
def composer(ctx: click.Context, directory: Path, model: str, context: str) -> None:
    """Open the window on the transcript of DIRECTORY (else of the working directory)."""
    check_display()
    from composer.app import run

    ctx.exit(run(directory.resolve(), model or os.environ.get("SSMPROV_MODEL", ""), context))


def check_display() -> None:
    """Whether there is a Qt, and a screen for it: Qt itself would end the process. Raises Unsupported."""
    try:
        import mdit_py_plugins  # noqa: F401
        import ziamath  # noqa: F401
        from PyQt6 import QtGui, QtSvg, QtWidgets  # noqa: F401
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"the window needs the Python module {error.name!r}, which is not installed: install ssmprov with the "
            "extra `composer` (./install.sh --extras rwkv,metrics,composer)"
        ) from error
    except ImportError as error:
        raise Unsupported(
            f"Qt cannot be loaded ({error}): install the system's libraries for it, on Debian with `apt install "
            "libegl1 libgl1 libxkbcommon-x11-0 libxcb-cursor0 libfontconfig1 libdbus-1-3`"
        ) from error
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if sys.platform == "linux" and not platform and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        raise Unsupported(
            "there is no screen to draw on (neither DISPLAY nor WAYLAND_DISPLAY is set): start it within a desktop "
            "session; over ssh, `ssh -X` brings one"
        )
