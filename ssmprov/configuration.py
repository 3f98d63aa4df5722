"""The TOML configuration, which is read and checked once, and the working directory that its paths refer to."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ssmprov import causes, encoding
from ssmprov.errors import BadRequest, NotFound, nearest
from ssmprov.names import check_model
from ssmprov.rooms import SHIPPED
from ssmprov.runtimes import decode_options, options_of
from ssmprov.toml_file import TomlFile

CONFIG_FILE = "ssmprov.toml"
RUN_DIRECTORY = "run"
SHARED_HOME = Path("/_")
NOTE = ".config/ssmprov/home"
"""The file below a user's home directory in which install.sh notes the working directory."""

MAX_PORT = 65535
LOOPBACK = "127.0.0.1"

_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*((?:[KMGT]i?)?)B?\s*\Z", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

Whole = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=0, le=MAX_PORT)]


class BrokerTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[broker]`: where it listens, and its limits on queued requests, memory and connections.

    `connections_per_key` and `requests_per_s` (an average) apply to each key on the allow-list, but not to processes on
    the broker's own socket. If the broker uses more than `memory`, it ends, and its supervisor starts it again.
    """

    listen: tuple[str, ...] = ("ipc://run/broker.sock",)
    queue: Whole = 1024
    queue_per_client: Whole = 256
    queue_bytes: str = "256 MiB"
    answers_bytes: str = "64 MiB"
    metrics_port: Port | None = None
    connections: Whole = 4096
    connections_per_key: Whole = 32
    requests_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 200.0
    memory: str = "4 GiB"


class ModelTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[model]]`: one model and its workers. `options` holds the keys that are only declared by its runtime.

    `default` marks the model that is meant if none is named; otherwise it is the first one.
    """

    name: str
    runtime: str
    path: str
    default: bool = False
    checkpoints: str = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    settings: str = ""
    slots: Annotated[int, Meta(ge=1, le=128)] = 8
    devices: tuple[str, ...] = ("cpu",)
    dtype: str = ""
    hot_bytes: str = "512 MiB"
    keep_steps: Whole = 20
    max_names: Whole = 1_000_000
    slice_tokens: Annotated[int, Meta(ge=1, le=4096)] = 128
    gap_ms: Annotated[float, Meta(gt=0, le=86_400_000)] = 200.0
    stall_s: Seconds = 60.0
    options: dict[str, Any] = {}


MODEL_KEYS = tuple(key for key in ModelTable.__struct_fields__ if key != "options")
"""The keys of `[[model]]` that every runtime has."""


class BridgeTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[bridge]]`: one TCP port for one model. Port 0 means any free port."""

    port: Port
    model: str
    host: str = "127.0.0.1"
    connections: Whole = 256
    idle_s: Seconds = 60.0
    request_bytes: str = "8 MiB"
    turn_s: Seconds = 3600.0


class Tables(msgspec.Struct, forbid_unknown_fields=True):
    broker: BrokerTable = msgspec.field(default_factory=BrokerTable)
    model: list[ModelTable] = []
    bridge: list[BridgeTable] = []


KINDS: dict[str, type[msgspec.Struct]] = {"broker": BrokerTable, "model": ModelTable, "bridge": BridgeTable}


class Configuration(msgspec.Struct, frozen=True):
    """A checked configuration: its tables, and the working directory that their paths refer to."""

    home: Path
    tables: Tables
    source: Path | None = None

    def model(self, name: str) -> ModelTable:
        for table in self.tables.model:
            if table.name == name:
                return table
        raise NotFound(f"the configuration has no model {name!r}{nearest(name, [t.name for t in self.tables.model])}")

    @property
    def default(self) -> str:
        """The model that is meant if none is named; '' if the configuration has none."""
        tables = self.tables.model
        return next((table.name for table in tables if table.default), tables[0].name if tables else "")

    def path(self, text: str) -> Path:
        """A path of the configuration: absolute, in the user's home (~), or below the working directory.

        Raises BadRequest if no file can have that name.
        """
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise BadRequest(f"{text!r} begins with the home directory of an unknown user") from None
        if "\0" in text:
            raise BadRequest(f"{text!r} is not a valid path: it contains U+0000")
        return (self.home / path).absolute()

    def store(self, model: ModelTable) -> Path:
        return self.path(model.checkpoints or f".checkpoints/{model.name}")

    def endpoints(self) -> list[str]:
        """Where the broker listens. Processes of this machine use the first endpoint; ipc endpoints come first."""
        listed = [endpoint_of(text, self.home) for text in self.tables.broker.listen]
        return sorted(listed, key=lambda endpoint: not endpoint.startswith("ipc://"))


