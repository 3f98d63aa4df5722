"""The TOML configuration, which is read and checked once, and the working directory that its paths refer to."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import platformdirs
from msgspec import Meta

from ssmprov import encoding
from ssmprov.errors import BadRequest, NotFound, nearest
from ssmprov.names import check_model
from ssmprov.runtimes import decode_options, options_of

CONFIG_FILE = "ssmprov.toml"
RUN_DIRECTORY = "run"
MAX_IPC_PATH = 107
MAX_DOTS = 1000
"""The most dots in one line. Parsing takes quadratic time in the parts of a dotted key, and ours have at most two."""

_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*((?:[KMGT]i?)?)B?\s*\Z", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

Whole = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=0, le=65535)]


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
    """`[[model]]`: one model and its workers. `options` holds the keys that are only declared by its runtime."""

    name: str
    runtime: str
    path: str
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
    """The working directory: `$SSMPROV_HOME`, else `/_` if it exists, else the platform's data directory."""
    if chosen := environment.get("SSMPROV_HOME"):
        return Path(chosen).expanduser().absolute()
    if Path("/_").is_dir():
        return Path("/_")
    return Path(platformdirs.user_data_dir("ssmprov"))


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
        raise BadRequest(f"cannot read {source}: {error}") from None
    return Configuration(home, parse(text, str(source)), source)


def parse(text: str, where: str) -> Tables:
    """The tables of a TOML text. Raises BadRequest, which names `where` and the key."""
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise BadRequest(f"{where} has a line with more than {MAX_DOTS} dots, which are too many: shorten it")
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also raised for a number with more digits than Python accepts
        raise BadRequest(f"{where} is not valid TOML: {error}") from None
    _check_keys(raw, where)
    _take_options(raw, where)
    _check_required(raw, where)
    try:
        tables = msgspec.convert(raw, Tables)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {error}") from None
    _check(tables, where)
    return tables


def _check_keys(raw: Mapping[str, Any], where: str) -> None:
    """Report an unknown key with the nearest known one, which msgspec would not suggest."""
    kinds = {"broker": BrokerTable, "model": ModelTable, "bridge": BridgeTable}
    for key, value in raw.items():
        if key not in kinds:
            raise BadRequest(f"{where}: unknown key {key!r}{nearest(key, kinds)}")
        if key == "model":
            continue  # its runtime knows the rest of them
        for table in value if isinstance(value, list) else [value]:
            known = kinds[key].__struct_fields__
            for inner in table if isinstance(table, dict) else ():
                if inner not in known:
                    raise BadRequest(f"{where}: unknown key {inner!r} in [{key}]{nearest(inner, known)}")


def _check_required(raw: Mapping[str, Any], where: str) -> None:
    """Report a missing key more clearly than msgspec would."""
    for key, kind in (("model", ModelTable), ("bridge", BridgeTable)):
        tables = raw.get(key)
        for table in tables if isinstance(tables, list) else ():
            for field in msgspec.structs.fields(kind):
                if field.required and isinstance(table, dict) and field.name not in table:
                    raise BadRequest(f"{where}: a [[{key}]] table needs the key {field.name!r}")


def _take_options(raw: Mapping[str, Any], where: str) -> None:
    """Move the keys of each model's runtime into its `options`, and have that runtime check them."""
    models = raw.get("model")
    for table in models if isinstance(models, list) else ():
        if not isinstance(table, dict):
            continue
        options = {key: table.pop(key) for key in list(table) if key not in MODEL_KEYS}
        runtime = table.get("runtime", "")
        if options and isinstance(runtime, str) and (kind := options_of(runtime)):
            try:
                decode_options(options, kind, runtime, MODEL_KEYS)
            except BadRequest as error:
                raise BadRequest(f"{where}: model {table.get('name')!r}: {error}") from None
        table["options"] = options


def _check(tables: Tables, where: str) -> None:
    names = [table.name for table in tables.model]
    try:
        for table in tables.model:
            check_model(table.name)
            parse_size(table.hot_bytes)
            if not table.devices:
                raise BadRequest(f'model {table.name!r} needs at least one device, such as "cpu"')
        for text in (tables.broker.queue_bytes, tables.broker.answers_bytes, tables.broker.memory):
            parse_size(text)
        for bridge in tables.bridge:
            parse_size(bridge.request_bytes)
            if bridge.model not in names:
                raise BadRequest(
                    f"bridge {bridge.port}: there is no model {bridge.model!r}{nearest(bridge.model, names)}"
                )
    except BadRequest as error:
        raise BadRequest(f"{where}: {error}") from None
    ports = [str(bridge.port) for bridge in tables.bridge if bridge.port]
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
    """A ZeroMQ endpoint. An ipc path is relative to the working directory.

    Linux allows 107 bytes for an ipc path. A longer one is replaced by a short path that contains its hash.
    """
    scheme, sep, rest = text.partition("://")
    if not sep or scheme not in ("ipc", "tcp"):
        raise BadRequest(f"{text!r} is not a valid endpoint: write ipc://PATH or tcp://ADDRESS:PORT")
    if scheme == "tcp":
        return text
    path = str((home / rest).absolute())
    if len(os.fsencode(path)) > MAX_IPC_PATH:
        short = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        path = f"{base}/ssmprov-{os.getuid()}-{short}/broker.sock"
        if len(os.fsencode(path)) > MAX_IPC_PATH:
            raise BadRequest(f"{path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter directory")
    return f"ipc://{path}"


def is_loopback(host: str) -> bool:
    """Whether a host (an address or `localhost`) can only be reached from this machine."""
    if host == "localhost":
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
