"""Errors of the operating system: each cause has its code, its details and its remedy, and none is called a bug."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from ssmprov.causes import expanded, explained, known, not_listening, shown, told
from ssmprov.errors import BadRequest, SsmprovError

CAUSES = {
    "ENOSPC": ("no_space", "no_space"),
    "EDQUOT": ("no_space", "no_space"),
    "EFBIG": ("no_space", "no_space"),
    "EROFS": ("read_only", "unavailable"),
    "EACCES": ("permission", "unavailable"),
    "EPERM": ("permission", "unavailable"),
    "ENOLCK": ("no_locks", "unsupported"),
    "ENOSYS": ("not_supported", "unsupported"),
    "EINVAL": ("not_supported", "unsupported"),
    "EOPNOTSUPP": ("not_supported", "unsupported"),
    "ENAMETOOLONG": ("too_long", "bad_request"),
    "ELOOP": ("link_loop", "bad_request"),
    "EMFILE": ("too_many_files", "unavailable"),
    "ENFILE": ("too_many_files", "unavailable"),
    "ENOMEM": ("no_memory", "unavailable"),
    "EIO": ("disk", "unavailable"),
    "ENOENT": ("missing", "bad_request"),
    "EISDIR": ("directory", "bad_request"),
    "ENOTDIR": ("not_a_directory", "bad_request"),
    "ECONNRESET": ("other", "unavailable"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_number_has_its_cause_its_code_and_its_file(name: str) -> None:
    error = OSError(getattr(errno, name), "words of the system", "/a/file")
    problem = told(error, worker="m/0")
    assert (problem.details["cause"], problem.code) == CAUSES[name]
    assert getattr(errno, problem.details["errno"]) == getattr(errno, name)
    assert problem.details["file"] == "/a/file"
    assert "/a/file" in problem.message
    assert "bug" not in problem.message
    assert problem.worker == "m/0"


def test_what_failed_and_which_file_are_told_once() -> None:
    error = OSError(errno.EROFS, "x", "/a/temporary")
    ours = explained(error, "/a/file cannot be written", Path("/a/file"))
    assert str(ours).startswith("/a/file cannot be written: its file system is read-only. ")
    assert ours.details["file"] == "/a/file"


def test_real_errors_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, cause in ((tmp_path / "loop", "link_loop"), (tmp_path / ("x" * 256), "too_long")):
        with pytest.raises(OSError) as raised:
            path.read_bytes()
        ours = known(raised.value)
        assert ours is not None
        assert ours.details["cause"] == cause
        assert str(path) in str(ours)


def test_a_library_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(OSError) as raised:
        ctypes.CDLL("libnowhere.so.7")
    ours = known(raised.value)
    assert ours is not None
    assert (ours.code, ours.details["cause"]) == ("unsupported", "library")
    assert "libnowhere.so.7" in str(ours)


def test_missing_memory_and_modules_are_no_bugs_of_ours() -> None:
    assert told(MemoryError()).details == {"cause": "no_memory"}
    with pytest.raises(ModuleNotFoundError) as raised:
        import llama_cpp_that_is_missing  # type: ignore[import-not-found]  # noqa: F401
    problem = told(raised.value)
    assert (problem.code, problem.details) == ("unsupported", {"cause": "library"})
    assert "llama_cpp_that_is_missing" in problem.message


def test_torch_without_memory_is_no_bug_of_ours() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert told(raised.value).details == {"cause": "no_memory"}
    assert told(torch.OutOfMemoryError("x")).details == {"cause": "no_memory"}
    assert told(RuntimeError("shapes do not fit")).code == "internal"


def test_faults_of_ours_are_called_bugs() -> None:
    assert known(ZeroDivisionError()) is None
    with pytest.raises(ImportError) as raised:
        from ssmprov.errors import Nothing  # type: ignore[attr-defined]  # noqa: F401
    for error in (raised.value, ZeroDivisionError("x")):
        problem = told(error)
        assert problem.code == "internal"
        assert "bug in ssmprov" in problem.message
        assert problem.traceback


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = SsmprovError("it")
    assert known(error) is error


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.EADDRINUSE, "conflict", "another program uses it"),
        (errno.EADDRNOTAVAIL, "conflict", "does not have this address"),
        (errno.EACCES, "unavailable", "port from 1024 on"),
        (errno.EMFILE, "unavailable", "too many files"),
    ],
)
def test_an_address_that_cannot_be_listened_on(number: int, code: str, says: str) -> None:
    ours = not_listening(OSError(number, "x"), "127.0.0.1:80", "`port`")
    assert ours.code == code
    assert "127.0.0.1:80" in str(ours)
    assert says in str(ours)
    assert "choose another address with `port`" in str(ours)


def test_a_path_that_is_no_utf_8_can_be_sent() -> None:
    path = os.fsdecode(b"/caf\xe9")
    problem = told(OSError(errno.EACCES, "x", path))
    assert problem.message.encode()
    assert problem.details["file"] == shown(path) == "/caf\\xe9"


def test_a_home_that_the_system_does_not_know() -> None:
    assert expanded("/x/~") == Path("/x/~")
    with pytest.raises(BadRequest) as raised:
        expanded("~nobody-has-this-name/x")
    assert raised.value.details["cause"] == "no_home"