def home_of(environment: Mapping[str, str] = os.environ) -> Path:
    """The working directory, in which every program looks for its files and its broker.

    It is `$SSMPROV_HOME`, else the one that install.sh has noted for this user, else `/_` if this user can write there,
    else `ssmprov/home` in the platform's data directory. Root finds the directory of the user who called sudo, unless
    it has its own.
    """
    if chosen := environment.get("SSMPROV_HOME"):
        return Path(chosen).expanduser().absolute()
    people = list(_people(environment))
    for person in people:
        if noted := _noted(person / NOTE):
            return noted
    if SHARED_HOME.is_dir() and os.access(SHARED_HOME, os.W_OK | os.X_OK):
        return SHARED_HOME
    data = Path(environment.get("XDG_DATA_HOME", ""))
    folders = [data] if data.is_absolute() else []
    places = [folder / "ssmprov" for folder in (*folders, *(person / ".local/share" for person in people))]
    if not places:
        raise BadRequest("this user has no home directory: set SSMPROV_HOME to the working directory")
    for place in places:
        if (place / "home").is_dir():
            return place / "home"
        if (place / ".checkpoints").is_dir():  # an earlier version kept its contexts there
            return place
    return places[0] / "home"


def _people(environment: Mapping[str, str]) -> Iterator[Path]:
    """The home directories of this user and, if this is root, of the user who called sudo."""
    own = environment.get("HOME")
    with contextlib.suppress(KeyError):
        yield Path(own or pwd.getpwuid(os.getuid()).pw_dir).absolute()
    with contextlib.suppress(ValueError, KeyError):
        if os.geteuid() == 0:
            yield Path(pwd.getpwuid(int(environment["SUDO_UID"])).pw_dir)


def _noted(note: Path) -> Path | None:
    with contextlib.suppress(OSError):
        noted = Path(os.fsdecode(note.read_bytes()).removesuffix("\n"))
        return noted if noted.is_absolute() else None
    return None


def load(path: Path | None = None, home: Path | None = None) -> Configuration:
    """Read the TOML file `path`, else the working directory's file, else use the defaults.

    Raises NotFound if `path` does not exist, and BadRequest, naming file and key, if something is wrong.
    """
    if path is not None:
        home = home or (home_of() if "SSMPROV_HOME" in os.environ else path.absolute().parent)
    home = home or home_of()
    source = path or home / CONFIG_FILE
    try:
        text = encoding.read(source)
    except FileNotFoundError:
        if path is not None:
            raise NotFound(f"there is no configuration file {path}") from None
        return Configuration(home, Tables())
    except OSError as error:
        raise causes.explained(error, "cannot read the configuration") from None
    return Configuration(home, parse(text, str(source)), source)


def load_or_shipped(path: Path | None = None) -> Configuration:
    """What `ssmprov up` serves: the TOML file `path`, else the working directory's file, else the shipped one."""
    home = home_of()
    if path is None and not (home / CONFIG_FILE).exists():
        return load(SHIPPED, home)
    return load(path.absolute() if path else None)


def parse(text: str, where: str) -> Tables:
    """The tables of a TOML text. Raises BadRequest, which names `where` and the key."""
    file = TomlFile(text, where)
    raw = file.content
    _check_keys(raw, file)
    _take_options(raw, file)
    _check_required(raw, file)
    _check_types(raw, file)
    try:
        tables = msgspec.convert(raw, Tables)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {error}") from None
    _check(tables, file)
    return tables


def _tables(raw: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str | int, ...], dict[str, Any]]]:
    """Each table: its kind, its key, and its content."""
    for kind in KINDS:
        value = raw.get(kind)
        if kind == "broker":
            if isinstance(value, dict):
                yield kind, (kind,), value
        elif isinstance(value, list):
            for index, table in enumerate(value):
                if isinstance(table, dict):
                    yield kind, (kind, index), table


def _called(kind: str, table: Mapping[str, Any]) -> str:
    """What a message calls a table: a model by its name, a bridge by its port."""
    name = table.get({"model": "name", "bridge": "port"}.get(kind, ""))
    return f"[{kind}]" if name is None else f"{kind} {name!r}"


def _check_keys(raw: Mapping[str, Any], file: TomlFile) -> None:
    """Report an unknown key with the nearest known one, which msgspec would not suggest."""
    for key in raw:
        if key not in KINDS:
            raise file.wrong(f"unknown key {key!r}{nearest(key, KINDS)}", key)
    for kind, place, table in _tables(raw):
        known = KINDS[kind].__struct_fields__
        for key in table if kind != "model" else ():  # the runtime of a model knows the rest of its keys
            if key not in known:
                what = f"{_called(kind, table)}: unknown key {key!r} in [{kind}]{nearest(key, known)}"
                raise file.wrong(what, *place, key)


def _check_required(raw: Mapping[str, Any], file: TomlFile) -> None:
    """Report a missing key more clearly than msgspec would."""
    for kind, place, table in _tables(raw):
        for field in msgspec.structs.fields(KINDS[kind]):
            if field.required and field.name not in table:
                what = f"{_called(kind, table)}: a [[{kind}]] table needs the key {field.name!r}"
                raise file.wrong(what, *place)


