"""`ssmprov keys`: make keys, and say who may reach the broker over the network, and for what."""

from __future__ import annotations

import re
import socket

import click

from shell.options import json_option
from shell.tables import echo_json, echo_table
from ssmprov.configuration import home_of
from ssmprov.formatting import moment
from ssmprov.keys import BROKER, BROKER_KEY_VARIABLE, KEY_VARIABLE, AllowList, Role, directory_of, make, public_of

CLIENT = "client"
SHOWN = {Role.READ: "list and show contexts, read their text, export them"}
SHOWN |= {Role.GENERATE: "read, and run turns that save nothing", Role.WRITE: "generate, and save, fork, move, remove"}
SHOWN |= {Role.ADMIN: "write, and verify and collect whole stores", Role.WORKER: "serve a model, and nothing else"}


@click.group(epilog="Roles: " + "; ".join(f"{role}: {what}" for role, what in SHOWN.items()) + ".")
def keys() -> None:
    """Make keys, and say who may reach the broker over the network.

    A broker with a key of its own (`ssmprov keys new broker`) speaks CURVE on its TCP endpoints from its next start,
    and lets in only the keys that are allowed here. Its ipc:// socket needs no keys: only its owner reaches that.
    """


@keys.command()
@click.argument("name", default=CLIENT)
def new(name: str) -> None:
    """Make a pair of keys: `broker` for this broker, `client` (the default) for the clients here, or any other name."""
    home = home_of()
    pair = make(home, name)
    click.echo(f"made {directory_of(home) / name}.key (secret: it stays here) and {name}.pub", err=True)
    click.echo(pair.public)
    if name == BROKER:
        click.echo(
            f"TCP endpoints ask for keys from the broker's next start. A client elsewhere needs:\n"
            f"  export {BROKER_KEY_VARIABLE}='{pair.public}'",
            err=True,
        )
        return
    use = "" if name in (CLIENT, Role.WORKER) else f"\nand here, to use it:\n  export {KEY_VARIABLE}={name}"
    role = Role.WORKER if name == Role.WORKER else Role.GENERATE
    there = _this_machine() if name == CLIENT else name  # every machine's own key is `client` at home
    click.echo(
        f"On the broker's machine, to let it in:\n  ssmprov keys allow {there} '{pair.public}' --role {role}{use}",
        err=True,
    )


def _this_machine() -> str:
    """The host's name as one for a key."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:64] or CLIENT


# A public key may begin with a hyphen, or with -h.
@keys.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("name")
@click.argument("public", default="", metavar="[PUBLIC]")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="What it may do; `read` for a new one.")
def allow(name: str, public: str, role: str | None) -> None:
    """Let a key in from now on, or change its role. PUBLIC is its 40 characters (in single quotes) or its .pub file.

    Without PUBLIC it is the key that is allowed under this name, or NAME.pub of the keys made here.
    """
    entry = AllowList(home_of()).allow(name, public_of(public) if public else "", Role(role) if role else None)
    click.echo(f"{name} may {SHOWN[entry.role]}", err=True)


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Let a key in no more. A broker that runs ends its connections within a second."""
    AllowList(home_of()).revoke(name)
    click.echo(f"{name} is let in no more", err=True)


@keys.command()
@json_option
def ls(as_json: bool) -> None:
    """List the keys that are allowed, and the pairs made here."""
    home = home_of()
    allowed = AllowList(home).read()
    made = {path.stem: public_of(str(path)) for path in sorted(directory_of(home).glob("*.pub"))}
    if as_json:
        echo_json({"allowed": allowed, "made": made})
        return
    rows = [(name, entry.role.value, entry.public, moment(entry.since)) for name, entry in sorted(allowed.items())]
    rows += [(name, "made here", public, "") for name, public in made.items()]
    echo_table(("name", "role", "public key", "since"), rows)
