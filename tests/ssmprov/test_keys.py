"""Key files and the allow-list: who may read them, what is refused, and what a change leaves."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmprov import keys
from ssmprov.errors import BadRequest, Conflict, NotFound, Refused, SsmprovError
from ssmprov.keys import AllowList, Role, User

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
PUBLIC = "a" * 40


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (keys.KEY_VARIABLE, keys.BROKER_KEY_VARIABLE, keys.INSECURE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


class TestPairs:
    def test_a_pair_is_for_its_owners_eyes_alone(self, tmp_path: Path) -> None:
        made = keys.make(tmp_path, "laptop")
        directory = tmp_path / ".keys"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "laptop.key").stat().st_mode) == 0o600
        assert keys.load(directory / "laptop.key") == made
        assert keys.public_of(str(directory / "laptop.pub")) == made.public == keys.public_of(made.public)
        assert made.secret not in (directory / "laptop.pub").read_text()

    def test_no_pair_is_written_over(self, tmp_path: Path) -> None:
        made = keys.make(tmp_path, "laptop")
        with pytest.raises(Conflict, match="choose another name"):
            keys.make(tmp_path, "laptop")
        assert keys.load(tmp_path / ".keys/laptop.key") == made

    @pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a b", "x" * 65, "é", "a\n"])
    def test_a_name_is_no_path(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BadRequest, match="is not a valid name for a key"):
            keys.make(tmp_path, name)
        with pytest.raises(BadRequest, match="is not a valid name for a key"):
            AllowList(tmp_path).allow(name, PUBLIC, Role.READ)
        assert not list(tmp_path.rglob("*.key"))

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_a_secret_that_others_can_read_is_not_used(self, tmp_path: Path, mode: int) -> None:
        keys.make(tmp_path, "laptop")
        path = tmp_path / ".keys/laptop.key"
        path.chmod(mode)
        with pytest.raises(Refused, match="chmod 600"):
            keys.load(path)

    @pytest.mark.parametrize(
        "content", [b"", b"nonsense", b'public-key = "short"\nsecret-key = "x"', f'public-key = "{PUBLIC}"'.encode()]
    )
    def test_a_file_that_is_none_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "odd.key"
        path.touch(0o600)
        path.write_bytes(content)
        with pytest.raises(BadRequest, match=r"odd\.key"):
            keys.load(path)

    @pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "x.key"
        if kind == "pipe":
            os.mkfifo(path, 0o600)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir(mode=0o700)
        else:
            path.touch(0o600)
            os.truncate(path, 1 << 40)
        with pytest.raises(BadRequest, match="is not a key file"):
            keys.load(path)

    def test_one_that_is_not_there_is_told_how_to_make(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="ssmprov keys new gone"):
            keys.load(tmp_path / "gone.key")

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=300))
    def test_any_bytes_are_a_key_or_a_clear_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "any.key"
        path.touch(0o600)
        path.write_bytes(content)
        for read in (keys.load, lambda path: keys.public_of(str(path))):
            with pytest.raises(SsmprovError):
                read(path)


class TestAllowList:
    def test_a_key_is_let_in_changed_and_revoked(self, tmp_path: Path) -> None:
        allowed = AllowList(tmp_path)
        assert allowed.users() == {}
        before = allowed.stamp()
        allowed.allow("laptop", PUBLIC, Role.GENERATE)
        assert allowed.stamp() != before
        assert stat.S_IMODE(allowed.path.stat().st_mode) == 0o600
        assert allowed.users() == {PUBLIC: User("laptop", PUBLIC, Role.GENERATE)}
        allowed.allow("laptop", "", Role.ADMIN)
        assert allowed.users() == {PUBLIC: User("laptop", PUBLIC, Role.ADMIN)}
        assert stat.S_IMODE(allowed.path.stat().st_mode) == 0o600
        allowed.revoke("laptop")
        assert allowed.users() == {}
        with pytest.raises(NotFound, match="no allowed key 'laptop'"):
            allowed.revoke("laptop")

    def test_changes_at_once_lose_none(self, tmp_path: Path) -> None:
        allowed = AllowList(tmp_path)
        allowed.allow("leaver", "z" * 40, Role.ADMIN)
        start = threading.Barrier(9)

        def change(number: int) -> None:
            start.wait()
            if number == 0:
                AllowList(tmp_path).revoke("leaver")
            for step in range(5):
                name = f"{number}-{step}"
                AllowList(tmp_path).allow(name, name.ljust(40, "."), Role.READ)

        with ThreadPoolExecutor(9) as pool:
            list(pool.map(change, range(9)))
        assert sorted(allowed.read()) == sorted(f"{number}-{step}" for number in range(9) for step in range(5))

    def test_a_pair_made_here_needs_no_public_key(self, tmp_path: Path) -> None:
        made = keys.make(tmp_path, "client")
        assert AllowList(tmp_path).allow("client", "", Role.READ).public == made.public
        with pytest.raises(NotFound):
            AllowList(tmp_path).allow("stranger", "", Role.READ)

    def test_one_key_has_one_name_and_one_name_one_key(self, tmp_path: Path) -> None:
        allowed = AllowList(tmp_path)
        allowed.allow("a", PUBLIC, Role.READ)
        with pytest.raises(Conflict, match="as a"):
            allowed.allow("b", PUBLIC, Role.ADMIN)
        with pytest.raises(Conflict, match="or run `ssmprov keys revoke a` first"):
            allowed.allow("a", "b" * 40, Role.ADMIN)
        assert allowed.users() == {PUBLIC: User("a", PUBLIC, Role.READ)}

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            '{"a": {}}',
            '{"a": {"public": "short"}}',
            f'{{"a": {{"public": "{PUBLIC}", "role": "root"}}}}',
            f'{{"../a": {{"public": "{PUBLIC}"}}}}',
            f'{{"a": {{"public": "{PUBLIC}"}}, "b": {{"public": "{PUBLIC}"}}}}',
            f'{{"a": {{"public": "{PUBLIC}", "extra": 1}}}}',
            "[" * 100_000,
        ],
    )
    def test_a_file_that_is_none_lets_nobody_in(self, tmp_path: Path, content: str) -> None:
        allowed = AllowList(tmp_path)
        allowed.directory.mkdir()
        allowed.path.touch(0o600)
        allowed.path.write_text(content)
        with pytest.raises(BadRequest):
            allowed.users()
        with pytest.raises(BadRequest):
            allowed.allow("c", "c" * 40, Role.READ)
        assert allowed.path.read_text() == content

    def test_one_that_others_may_write_lets_nobody_in(self, tmp_path: Path) -> None:
        allowed = AllowList(tmp_path)
        allowed.allow("a", PUBLIC, Role.READ)
        allowed.path.chmod(0o620)
        with pytest.raises(Refused, match="chmod 600"):
            allowed.users()

    @pytest.mark.parametrize("public", ["", "short", "a" * 39, "a" * 41, "a" * 39 + "'", "a" * 39 + "\n"])
    def test_what_is_no_public_key_is_refused(self, tmp_path: Path, public: str) -> None:
        with pytest.raises(SsmprovError):
            keys.public_of(public or str(tmp_path))

    @given(st.text(Z85, min_size=40, max_size=40))
    def test_every_public_key_is_taken_as_it_is(self, public: str) -> None:
        assert keys.public_of(public) == public


class TestRoles:
    def test_the_table(self) -> None:
        may = {role: [need.value for need in Role if User("u", PUBLIC, role).may(need)] for role in Role}
        assert may == {
            Role.READ: ["read"],
            Role.GENERATE: ["read", "generate"],
            Role.WRITE: ["read", "generate", "write"],
            Role.ADMIN: ["read", "generate", "write", "admin"],
            Role.WORKER: ["worker"],
        }
        assert all(keys.LOCAL.may(need) for need in Role)


class TestCredentials:
    @pytest.mark.parametrize("endpoint", ["ipc:///run/x.sock", "tcp://127.0.0.1:7000", "tcp://[::1]:7000"])
    def test_this_machine_needs_none(self, tmp_path: Path, endpoint: str) -> None:
        assert keys.credentials_for(endpoint, tmp_path) is None

    @pytest.mark.parametrize(
        "host",
        ["192.0.2.7", "broker.example", "127.example.org", "0.0.0.0", "*", "[2001:db8::1]", "127.0.0.1:1;192.0.2.7"],
    )
    def test_another_machine_needs_keys(self, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(BadRequest, match=keys.BROKER_KEY_VARIABLE):
            keys.credentials_for(f"tcp://{host}:7000", tmp_path)
        monkeypatch.setenv(keys.INSECURE_VARIABLE, "1")
        assert keys.credentials_for(f"tcp://{host}:7000", tmp_path) is None

    @pytest.mark.parametrize("value", ["0", "false", "no", ""])
    def test_what_says_no_to_keylessness_is_no_yes(
        self, tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(keys.INSECURE_VARIABLE, value)
        with pytest.raises(BadRequest, match=keys.BROKER_KEY_VARIABLE):
            keys.credentials_for("tcp://192.0.2.7:7000", tmp_path)

    def test_a_broker_key_wants_one_of_our_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(keys.BROKER_KEY_VARIABLE, PUBLIC)
        with pytest.raises(NotFound, match="ssmprov keys new client"):
            keys.credentials_for("tcp://127.0.0.1:7000", tmp_path)
        mine, worker = keys.make(tmp_path, "client"), keys.make(tmp_path, "worker")
        other = keys.make(tmp_path / "elsewhere", "phone")
        found = keys.credentials_for("tcp://127.0.0.1:7000", tmp_path)
        assert found == keys.Credentials("client", mine, PUBLIC)
        assert keys.credentials_for("tcp://127.0.0.1:7000", tmp_path, "worker") == keys.Credentials(
            "worker", worker, PUBLIC
        )
        monkeypatch.setenv(keys.KEY_VARIABLE, str(tmp_path / "elsewhere/.keys/phone.key"))
        assert keys.credentials_for("tcp://192.0.2.7:7000", tmp_path) == keys.Credentials("phone", other, PUBLIC)

    def test_the_brokers_own_machine_knows_its_key(self, tmp_path: Path) -> None:
        broker, mine = keys.make(tmp_path, "broker"), keys.make(tmp_path, "client")
        found = keys.credentials_for("tcp://127.0.0.1:7000", tmp_path)
        assert found == keys.Credentials("client", mine, broker.public)
