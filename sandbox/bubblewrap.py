"""The arguments for bubblewrap: which view of the file system the sandboxed code gets."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from sandbox import interpreter
from sandbox.interpreter import beneath
from ssmprov.configuration import CONFIG_FILE, RUN_DIRECTORY, home_of
from ssmprov.keys import secret_places

PRIVATE_BYTES = 256 << 20
"""The size of each private directory in memory: /tmp, /dev/shm and the home directory."""

SECRETS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".pgpass", ".git-credentials", ".pypirc"),
    *(".npmrc", ".password-store", ".mozilla", ".config", ".local/share/keyrings", ".cache", ".bash_history"),
)
"""What is hidden in a home directory if it is also the working directory, because then it cannot be hidden entirely."""


@functools.cache
def usable() -> tuple[str, str]:
    """The path of a working bubblewrap, or '' and the reason. It is tried once, because namespaces may be forbidden."""
    program = shutil.which("bwrap")
    if program is None:
        return "", "bubblewrap (the program bwrap) is not installed"
    with tempfile.TemporaryDirectory(prefix="ssmprov-probe-") as folder:
        command = [program, *view(program, Path(folder), network=False), "--", "true"]
        try:
            tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", f"bubblewrap does not run here: {error}"
    said = tried.stderr.decode(errors="replace").strip()
    return (program, "") if tried.returncode == 0 else ("", f"bubblewrap does not work here: {said}")


@functools.cache
def _options(program: str) -> str:
    """The help text, which lists the options of this version."""
    asked = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10, check=False)
    return asked.stdout + asked.stderr


def homes() -> list[str]:
    """The user's home directories: from the environment and from the password file."""
    found = [os.environ.get("HOME", "")]
    with suppress(KeyError):
        found.append(pwd.getpwuid(os.getuid()).pw_dir)
    real = [os.path.realpath(home) for home in found if home]
    return [home for home in dict.fromkeys(real) if home != "/" and os.path.isdir(home)]


def hidden(directory: Path) -> list[str]:
    """The directories that code in `directory` cannot see, because they are private: temporary ones and homes."""
    private = [os.path.realpath(p) for p in ("/tmp", "/var/tmp", "/run", *homes())]  # noqa: S108
    return [p for p in dict.fromkeys(private) if os.path.isdir(p) and p not in (str(directory), "/")]


def house(directory: Path) -> tuple[str, ...]:
    """The entries of a directory that belong to ssmprov, besides dot files, or the one that contains ssmprov's home.

    They are protected, because the configuration decides which files workers load and who can reach the broker.
    """
    home = Path(os.path.realpath(home_of()))
    if home == directory:
        return (CONFIG_FILE, RUN_DIRECTORY)
    return home.relative_to(directory).parts[:1] if home.is_relative_to(directory) else ()


def off_limits(directory: Path) -> list[str]:
    """The protected entries of a directory: dot files, and those that belong to ssmprov."""
    names = [name for name in os.listdir(directory) if name.startswith(".")]
    return sorted({*names, *(name for name in house(directory) if os.path.lexists(directory / name))})


def code_folder(directory: Path) -> str:
    """The folder in which the code's file appears: a private one that is not the working directory."""
    usual = "/tmp"  # noqa: S108 (the sandbox has its own)
    return usual if os.path.realpath(usual) == usual != str(directory) else "/dev/shm"  # noqa: S108


def view(program: str, directory: Path, *, network: bool) -> list[str]:
    """Namespaces and mounts for code that runs in `directory`, an absolute path without symbolic links."""
    known = _options(program)
    size = ["--size", str(PRIVATE_BYTES)] if "--size BYTES" in known else []
    work = str(directory)

    args = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    args += [] if network else ["--unshare-net"]
    args += ["--disable-userns"] if "--disable-userns" in known else []
    args += ["--die-with-parent", "--new-session", "--hostname", "fenced", "--cap-drop", "ALL"]

    # /proc is read-only. Otherwise, code that runs as the host's root could write kernel settings such as core_pattern,
    # which are protected only by the user id.
    args += ["--ro-bind", "/", "/", "--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    args += [*size, "--tmpfs", "/dev/shm"]  # noqa: S108

    private = hidden(directory)
    outer = [p for p in private if not beneath(p, work)]
    for place in outer:
        args += [*size, "--tmpfs", place]
    for place in interpreter.find(work, private).places:
        if any(beneath(place, folder) for folder in outer) and not beneath(work, place):
            args += ["--ro-bind", place, place]
    resolver = os.path.realpath("/etc/resolv.conf")
    if network and any(beneath(resolver, folder) for folder in outer):
        args += ["--ro-bind-try", resolver, resolver]

    args += ["--bind", work, work]
    for name in off_limits(directory):
        guarded = os.path.realpath(directory / name)  # a link cannot be mounted over, so its target is protected
        if beneath(guarded, work) and guarded != work:
            args += ["--ro-bind-try", guarded, guarded]
    for place in private:
        if place not in outer:
            args += [*size, "--tmpfs", place]
    for path in secret_places(home_of()):
        args += ["--tmpfs", path, "--remount-ro", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    if work in homes():
        for name in SECRETS:
            path = os.path.realpath(directory / name)
            if os.path.isdir(path) and beneath(path, work):
                args += ["--tmpfs", path, "--remount-ro", path]
            elif os.path.exists(path) and beneath(path, work):
                args += ["--ro-bind", "/dev/null", path]
    return [*args, "--chdir", work]
