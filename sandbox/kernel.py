"""System calls for the sandbox, through ctypes: namespaces, mounts, capabilities, Landlock and seccomp.

Everything here restricts the calling process and the processes that it starts. It imports only the standard library,
because the launcher loads it before each run. All functions raise OSError if the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 22, 24, 36, 38, 47
_SYS_MOUNT_SETATTR, _SYS_LANDLOCK = 442, (444, 445, 446)  # the same on every architecture
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x1000, 0x4000, 0x40000, 2, 4, 8
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1

LANDLOCK_NEEDED = 3
"""The first version that stops code from truncating files that it may not write (Linux 6.2)."""

_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a directory
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # the only rights that a rule on a file may hold

_ARCHITECTURES = {  # AUDIT_ARCH, socket(2), the first number of another calling convention
    "x86_64": (0xC000003E, 41, 0x40000000),
    "aarch64": (0xC00000B7, 198, 0x40000000),
}
_IO_URING_SETUP = 425
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int, what: str, third: object = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), third, 0, 0), what)


def become_subreaper() -> None:
    """Make orphans of the tree children of this process, so that none is missed."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")


def no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")


def unshare(flags: int) -> None:
    """Enter new namespaces; with CLONE_NEWUSER the process keeps its user and group ids."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(flags), "unshare")
    if flags & CLONE_NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def drop_capabilities() -> None:
    """Drop every capability permanently. Even root is then an ordinary user, who owns root's files."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # the kernel knows no more, or there was none to drop
    _libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(4), 0, 0, 0)  # 4: clear all
    header, none = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0)), ctypes.create_string_buffer(24)
    _check(_libc.capset(header, none), "capset")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None), "mount")


def bind(source: str, target: str) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND), None), "bind")


def _set_read_only(path: str, *, on: bool, recursive: bool) -> None:
    attributes = struct.pack("=4Q", *((_MOUNT_ATTR_RDONLY, 0) if on else (0, _MOUNT_ATTR_RDONLY)), 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    call = (_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)))
    _check(_libc.syscall(*call), "mount_setattr")


def loopback_up() -> None:
    """Switch on the loopback device of a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: up, running


def private_mounts(writable: str) -> None:
    """In a new mount namespace, make everything except one directory read-only."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    bind(writable, writable)
    _set_read_only("/", on=True, recursive=True)
    _set_read_only(writable, on=False, recursive=False)


def mount_proc() -> None:
    """In new mount and PID namespaces, make /proc show only their processes."""
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def landlock_version() -> int:
    """The kernel's version of Landlock, or 0 if it has none or it is switched off."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK[0], None, ctypes.c_size_t(0), 1)))


def landlock(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Confine this process to these paths and everything below them.

    From version 6 of Landlock, it also cannot send signals or connect to abstract sockets outside.
    """
    version = landlock_version()
    everything = (1 << (16 if version >= 5 else 15)) - 1
    attributes = struct.pack("=3Q", everything, 0, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    create, add_rule, restrict = _SYS_LANDLOCK
    size = ctypes.c_size_t(len(attributes))
    rules = _check(_libc.syscall(create, attributes, size, 0), "landlock_create_ruleset")
    for path, rights in [(path, _READ) for path in readable] + [(path, everything) for path in writable]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # it does not exist, so it needs no rule
        allowed = rights if os.path.isdir(path) else rights & _OF_FILES
        rule = struct.pack("=Qi", allowed & everything, place)
        _check(_libc.syscall(add_rule, rules, 1, rule, 0), f"landlock_add_rule({path})")
        os.close(place)
    _check(_libc.syscall(restrict, rules, 0), "landlock_restrict_self")
    os.close(rules)


def socket_filter(machine: str, *, internet: bool) -> bytes | None:
    """A seccomp program that allows internet sockets or no sockets. None if it is unknown for `machine`.

    A network namespace and a read-only mount do not block the host's Unix sockets (docker, dbus, our broker) or vsock,
    so the program refuses these families. It also refuses io_uring, which can open sockets without seccomp.
    """
    if machine not in _ARCHITECTURES:
        return None
    architecture, socket_number, foreign = _ARCHITECTURES[machine]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # BPF: ld, jeq, jge, ret
    refuse, allow = 0x00050000, 0x7FFF0000
    families = (_AF_INET, _AF_INET6, _AF_NETLINK) if internet else ()
    steps = [  # operation, operand, target if true, target if false; "" is the next step
        (load, 4, "", ""),  # seccomp_data.arch
        (equal, architecture, "", "missing"),
        (load, 0, "", ""),  # seccomp_data.nr
        (at_least, foreign, "missing", ""),
        (equal, _IO_URING_SETUP, "missing", ""),
        (equal, socket_number, "", "allow"),
        (load, 16, "", ""),  # the first argument's lower half
        *((equal, family, "allow", "") for family in families),
        (give, refuse | errno.EAFNOSUPPORT, "", ""),
        (give, refuse | errno.ENOSYS, "", ""),
        (give, allow, "", ""),
    ]
    places = {"missing": len(steps) - 2, "allow": len(steps) - 1}
    return b"".join(
        struct.pack("=HBBI", code, *(places[to] - n - 1 if to else 0 for to in jumps), operand)
        for n, (code, operand, *jumps) in enumerate(steps)
    )


def seccomp(program: bytes) -> None:
    steps = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(steps)))
    _prctl(_PR_SET_SECCOMP, 2, "prctl(PR_SET_SECCOMP)", header)