def _check_types(raw: Mapping[str, Any], file: TomlFile) -> None:
    """Report a value of the wrong type or size with its table and line, which msgspec does not know."""
    for kind, place, table in _tables(raw):
        for field in msgspec.structs.fields(KINDS[kind]):
            try:
                msgspec.convert(table.get(field.name, field.default), field.type)
            except msgspec.ValidationError as error:
                if field.name in table:
                    what = f"{_called(kind, table)}: {field.name}: {error}"
                    raise file.wrong(what, *place, field.name) from None


def _take_options(raw: Mapping[str, Any], file: TomlFile) -> None:
    """Move the keys of each model's runtime into its `options`, and have that runtime check them."""
    for kind, place, table in _tables(raw):
        if kind != "model":
            continue
        options = {key: table.pop(key) for key in list(table) if key not in MODEL_KEYS}
        runtime = table.get("runtime", "")
        if options and isinstance(runtime, str) and (options_type := options_of(runtime)):
            try:
                decode_options(options, options_type, runtime, MODEL_KEYS)
            except BadRequest as error:
                key = error.details.get("key")
                raise file.wrong(f"{_called(kind, table)}: {error}", *place, *([key] if key else [])) from None
        table["options"] = options


def _check(tables: Tables, file: TomlFile) -> None:
    where = file.where
    names = [table.name for table in tables.model]
    for index, model in enumerate(tables.model):
        called = f"model {model.name!r}"
        with file.checking(called, "model", index, "name"):
            check_model(model.name)
        with file.checking(called, "model", index, "hot_bytes"):
            parse_size(model.hot_bytes)
        with file.checking(called, "model", index, "devices"):
            if not model.devices:
                raise BadRequest('it needs at least one device, such as "cpu"')
    for key in ("queue_bytes", "answers_bytes", "memory"):
        with file.checking("[broker]", "broker", key):
            parse_size(getattr(tables.broker, key))
    for index, bridge in enumerate(tables.bridge):
        called = f"bridge {bridge.port}"
        with file.checking(called, "bridge", index, "request_bytes"):
            parse_size(bridge.request_bytes)
        with file.checking(called, "bridge", index, "model"):
            if bridge.model not in names:
                raise BadRequest(f"there is no model {bridge.model!r}{nearest(bridge.model, names)}")
    ports = [str(bridge.port) for bridge in tables.bridge if bridge.port]
    defaults = [table.name for table in tables.model if table.default]
    if len(defaults) > 1:
        raise BadRequest(f"{where}: only one model can be the default, not {' and '.join(defaults)}")
    for what, values in (("two models have the name", names), ("two bridges use the port", ports)):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise BadRequest(f"{where}: {what} {', '.join(sorted(twice))}")
    if not tables.broker.listen:
        raise BadRequest(f"{where}: [broker] needs at least one endpoint in `listen`")


def parse_size(text: str) -> int:
    """Bytes from `512 MiB`, `2GB` or `4096`. Raises BadRequest."""
    found = _SIZE.match(text)
    if not found:
        raise BadRequest(f"{text!r} is not a valid size: write a number and a unit, such as 512 MiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def endpoint_of(text: str, home: Path) -> str:
    """A ZeroMQ endpoint. An ipc path is relative to the working directory, and depends on nothing else."""
    scheme, sep, rest = text.partition("://")
    if not sep or scheme not in ("ipc", "tcp"):
        raise BadRequest(f"{text!r} is not a valid endpoint: write ipc://PATH or tcp://ADDRESS:PORT")
    if scheme == "ipc":
        return f"ipc://{(home / rest).absolute()}"
    host, _, port = rest.rpartition(":")
    if not host or not (port == "*" or (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT)):
        raise BadRequest(f"{text!r} needs a port from 0 to {MAX_PORT}: write tcp://ADDRESS:PORT")
    return f"tcp://{LOOPBACK}:{port}" if _is_localhost(host) else text


def _is_localhost(host: str) -> bool:
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host (an address or `localhost`) can only be reached from this machine."""
    if _is_localhost(host):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host of `HOST:PORT`."""
    return address.rpartition(":")[0]


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter (0700), or check an existing one."""
    if not path.is_symlink():  # another user may have chosen its target, which must exist
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif path.lstat().st_uid not in (0, os.getuid()):
        raise BadRequest(f"{path} is a link that another user made: choose another directory")
    found = path.stat()
    if found.st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_ISVTX | stat.S_IWOTH:
        raise BadRequest(f"{path} is shared by all users: choose a private directory")
    if found.st_uid != os.getuid():
        raise BadRequest(f"{path} belongs to another user: choose another directory")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def hold_place(endpoint: str) -> None:
    """Check, before connecting to a socket below a shared directory such as /tmp, that its directory is this user's.

    The directory is made if it does not exist, so that nobody else can make it and answer instead of the broker.
    Raises BadRequest.
    """
    scheme, _, rest = endpoint.partition("://")
    folder = Path(rest).parent
    if scheme != "ipc":
        return
    with contextlib.suppress(OSError):
        if folder.parent.stat().st_mode & stat.S_IWOTH:
            private_directory(folder)
