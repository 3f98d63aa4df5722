"""Keys and roles: who may connect to a broker over TCP, and what they may do.

CURVE protects the wire (RFC 26 of ZeroMQ, https://rfc.zeromq.org/spec/26/). Both sides have a key pair. The broker
accepts only the public keys on its allow-list, and clients recognise the broker by its public key. Keys are written in
Z85, which takes 40 characters. They are in `.keys` in the working directory (mode 0700), which RUN hides from code:

    NAME.key        a key pair: it is secret, and only its owner may read it (0600)
    NAME.pub        the public key of the pair
    allowed.json    the broker's allow-list: names with their public keys and roles

The broker uses the pair `broker`, and workers use `worker`. Clients use `client`, unless `$SSMPROV_KEY` names another
one. A broker that has a key pair uses CURVE on every TCP endpoint. An `ipc://` socket needs no keys, because only its
owner can enter its directory.
"""

from __future__ import annotations

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

from ssmprov import durable, encoding, locks
from ssmprov.causes import expanded, explained
from ssmprov.configuration import home_of, host_of, is_loopback, private_directory
from ssmprov.environment import is_on
from ssmprov.errors import BadRequest, Conflict, NotFound, Refused, nearest

BROKER = "broker"
KEY_VARIABLE = "SSMPROV_KEY"
BROKER_KEY_VARIABLE = "SSMPROV_BROKER_KEY"
INSECURE_VARIABLE = "SSMPROV_INSECURE"
MAX_ALLOWED = 10_000
MAX_KEY_FILE = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")

PublicKey = Annotated[str, Meta(pattern=_Z85.pattern)]


class Role(StrEnum):
    """What a key may do. Each of the first four includes the ones before it. `worker` serves a model."""

    READ = "read"
    GENERATE = "generate"
    WRITE = "write"
    ADMIN = "admin"
    WORKER = "worker"


_ORDER = (Role.READ, Role.GENERATE, Role.WRITE, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class User:
    """Who is connected: the name, public key and role from the allow-list.

    A user without a role may do everything. That is a process on the broker's `ipc://` socket, or on a TCP endpoint
    without CURVE.
    """

    name: str = ""
    public: str = ""
    role: Role | None = None

    def may(self, need: Role) -> bool:
        if self.role is None or self.role is need:
            return True
        return self.role in _ORDER and need in _ORDER and _ORDER.index(self.role) >= _ORDER.index(need)

    def check(self, need: Role, what: str) -> None:
        """Raises Refused if `what` needs a role that this user does not have."""
        if not self.may(need):
            raise Refused(
                f"{what} needs the role {need.value!r}, but the key {self.name!r} has the role {str(self.role)!r}: to "
                f"change it, run `ssmprov keys allow {self.name} --role {need.value}` on the broker's machine"
            )


LOCAL = User()


@dataclass(frozen=True, slots=True)
class Pair:
    public: str
    secret: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs for an endpoint that uses CURVE: its own key pair, and the broker's public key."""

    name: str
    pair: Pair
    broker: str


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A key on the allow-list. `since` is in seconds since 1970."""

    public: PublicKey
    role: Role = Role.READ
    since: float = 0.0


def check_name(name: str) -> str:
    """The key's name itself. Raises BadRequest if it is invalid."""
    if not _NAME.match(name):
        raise BadRequest(
            f"{name[:60]!r} is not a valid name for a key: use 1 to 64 letters, digits, '.', '_' or '-', and do not "
            "begin with a dot"
        )
    return name


# -- files


def secret_places(home: Path) -> list[str]:
    """Files and directories with secret keys, which sandboxed code must not read: real paths, none inside another."""
    folders = {os.path.realpath(directory_of(place)) for place in (home, home_of(os.environ | {"SSMPROV_HOME": ""}))}
    named = os.environ.get(KEY_VARIABLE, "")
    own = {os.path.realpath(key_file(home, named))} if named else set()
    places = folders | {path for path in own if not any(Path(path).is_relative_to(folder) for folder in folders)}
    return sorted(path for path in places if os.path.exists(path))


def directory_of(home: Path) -> Path:
    return home / ".keys"


def key_file(home: Path, own: str) -> Path:
    """The file of the key pair that `$SSMPROV_KEY` names: by the name of a pair made here, or by its path."""
    if _NAME.match(own) and not own.endswith(".key"):
        return directory_of(home) / f"{own}.key"
    return expanded(own)


def make(home: Path, name: str) -> Pair:
    """Make a key pair. Raises Conflict if there is already one with this name."""
    import zmq

    directory = private_directory(directory_of(home))
    path = directory / f"{check_name(name)}.key"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    text = f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} already exists: choose another name, or delete it if nobody needs it") from None
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    durable.replace(directory / f"{name}.pub", f"{public}\n".encode())
    return Pair(public, secret)


