"""Keys and roles: who may speak to a broker over TCP, and what each may ask.

The wire is protected by CURVE (RFC 26 of ZeroMQ, https://rfc.zeromq.org/spec/26/): both sides hold a pair of keys, the
broker admits only the public keys of its allow-list, and a client knows the broker by its public key. Keys are written
in Z85, 40 characters, in the directory `.keys` of the working directory (0700), which RUN hides:

    NAME.key        a pair of keys, secret: only its owner may read it (0600)
    NAME.pub        the public one of it
    allowed.json    the broker's allow-list: a name, its public key and its role

`broker` is the broker's own pair, `client` the one that clients use unless `$SSMPROV_KEY` names another, `worker` that
of workers. A broker that has its pair speaks CURVE on every TCP endpoint; an `ipc://` socket needs none of this, since
only its owner enters its directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ssmprov import durable
from ssmprov.configuration import home_of, host_of, is_loopback, private_directory
from ssmprov.errors import BadRequest, Conflict, NotFound, Refused, nearest

BROKER = "broker"
KEY_VARIABLE = "SSMPROV_KEY"
BROKER_KEY_VARIABLE = "SSMPROV_BROKER_KEY"
INSECURE_VARIABLE = "SSMPROV_INSECURE"
MAX_ALLOWED = 10_000
MAX_KEY_FILE = 64 * 1024

_YES = ("1", "true", "t", "yes", "y", "on")
"""What switches an option of the command line on by its environment variable, too."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")

PublicKey = Annotated[str, Meta(pattern=_Z85.pattern)]


class Role(StrEnum):
    """What a key may do; each of the first four may do what those before it may. `worker` serves a model."""

    READ = "read"
    GENERATE = "generate"
    WRITE = "write"
    ADMIN = "admin"
    WORKER = "worker"


