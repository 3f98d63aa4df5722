"""The launcher: a separate process that sets up the sandbox, starts the code in it, and waits for its whole tree.

It reads one JSON line from standard input and keeps that open. When standard input closes for any reason, the launcher
ends the tree, so nothing survives a caller that was killed. As a subreaper, the launcher itself ends last.

    run() -- launcher -- [bwrap --] first process of the PID namespace -- the code

It answers on the status pipe with one JSON object: `status` as a shell reports it, `reason` if a limit ended the tree,
and `error` if the sandbox could not be set up.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from sandbox import kernel
from sandbox.processes import descendants, end_all, holds_more_than

WATCH_S = 0.2
"""How often memory is checked, and the number of processes if nothing else limits that."""

_RESERVED_PIDS = 300
"""When process ids wrap around, Linux does not use those below 300 again, so pid_max must be that much higher."""

_BOUND = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]),) * 2)
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and the code would inherit that
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""A program that runs inside bubblewrap's namespaces: it limits the number of processes and then becomes the code."""

Plan = dict[str, Any]


def main() -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, we could not wait for a status
    plan: Plan = json.loads(_line(0))
    for fd in (plan["out"], plan["answer"]):
        os.set_inheritable(fd, False)
    try:
        answer = _supervise(plan)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.write(plan["answer"], json.dumps(answer).encode())
    os._exit(0)


def _line(fd: int) -> bytes:
    """The first line from a pipe, without reading a byte more."""
    text = b""
    while (byte := os.read(fd, 1)) not in (b"", b"\n"):
        text += byte
    return text


def _supervise(plan: Plan) -> Plan:
    kernel.become_subreaper()
    plan["nproc"] = plan["fence"] != "" and _nproc_binds()
    plan["pid_namespace"] = plan["fence"] != "" and _new_pid_namespace(plan)
    report, report_in = os.pipe()
    bwrap_status, bwrap_status_in = os.pipe()
    plan["bwrap_status"] = bwrap_status_in
    first = os.fork()
    if first == 0:
        os.close(report)
        _in_child(report_in, _first_process, plan)
    for fd in (report_in, bwrap_status_in, plan["out"]):
        os.close(fd)
    said: Plan = {}
    try:
        for line in _everything(report).splitlines():  # it ends when the child becomes another program
            said.update(json.loads(line))
        bound = plan["nproc"] or said.get("bound", False)
        reason = "" if "error" in said else _watch(plan, os.pidfd_open(first), bound=bound)
    finally:
        statuses = end_all(first)
    if "error" in said:
        return {"error": said["error"]}
    if plan["fence"] == "bubblewrap" and reason == "" and b'"exit-code"' not in _everything(bwrap_status):
        return {"error": "bubblewrap could not set up the sandbox"}
    return {"status": _shell_status(statuses[first]), "reason": "" if reason == "closed" else reason}