def load(path: Path) -> Pair:
    """Read a key pair. Raises NotFound, Refused if others can read the file, and BadRequest if it holds no key pair."""
    from zmq.auth import load_certificate

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_KEY_FILE:
            raise BadRequest(f"{path} is not a key file: make one with `ssmprov keys new NAME`")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(f"other users can read the secret key {path}: run `chmod 600 {path}`")
        public, secret = load_certificate(path)
    except FileNotFoundError:
        raise NotFound(f"there is no key {path}: make it with `ssmprov keys new {path.stem}`") from None
    except OSError as error:
        raise explained(error, "cannot read a key") from None
    except (ValueError, IndexError) as error:  # IndexError: a line ends before its key
        raise BadRequest(f"cannot read the key {path}: {error}") from None
    try:
        pair = Pair(public.decode("ascii"), (secret or b"").decode("ascii"))
    except UnicodeDecodeError:
        pair = Pair("", "")
    if not (_Z85.match(pair.public) and _Z85.match(pair.secret)):
        raise BadRequest(f"{path} does not contain a key pair: make one with `ssmprov keys new NAME`")
    return pair


def public_of(text: str) -> str:
    """A public key from its 40 characters, or from a file that holds it. Raises BadRequest, NotFound."""
    if _Z85.match(text):
        return text
    path = expanded(text)
    try:
        with path.open("rb") as file:
            found = encoding.without_bom(file.read(100)).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise NotFound(
            f"{text[:60]!r} is neither a public key nor a file: give the 40 characters of a public key, or its .pub "
            "file"
        ) from None
    except OSError as error:
        raise explained(error, "cannot read a public key") from None
    if not _Z85.match(found):
        raise BadRequest(
            f"{path} does not contain a public key: give the 40 characters of a public key, or its .pub file"
        )
    return found


# -- the allow-list


class AllowList:
    """The file of allowed keys. Each change writes the whole file, which only its owner can read."""

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
        """All entries by name. Raises BadRequest if the file is invalid, and Refused if others can write to it."""
        try:
            if stat.S_IMODE(self.path.stat().st_mode) & 0o022:
                raise Refused(f"other users can write to {self.path}: run `chmod 600 {self.path}`")
            entries = msgspec.json.decode(encoding.without_bom(self.path.read_bytes()), type=dict[str, Entry])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise explained(error, "cannot read the list of keys") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"{self.path} is not a valid list of keys: {error}") from None
        for name in entries:
            check_name(name)
        if len({entry.public for entry in entries.values()}) < len(entries):
            raise BadRequest(f"{self.path} has the same public key under several names: delete all but one of them")
        return entries

    def allow(self, name: str, public: str, role: Role | None = None) -> Entry:
        """Allow a key, or change its role. If `public` is '', the key is the one of the entry or in NAME.pub here.

        Without a role, a known key keeps its role and a new one gets `read`. Raises NotFound if no public key is known,
        and Conflict if the name belongs to another key or the key has another name.
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
                f"another public key is already allowed as {name}: choose another name for this one, or run `ssmprov "
                f"keys revoke {name}` first"
            )
        for other, held in entries.items():
            if other != name and held.public == entry.public:
                raise Conflict(f"this public key is already allowed as {other}: use that name")
        if len(entries) >= MAX_ALLOWED and known is None:
            raise BadRequest(f"{MAX_ALLOWED} keys are already allowed, which is the limit: revoke some of them")
        self._write(entries | {name: entry})
        return entry

    def revoke(self, name: str) -> None:
        """Stop allowing a key. Raises NotFound."""
        with self._alone():
            entries = self.read()
            if name not in entries:
                raise NotFound(f"there is no allowed key {name!r}{nearest(name, entries)}")
            del entries[name]
            self._write(entries)

    def users(self) -> dict[str, User]:
        """The allowed users, by public key."""
        return {entry.public: User(name, entry.public, entry.role) for name, entry in self.read().items()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the list while nobody else does, so that no change brings back a key that another one has revoked."""
        private_directory(self.directory)
        handle = os.open(self.directory / "allowed.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            locks.lock(handle, locks.EXCLUSIVE, self.directory)
            yield
        finally:
            os.close(handle)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        self.path.touch(mode=0o600)
        durable.replace(self.path, msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n")


# -- the client's side


def credentials_for(endpoint: str, home: Path, purpose: str = "client") -> Credentials | None:
    """The keys for connecting to an endpoint, or None if it needs none.

    `purpose` is the name of our key pair, unless `$SSMPROV_KEY` names another. Raises BadRequest for plain TCP to
    another machine, and NotFound, Refused or BadRequest if a key does not exist or cannot be used.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme != "tcp":
        return None
    directory = directory_of(home)
    if named := os.environ.get(BROKER_KEY_VARIABLE):
        broker = public_of(named)
    elif (directory / f"{BROKER}.pub").exists():
        broker = public_of(str(directory / f"{BROKER}.pub"))
    elif is_loopback(host_of(address)) or is_on(INSECURE_VARIABLE):
        return None
    else:
        raise BadRequest(
            f"{endpoint} is on another machine, and without keys anybody on the network can read and change what you "
            f"send: set {BROKER_KEY_VARIABLE} to the broker's public key (run `ssmprov keys ls` there to see it), or "
            f"set {INSECURE_VARIABLE}=1 to connect without keys"
        )
    path = key_file(home, os.environ.get(KEY_VARIABLE) or purpose)
    return Credentials(path.stem, load(path), broker)