_ORDER = (Role.READ, Role.GENERATE, Role.WRITE, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class User:
    """Who stands behind a connection: the name and public key of the allow-list, and its role.

    No role is every right: that of a process on the broker's own `ipc://` socket, or on a TCP endpoint without CURVE.
    """

    name: str = ""
    public: str = ""
    role: Role | None = None

    def may(self, need: Role) -> bool:
        if self.role is None or self.role is need:
            return True
        return self.role in _ORDER and need in _ORDER and _ORDER.index(self.role) >= _ORDER.index(need)

    def check(self, need: Role, what: str) -> None:
        """Raises Refused where this user may not do what needs that role."""
        if not self.may(need):
            raise Refused(
                f"{what} needs the role {need.value!r}, and the key {self.name!r} has {self.role}: who runs the broker "
                f"can give it with `ssmprov keys allow {self.name} --role {need.value}`"
            )


LOCAL = User()


@dataclass(frozen=True, slots=True)
class Pair:
    public: str
    secret: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs for an endpoint that speaks CURVE: its own pair, and the broker's public key."""

    name: str
    pair: Pair
    broker: str


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A key of the allow-list. `since` is in seconds since 1970."""

    public: PublicKey
    role: Role = Role.READ
    since: float = 0.0


def check_name(name: str) -> str:
    """The name of a key itself. Raises BadRequest."""
    if not _NAME.match(name):
        raise BadRequest(
            f"{name[:60]!r} is no name for a key: use 1 to 64 letters, digits, '.', '_' or '-', without a leading dot"
        )
    return name


# -- files


def secret_places(home: Path) -> list[str]:
    """Where secret keys lie, as real paths, none inside another: what code of others must not read."""
    folders = {os.path.realpath(directory_of(place)) for place in (home, home_of({}))}
    named = os.environ.get(KEY_VARIABLE, "")
    own = {os.path.realpath(key_file(home, named))} if named else set()
    places = folders | {path for path in own if not any(Path(path).is_relative_to(folder) for folder in folders)}
    return sorted(path for path in places if os.path.exists(path))


def directory_of(home: Path) -> Path:
    return home / ".keys"


def key_file(home: Path, own: str) -> Path:
    """The secret key that `$SSMPROV_KEY` means: a name of those made here, or a path."""
    if _NAME.match(own) and not own.endswith(".key"):
        return directory_of(home) / f"{own}.key"
    return Path(own).expanduser()


def make(home: Path, name: str) -> Pair:
    """Make a pair of keys. Raises Conflict where there is one of this name already."""
    import zmq

    directory = private_directory(directory_of(home))
    path = directory / f"{check_name(name)}.key"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    text = f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already: choose another name, or remove it if nobody needs it") from None
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    durable.replace(directory / f"{name}.pub", f"{public}\n".encode())
    return Pair(public, secret)


def load(path: Path) -> Pair:
    """Read a pair of keys. Raises NotFound, Refused where others could read it too, BadRequest for what is none."""
    from zmq.auth import load_certificate

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_KEY_FILE:
            raise BadRequest(f"{path} is no file with a pair of keys: `ssmprov keys new NAME` makes one")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(f"others than you may read the secret key {path}: run `chmod 600 {path}`")
        public, secret = load_certificate(path)
    except FileNotFoundError:
        raise NotFound(f"there is no key {path}: `ssmprov keys new {path.stem}` makes it") from None
    except (OSError, ValueError, IndexError) as error:  # the last one of a line that ends before its key
        raise BadRequest(f"cannot read the key {path}: {error}") from None
    try:
        pair = Pair(public.decode("ascii"), (secret or b"").decode("ascii"))
    except UnicodeDecodeError:
        pair = Pair("", "")
    if not (_Z85.match(pair.public) and _Z85.match(pair.secret)):
        raise BadRequest(f"{path} holds no pair of keys: `ssmprov keys new NAME` makes one")
    return pair


def public_of(text: str) -> str:
    """A public key from its 40 characters, or from a file that holds it. Raises BadRequest, NotFound."""
    if _Z85.match(text):
        return text
    path = Path(text).expanduser()
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            found = file.read(100).strip()
    except FileNotFoundError:
        raise NotFound(f"{text[:60]!r} is no public key of 40 characters, and there is no file of that name") from None
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from None
    if not _Z85.match(found):
        raise BadRequest(f"{path} holds no public key: give the .pub file of a pair, or its 40 characters")
    return found


# -- the allow-list


class AllowList:
    """The file of who is let in. Every change is written whole, for its owner's eyes alone."""

    def __init__(self, home: Path) -> None:
        self.directory = directory_of(home)
        self.path = self.directory / "allowed.json"

    def stamp(self) -> tuple[int, int]:
        """Something that differs after every change of the file."""
        try:
            found = self.path.stat()
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)

    def read(self) -> dict[str, Entry]:
        """All entries by name. Raises BadRequest for a file that is none, Refused for one that others may write."""
        try:
            if stat.S_IMODE(self.path.stat().st_mode) & 0o022:
                raise Refused(f"others than you may write {self.path}: run `chmod 600 {self.path}`")
            entries = msgspec.json.decode(self.path.read_bytes(), type=dict[str, Entry])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"{self.path} is no list of keys: {error}") from None
        for name in entries:
            check_name(name)
        if len({entry.public for entry in entries.values()}) < len(entries):
            raise BadRequest(f"{self.path} has one public key under several names: revoke all but one of them")
        return entries

    def allow(self, name: str, public: str, role: Role | None = None) -> Entry:
        """Let a key in, or change its role; with '' for the public key, that of the entry, or of NAME.pub here.

        Without a role it keeps its own, or is `read`. Raises NotFound where no public key is known, Conflict where the
        name or the key has another one.
        """
        with self._alone():
            return self._allow(name, public, role)

    def _allow(self, name: str, public: str, role: Role | None) -> Entry:
        entries = self.read()
        known = entries.get(check_name(name))
        if not public and known is None:
            public = public_of(str(self.directory / f"{name}.pub"))
        role = role or (known.role if known else Role.READ)
        entry = Entry(public or (known.public if known else ""), role, time.time())
        if known is not None and known.public != entry.public:
            raise Conflict(
                f"{name} has another public key there: give this one another name, or `ssmprov keys revoke {name}`"
            )
        for other, held in entries.items():
            if other != name and held.public == entry.public:
                raise Conflict(f"this public key is allowed already, as {other}")
        if len(entries) >= MAX_ALLOWED and known is None:
            raise BadRequest(f"{MAX_ALLOWED} keys are allowed already: revoke some of them")
        self._write(entries | {name: entry})
        return entry

    def revoke(self, name: str) -> None:
        """Let a key in no more. Raises NotFound."""
        with self._alone():
            entries = self.read()
            if name not in entries:
                raise NotFound(f"no key {name!r} is allowed{nearest(name, entries)}")
            del entries[name]
            self._write(entries)

    def users(self) -> dict[str, User]:
        """Who is let in, by public key."""
        return {entry.public: User(name, entry.public, entry.role) for name, entry in self.read().items()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the list while nobody else does: what another change revoked must not come back by this one."""
        private_directory(self.directory)
        handle = os.open(self.directory / "allowed.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        self.path.touch(mode=0o600)
        durable.replace(self.path, msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n")


# -- the client's side


def credentials_for(endpoint: str, home: Path, purpose: str = "client") -> Credentials | None:
    """The keys that an endpoint is spoken to with; None where it needs none.

    `purpose` names the key that is used where `$SSMPROV_KEY` names none. Raises BadRequest for plain TCP to another
    machine, and NotFound, Refused and BadRequest for keys that are not there or cannot be used.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme != "tcp":
        return None
    directory = directory_of(home)
    if named := os.environ.get(BROKER_KEY_VARIABLE):
        broker = public_of(named)
    elif (directory / f"{BROKER}.pub").exists():
        broker = public_of(str(directory / f"{BROKER}.pub"))
    elif is_loopback(host_of(address)) or os.environ.get(INSECURE_VARIABLE, "").lower() in _YES:
        return None
    else:
        raise BadRequest(
            f"{endpoint} is on another machine, and without keys everybody on the way can read and change what is "
            f"said: set {BROKER_KEY_VARIABLE} to the broker's public key (`ssmprov keys ls` there shows it), or set "
            f"{INSECURE_VARIABLE}=1"
        )
    path = key_file(home, os.environ.get(KEY_VARIABLE) or purpose)
    return Credentials(path.stem, load(path), broker)
