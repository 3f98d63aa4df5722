"""The TOML configuration: what it takes, how it says no, and where its paths and sockets end up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov import configuration
from ssmprov.configuration import (
    MAX_IPC_PATH,
    Configuration,
    Tables,
    endpoint_of,
    hold_place,
    home_of,
    parse,
    parse_size,
    private_directory,
)
from ssmprov.errors import BadRequest, NotFound

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
    text = (Path(configuration.__file__).parent.parent / "config" / "default.toml").read_text()
    assert parse(text, "default.toml").model


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


def test_the_home_is_chosen_by_the_environment_or_the_platform() -> None:
    assert home_of({"SSMPROV_HOME": "/some/where"}) == Path("/some/where")
    assert home_of({"SSMPROV_HOME": "here"}) == Path("here").absolute()
    assert home_of({"SSMPROV_HOME": "~/x"}) == Path("~/x").expanduser()
    assert home_of({}).is_absolute()


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


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_ipc_path_is_moved_to_a_short_directory(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    room = MAX_IPC_PATH - len("/h/") - len("/b")
    exact = letter * (room // len(letter.encode()))
    exact += "y" * (room - len(exact.encode()))
    fits = f"/h/{exact}/b"
    assert len(os.fsencode(fits)) == MAX_IPC_PATH
    assert endpoint_of(f"ipc://{exact}/b", Path("/h")) == f"ipc://{fits}"
    moved = endpoint_of(f"ipc://{exact}y/b", Path("/h"))
    assert moved.startswith(f"ipc:///run/user/7/ssmprov-{os.getuid()}-")
    assert len(os.fsencode(moved.removeprefix("ipc://"))) <= MAX_IPC_PATH
    assert endpoint_of(f"ipc://{exact}y/b", Path("/h")) == moved, "broker and client find the same place"
    assert endpoint_of(f"ipc://{exact}z/b", Path("/h")) != moved
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert endpoint_of(f"ipc://{exact}y/b", Path("/h")) != moved


def test_where_no_short_directory_is_left_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "r" * 120)
    with pytest.raises(BadRequest, match="XDG_RUNTIME_DIR"):
        endpoint_of("ipc://" + "x" * 120, Path("/h"))


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
