"""The TOML configuration: what it takes, how it says no, and where its paths and sockets end up."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov import configuration
from ssmprov.configuration import (
    NOTE,
    SHARED_HOME,
    Configuration,
    Tables,
    endpoint_of,
    hold_place,
    home_of,
    is_loopback,
    parse,
    parse_size,
    private_directory,
)
from ssmprov.errors import BadRequest, NotFound
from ssmprov.rooms import SHIPPED

MODEL = '[[model]]\nname = "mini"\nruntime = "rwkv"\npath = "@mini"\n'
BRIDGE = '[[bridge]]\nport = 6502\nmodel = "mini"\n'


def configured(text: str = "", home: str = "/home/x") -> Configuration:
    return Configuration(Path(home), parse(text, "it"))


def test_nothing_is_a_configuration() -> None:
    tables = parse("", "it")
    assert tables.broker.listen == ("ipc://run/broker.sock",)
    assert (tables.model, tables.bridge) == ([], [])


def test_the_documented_example_is_read() -> None:
    found = configured(
        '[broker]\nlisten = ["ipc://run/broker.sock"]\n'
        + MODEL
        + 'checkpoints = ".checkpoints/rwkv7-mini"\nworkers = 2\n'
        'settings = "rwkv7"\nslots = 8\ndevices = ["cuda:0", "cuda:1"]\ndtype = "fp32"\nhot_bytes = "512 MiB"\n'
        + BRIDGE
    )
    mini = found.model("mini")
    assert (mini.workers, mini.slots, mini.devices) == (2, 8, ("cuda:0", "cuda:1"))
    assert found.store(mini) == Path("/home/x/.checkpoints/rwkv7-mini")
    assert found.tables.bridge[0].host == "127.0.0.1"
    assert found.endpoints() == ["ipc:///home/x/run/broker.sock"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("brokr = 1", "unknown key 'brokr'; did you mean broker"),
        ('[broker]\nlistens = ["x"]', "unknown key 'listens' in [broker]; did you mean listen?"),
        (MODEL + 'hot_byte = "1"', "model 'mini': unknown key 'hot_byte'; did you mean hot_bytes?"),
        (MODEL + BRIDGE + "prot = 1", "unknown key 'prot' in [bridge]; did you mean port?"),
        (MODEL.replace("@mini", "x") + "zzz = 1", "unknown key 'zzz'; use one of"),
        ('[[model]]\nname = "x"\nruntime = "rwkv"', "a [[model]] table needs the key 'path'"),
        (MODEL.replace("runtime", "runtim"), "unknown key 'runtim'; did you mean runtime?"),
        (MODEL + "options = {}", "unknown key 'options'"),
        ("[broker", "is not valid TOML"),
        ("a = 1\na = 2", "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        ("broker = 3", "$.broker"),
        ("model = [3]", "$.model[0]"),
        ('[model]\nname = "x"', "$.model"),
        ('[[model]]\nname = "x"', "runtime"),
        (MODEL + "workers = 0", "model 'mini': workers: Expected"),
        (MODEL + "workers = 65", "model 'mini': workers: Expected"),
        (MODEL + "workers = " + "9" * 50, "model 'mini': workers: Expected"),
        (MODEL + "slots = true", "model 'mini': slots: Expected"),
        (MODEL + "slots = 257", "model 'mini': slots: Expected"),
        (MODEL + "slice_tokens = 4097", "model 'mini': slice_tokens: Expected"),
        (MODEL + "gap_ms = 0", "model 'mini': gap_ms: Expected"),
        (MODEL + "stall_s = 0", "model 'mini': stall_s: Expected"),
        (MODEL + "stall_s = nan", "model 'mini': stall_s: Expected"),
        (MODEL + "keep_steps = 0", "model 'mini': keep_steps: Expected"),
        (MODEL + "devices = []", "at least one device"),
        (MODEL + 'devices = "cpu"', "model 'mini': devices: Expected"),
        (MODEL + 'hot_bytes = "much"', "'much' is not a valid size"),
        (MODEL + "hot_bytes = 5", "model 'mini': hot_bytes: Expected"),
        ('[broker]\nqueue_bytes = "x"', "'x' is not a valid size"),
        ("[broker]\nlisten = []", "at least one endpoint"),
        ("[broker]\nmetrics_port = 65536", "[broker]: metrics_port: Expected"),
        (MODEL + BRIDGE + 'request_bytes = "x"', "'x' is not a valid size"),
        (MODEL.replace('"mini"', '"a/b"'), "not a valid name for a model"),
        (MODEL.replace('"mini"', '".a"'), "not a valid name for a model"),
        (BRIDGE, "bridge 6502: there is no model 'mini'"),
        (MODEL + BRIDGE.replace("mini", "miny"), "no model 'miny'; did you mean mini?"),
        (MODEL + MODEL, "two models have the name mini"),
        (MODEL + BRIDGE + BRIDGE, "two bridges use the port 6502"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_key(text: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(text, "the/file.toml")
    assert str(refused.value).startswith("the/file.toml")
    assert says in str(refused.value)


# -- options of a runtime


@pytest.mark.parametrize(
    ("runtime", "line", "says"),
    [
        ("rwkv", "n_ctx = 64", "unknown key 'n_ctx'; use one of: checkpoints,"),
        ("rwkv", "n_ctx = 64", "(the runtime rwkv takes threads, prefill_dtype, quantize)"),
        ("rwkv", "thread = 2", "unknown key 'thread'; did you mean threads?"),
        ("rwkv", "threads = 0", "Expected `int` >= 1 - at `$.threads`"),
        ("rwkv", 'quantize = "int4"', "quantize must be \"int8\" or left out, not 'int4'"),
        ("rwkv", 'prefill_dtype = "half"', "prefill_dtype must be one of fp32, bf16, fp16, not 'half'"),
        ("llama", "threads = 2", "unknown key 'threads'; did you mean n_threads?"),
        ("llama", "n_batch = 0", "$.n_batch"),
        ("llama", "n_threads = 1025", "$.n_threads"),
        ("llama", "n_ctx = 15", "$.n_ctx"),
        ("llama", "n_gpu_layers = -1", "$.n_gpu_layers"),
        ("asm", 'quantize = "int8"', "(the runtime asm takes threads, scan, pos_mode)"),
        ("asm", "scan = 8", "$.scan"),
        ("scripted", "threads = 2", "(the runtime scripted takes no further keys)"),
    ],
)
def test_a_runtime_takes_its_own_options_alone(runtime: str, line: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(MODEL.replace('"rwkv"', f'"{runtime}"') + line, "the/file.toml")
    assert str(refused.value).startswith("the/file.toml, line 5: model 'mini': ")
    assert says in str(refused.value)


def test_options_are_kept_as_they_were_written() -> None:
    text = MODEL.replace('"rwkv"', '"llama"') + "slots = 3\nn_threads = 2\nn_ctx = 512\n"
    [table] = parse(text, "it").model
    assert (table.slots, table.options) == (3, {"n_threads": 2, "n_ctx": 512})


def test_the_keys_of_a_runtime_that_is_not_here_are_left_to_its_worker() -> None:
    [table] = parse(MODEL.replace('"rwkv"', '"elsewhere"') + "depth = 2\n", "it").model
    assert table.options == {"depth": 2}


@pytest.mark.parametrize(
    "text", [MODEL + "stall_s = inf", MODEL + BRIDGE + "turn_s = inf", MODEL + BRIDGE + "idle_s = 1e400"]
)
def test_times_are_finite(text: str) -> None:
    with pytest.raises(BadRequest, match="_s"):
        parse(text, "it")


def test_bridges_without_a_port_of_their_own_may_be_many() -> None:
    free = BRIDGE.replace("6502", "0")
    assert len(parse(MODEL + free + free, "it").bridge) == 2


def test_a_model_that_is_not_configured_is_told_the_nearest() -> None:
    with pytest.raises(NotFound, match="the configuration has no model 'mino'; did you mean mini"):
        configured(MODEL).model("mino")


def test_the_default_configuration_is_one() -> None:
    found = configuration.load(SHIPPED, Path("/h"))
    assert [model.name for model in found.tables.model] == [found.default] == ["rwkv7-mini"]


# -- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("4096", 4096), ("1B", 1), ("512 MiB", 512 * 2**20), ("2GB", 2 * 10**9), ("2 gb", 2 * 10**9),
        ("1.5 KiB", 1536), (" 3 kb ", 3000), ("1TiB", 2**40), ("1T", 10**12), ("7k", 7000), ("7Ki", 7168),
        ("0.5k", 500),
    ],
)  # fmt: skip
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "B", "-1", "1.5.5", "1 XB", "1e3", "MiB", "1 MiBB", "1,5 MB", "٣", "0x10", "1 M B", "inf"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a valid size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["5i", "512 iB", "9" * 400, "9" * 400 + " TiB"])
def test_a_size_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="size"):
        parse_size(text)


@given(st.integers(0, 10**6), st.sampled_from(["", "K", "Ki", "M", "Mi", "G", "Gi"]), st.sampled_from(["", "B"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, b: str) -> None:
    base = 1024 if unit.endswith("i") else 1000
    assert parse_size(f"{number} {unit}{b}") == number * base ** " KMG".index((unit or " ")[0])


# -- places


def test_the_home_is_chosen_by_the_environment_or_the_platform(tmp_path: Path) -> None:
    assert home_of({"SSMPROV_HOME": "/some/where"}) == Path("/some/where")
    assert home_of({"SSMPROV_HOME": "here"}) == Path("here").absolute()
    assert home_of({"SSMPROV_HOME": "~/x"}) == Path("~/x").expanduser()
    assert home_of({}).is_absolute()
    person = {"HOME": str(tmp_path)}
    if not os.access(SHARED_HOME, os.W_OK):
        assert home_of(person) == tmp_path / ".local/share/ssmprov/home"
        assert home_of(person | {"XDG_DATA_HOME": "/data"}) == Path("/data/ssmprov/home")
        (tmp_path / ".local/share/ssmprov/.checkpoints").mkdir(parents=True)  # of an earlier version
        assert home_of(person) == tmp_path / ".local/share/ssmprov"
        (tmp_path / ".local/share/ssmprov/home").mkdir()
        assert home_of(person | {"XDG_DATA_HOME": "/data"}) == tmp_path / ".local/share/ssmprov/home"


def test_the_home_that_was_noted_goes_before_all_but_the_environment(tmp_path: Path) -> None:
    note = tmp_path / NOTE
    note.parent.mkdir(parents=True)
    note.write_text(f"{tmp_path}/of mine\n")
    person = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "/other", "XDG_DATA_HOME": "/other"}
    assert home_of(person) == tmp_path / "of mine"
    assert home_of(person | {"SSMPROV_HOME": "/h"}) == Path("/h")
    note.write_text("")
    assert home_of(person) != tmp_path / "of mine"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "used"), [(0o755, False), (0o777, True)])
def test_a_shared_home_is_used_only_by_whoever_can_write_there(
    mode: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder, "shared")
        shared.mkdir()
        for path, rights in ((Path(folder), 0o755), (shared, mode)):
            path.chmod(rights)
        monkeypatch.setattr(configuration, "SHARED_HOME", shared)
        assert home_of({"HOME": "/h"}) == shared  # root can write anywhere
        child = os.fork()
        if child == 0:  # somebody else
            os.setresuid(12345, 12345, 12345)
            os._exit(home_of({"HOME": "/h"}) == (shared if used else Path("/h/.local/share/ssmprov/home")))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root is called by sudo")
def test_root_finds_the_home_of_who_called_sudo_unless_it_has_its_own(tmp_path: Path) -> None:
    caller = Path(pwd.getpwuid(1).pw_dir) / ".local/share/ssmprov/home"
    root = {"HOME": str(tmp_path), "SUDO_UID": "1"}
    expected = caller if caller.is_dir() else tmp_path / ".local/share/ssmprov/home"
    assert home_of(root) == expected
    note = tmp_path / NOTE
    note.parent.mkdir(parents=True)
    note.write_text("/own\n")
    assert home_of(root) == Path("/own")
    assert home_of(root | {"SUDO_UID": "nobody knows"}) == Path("/own")


def test_the_default_model_is_the_first_or_the_one_marked() -> None:
    assert configured("").default == ""
    two = MODEL + MODEL.replace("mini", "other")
    assert configured(two).default == "mini"
    assert configured(two + "default = true\n").default == "other"
    with pytest.raises(BadRequest, match="only one model can be the default"):
        configured(MODEL + "default = true\n" + MODEL.replace("mini", "other") + "default = true\n")


def test_a_file_is_read_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MODEL)
    monkeypatch.delenv("SSMPROV_HOME", raising=False)
    assert configuration.load(path).home == tmp_path
    assert configuration.load(path, Path("/other")).home == Path("/other")
    monkeypatch.setenv("SSMPROV_HOME", "/third")
    assert configuration.load(path).home == Path("/third")
    assert configuration.load(path).source == path


def test_without_a_file_the_home_is_looked_at_and_then_the_defaults(tmp_path: Path) -> None:
    assert configuration.load(None, tmp_path) == Configuration(tmp_path, Tables())
    (tmp_path / "ssmprov.toml").write_text(MODEL)
    assert configuration.load(None, tmp_path).model("mini").runtime == "rwkv"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.toml"):
        configuration.load(tmp_path / "absent.toml")
    with pytest.raises(BadRequest, match="cannot read"):
        configuration.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe4")
    with pytest.raises(BadRequest, match=r"latin\.toml"):
        configuration.load(tmp_path / "latin.toml")


def test_paths_are_below_the_working_directory() -> None:
    found = configured(MODEL)
    assert found.path("a/b") == Path("/home/x/a/b")
    assert found.path("/a/b") == Path("/a/b")
    assert found.path("~/b") == Path("~/b").expanduser()
    assert found.store(found.model("mini")) == Path("/home/x/.checkpoints/mini")


# -- endpoints


def test_endpoints_are_ipc_below_the_home_or_tcp_as_they_are() -> None:
    home = Path("/home/x")
    assert endpoint_of("ipc://run/b.sock", home) == "ipc:///home/x/run/b.sock"
    assert endpoint_of("ipc:///run/b.sock", home) == "ipc:///run/b.sock"
    assert endpoint_of("tcp://127.0.0.1:5555", home) == "tcp://127.0.0.1:5555"
    for text in ("run/b.sock", "http://x", "", "ipc:/x", "udp://x"):
        with pytest.raises(BadRequest, match="is not a valid endpoint"):
            endpoint_of(text, home)


def test_a_place_depends_on_the_directory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path("/" + "h" * 120)
    for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, "/elsewhere")
    assert endpoint_of("ipc://run/b.sock", home) == f"ipc://{home}/run/b.sock"


@pytest.mark.parametrize(
    "text", ["tcp://localhost", "tcp://127.0.0.1", "tcp://localhost:", "tcp://x:99999", "tcp://:7"]
)
def test_an_address_without_a_port_is_not_taken_for_another_machine(text: str) -> None:
    with pytest.raises(BadRequest, match="needs a port"):
        endpoint_of(text, Path("/h"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "me.localhost"])
def test_localhost_is_this_machine_however_it_is_written(host: str) -> None:
    assert is_loopback(host)
    assert endpoint_of(f"tcp://{host}:7411", Path("/h")) == "tcp://127.0.0.1:7411"
    assert endpoint_of("tcp://*:*", Path("/h")) == "tcp://*:*"


def test_a_sockets_directory_is_its_owners_alone(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "run")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert private_directory(made).stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a directory that belongs to another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "theirs"
    other.mkdir()
    os.chown(other, 12345, -1)
    with pytest.raises(BadRequest, match="belongs to another user"):
        private_directory(other)


def test_a_directory_of_everybody_is_no_place_for_a_socket(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(BadRequest, match="shared by all users"):
        private_directory(shared)
    assert shared.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make what belongs to another user")
@pytest.mark.parametrize("kind", ["directory", "link", "link to nothing"])
def test_what_another_user_made_in_the_shared_directory_is_neither_served_in_nor_connected_to(
    tmp_path: Path, kind: str
) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    for folder in (shared, mine):
        folder.mkdir(mode=0o755)
    shared.chmod(0o1777)
    place = shared / "ssmprov-0-abc"
    if kind == "directory":
        place.mkdir()
    else:
        place.symlink_to(mine if kind == "link" else tmp_path / "nothing")
    os.lchown(place, 12345, 12345)
    for act in (lambda: private_directory(place), lambda: hold_place(f"ipc://{place}/broker.sock")):
        with pytest.raises(BadRequest, match="another user"):
            act()
    assert mine.stat().st_mode & 0o777 == 0o755


def test_who_connects_holds_the_place_in_a_shared_directory_and_no_other(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own):
        folder.mkdir()
    shared.chmod(0o1777)
    for folder in (shared, own):
        hold_place(f"ipc://{folder}/ssmprov/broker.sock")
    hold_place("tcp://127.0.0.1:1")
    assert (shared / "ssmprov").stat().st_mode & 0o777 == 0o700
    assert not list(own.iterdir())