def _watch(plan: Plan, pidfd: int, *, bound: bool) -> str:
    """Wait for the end of the first process. Returns why the tree must be ended earlier, or ''."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while not (ready := dict(poll.poll(WATCH_S * 1000))):
        tree = descendants(os.getpid())
        if not bound and len(tree) > plan["processes"]:
            return "processes"
        if holds_more_than(plan["memory"], tree):
            return "memory"
    return "" if pidfd in ready else "closed"


def _everything(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _kernel_version() -> tuple[int, int]:
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


def _nproc_binds() -> bool:
    """Whether RLIMIT_NPROC limits this user (it does not limit root) and counts per user namespace (Linux 5.14)."""
    if _kernel_version() < (5, 14):
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        return not _in_fork(lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


def _in_fork(do: Callable[[], None]) -> bool:
    """Whether this process can fork a child in which `do` succeeds."""
    try:
        pid = os.fork()
    except BlockingIOError:
        return False
    if pid == 0:
        status = 1
        with suppress(OSError):
            do()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _new_pid_namespace(plan: Plan) -> bool:
    """Make the next child the first process of a PID namespace. When it ends, the kernel ends all others in it.

    Bubblewrap makes such a namespace itself, but for root we need a limit on process ids, which must be set from
    outside. Landlock has none unless we make one, in a user namespace if necessary.
    """
    tries = [kernel.CLONE_NEWPID] if os.geteuid() == 0 else []
    if plan["fence"] == "landlock":
        tries.append(kernel.CLONE_NEWPID | kernel.CLONE_NEWUSER)
    for flags in tries:
        # Try it in a fork first, because a failure cannot be undone.
        if _in_fork(lambda: kernel.unshare(flags)):  # noqa: B023 (called at once)
            kernel.unshare(flags)
            plan["nproc"] &= plan["fence"] == "bubblewrap" or bool(flags & kernel.CLONE_NEWUSER)
            return True
    plan["nproc"] &= plan["fence"] == "bubblewrap"  # otherwise it would count the user's other processes
    return False


def _in_child(report: int, do: Callable[[int, Plan], None], plan: Plan) -> NoReturn:
    """Call `do`, which becomes another program, and report an error that prevents it."""
    try:
        do(report, plan)
    except BaseException as error:
        os.write(report, json.dumps({"error": str(error) or type(error).__name__}).encode())
    finally:
        os._exit(125)
    raise AssertionError


def _first_process(report: int, plan: Plan) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((nothing, 0), (plan["out"], 1), (plan["out"], 2)):
        os.dup2(fd, target)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):  # two signals belong to the C library
            # Python ignores SIGPIPE and SIGXFSZ, and the code would inherit that.
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit(resource.RLIMIT_AS, plan["memory"])
    _limit(resource.RLIMIT_FSIZE, plan["file_bytes"])
    _limit(resource.RLIMIT_CORE, 0)
    if plan["pid_namespace"] and _set_pid_max(_RESERVED_PIDS + plan["processes"]):
        os.write(report, b'{"bound": true}\n')
    if plan["fence"] == "bubblewrap":
        _bubblewrap(plan)
    elif plan["fence"] == "landlock":
        if plan["pid_namespace"] and (code := os.fork()):
            _be_init(report, code)
        _landlock(plan)
    else:
        os.chdir(plan["directory"])
    _become(plan["command"], plan)


def _become(command: list[str], plan: Plan) -> None:
    os.execvpe(command[0], command, plan["env"])  # noqa: S606 (no shell is wanted)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _set_pid_max(most: int) -> bool:
    """Limit the namespace's process ids, if the limit is per namespace (Linux 6.14)."""
    path = "/proc/sys/kernel/pid_max"
    if _kernel_version() < (6, 14):
        return False  # it would limit the whole machine
    with suppress(OSError), open(path, "r+", encoding="ascii") as file:
        file.write(str(most))
        return True
    return False


def _bubblewrap(plan: Plan) -> None:
    options = ["--json-status-fd", str(_inherited(plan["bwrap_status"]))]
    if program := kernel.socket_filter(os.uname().machine, internet=True):
        fd = os.memfd_create("filter")
        os.write(fd, program)
        os.lseek(fd, 0, os.SEEK_SET)
        options += ["--seccomp", str(_inherited(fd))]
    command: list[str] = plan["command"]
    if plan["nproc"]:  # only now, so that it does not limit bubblewrap's start
        command = [sys.executable, "-I", "-S", "-c", _BOUND, str(plan["processes"]), *command]
    program_and_options: list[str] = plan["bubblewrap"]
    _become([program_and_options[0], *options, *program_and_options[1:], "--", *command], plan)


def _inherited(fd: int) -> int:
    os.set_inheritable(fd, True)
    return fd


def _be_init(report: int, code: int) -> NoReturn:
    """The first process of a namespace: reaps orphans, and ends when the code ends, which ends all others."""
    os.close(report)
    while (ended := os.waitpid(-1, 0))[0] != code:
        pass
    os._exit(_shell_status(ended[1]))


def _landlock(plan: Plan) -> None:
    internet = plan["network"]
    with suppress(OSError):
        if not internet:
            kernel.unshare(kernel.CLONE_NEWNET)
            internet = True  # in a namespace with only a loopback device
            kernel.loopback_up()
    with suppress(OSError):
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        kernel.private_mounts(plan["scratch"])
        if not plan["scratch"].startswith(plan["directory"] + "/"):  # the copy would be hidden
            kernel.bind(plan["work"], plan["directory"])  # the copy replaces the directory
            plan["work"] = plan["directory"]
    with suppress(OSError):
        kernel.mount_proc()
    os.chdir(plan["work"])
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    kernel.landlock(plan["readable"], plan["writable"])
    program = kernel.socket_filter(os.uname().machine, internet=internet)
    if program is None:
        raise OSError(f"sockets cannot be blocked on {os.uname().machine}")
    kernel.seccomp(program)
    if plan["nproc"]:
        _limit(resource.RLIMIT_NPROC, plan["processes"])
