"""The files of keys: pairs, public keys, and the allow-list of a broker."""

from __future__ import annotations

from fuzz.engine import Target
from fuzz.mutate import speaking
from fuzz.targets.files import scratch
from ssmprov import keys
from ssmprov.errors import SsmprovError
from ssmprov.keys import AllowList, Role

PUBLIC, SECRET = "a" * 40, "b" * 40
PAIR = f'curve\n    public-key = "{PUBLIC}"\n    secret-key = "{SECRET}"\n'
LIST = f'{{"anna": {{"public": "{PUBLIC}", "role": "write", "since": 1.5}}, "ben": {{"public": "{SECRET}"}}}}'


def pair(data: bytes) -> None:
    """A pair of keys is two of 40 characters, or the file is refused."""
    with scratch() as folder:
        path = folder / "client.key"
        path.touch(mode=0o600)
        path.write_bytes(data)
        found = keys.load(path)
        assert len(found.public) == len(found.secret) == 40
        assert keys.public_of(found.public) == found.public


def public(data: bytes) -> None:
    """A public key has 40 characters, whichever file it is read from."""
    with scratch() as folder:
        path = folder / "client.pub"
        path.write_bytes(data)
        assert len(keys.public_of(str(path))) == 40


def allowed(data: bytes) -> None:
    """Who is let in has a name, a key that is nobody else's, and a role; and the list can be changed."""
    with scratch() as folder:
        ring = AllowList(folder)
        ring.directory.mkdir(mode=0o700)
        ring.path.touch(mode=0o600)
        ring.path.write_bytes(data)
        users = ring.users()
        assert len(users) == len(ring.read())
        for user in users.values():
            keys.check_name(user.name)
            user.may(Role.ADMIN)
        ring.allow("new", "c" * 40, Role.READ)
        assert len(AllowList(folder).users()) == len(users) + 1


TARGETS = [
    Target(
        "pair", pair, lambda: [PAIR.encode()], (SsmprovError,), speaking('"', "public-key", "curve\n", "="), runs=2000
    ),
    Target("public", public, lambda: [PUBLIC.encode() + b"\n"], (SsmprovError,), runs=1500),
    Target(
        "allowed",
        allowed,
        lambda: [LIST.encode(), b"{}"],
        (SsmprovError,),
        speaking('"role"', '"worker"', '"public"', "[" * 3000, '{"a":' * 2000, "1e999", "\\ud800", '"../x"', '"new"'),
        runs=1500,
    ),
]
