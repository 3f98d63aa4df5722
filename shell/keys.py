"""`ssmprov keys`: makes keys, and says who may reach the broker over the network and what they may do."""

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
SHOWN |= {Role.GENERATE: "read, and run turns that save nothing"}
SHOWN |= {Role.WRITE: "generate, and save, fork, move and remove contexts"}
SHOWN |= {Role.ADMIN: "write, and check and clean up whole stores", Role.WORKER: "serve a model and do nothing else"}


@click.group(epilog="\n".join(["\b", "Roles:", *(f"  {role:9} {what}" for role, what in SHOWN.items())]))
def keys() -> None:
    """Make keys, and choose who may reach the broker over the network.

    Once the broker has a key (`ssmprov keys new broker`), its TCP endpoints are encrypted with CURVE from its next
    start, and accept only the keys that you allow here. Its ipc:// socket needs no keys, because only its owner can
    reach it.
    """


@keys.command()
@click.argument("name", default=CLIENT)
def new(name: str) -> None:
    """Make a key pair. NAME is `broker` for this broker, `client` (the default) for clients here, or another name."""
    home = home_of()
    pair = make(home, name)
    click.echo(f"made {directory_of(home) / name}.key (secret: keep it on this machine) and {name}.pub", err=True)
    click.echo(pair.public)
    if name == BROKER:
        click.echo(
            f"TCP endpoints require keys after the broker's next start. A client on another machine needs:\n"
            f"  export {BROKER_KEY_VARIABLE}='{pair.public}'",
            err=True,
        )
        return
    use = "" if name in (CLIENT, Role.WORKER) else f"\nThen, to use it on this machine:\n  export {KEY_VARIABLE}={name}"
    role = Role.WORKER if name == Role.WORKER else Role.GENERATE
    there = _this_machine() if name == CLIENT else name  # each machine calls its own key `client`
    click.echo(
        f"To allow this key, run this on the broker's machine:\n  ssmprov keys allow {there} '{pair.public}' --role "
        f"{role}{use}",
        err=True,
    )


def _this_machine() -> str:
    """The host's name, as a valid name for a key."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:64] or CLIENT


# A public key may begin with a hyphen, or with -h.
@keys.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("name")
@click.argument("public", default="", metavar="[PUBLIC]")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    help="What the key may do (default for a new key: read).",
)
def allow(name: str, public: str, role: str | None) -> None:
    """Allow a key, or change its role. PUBLIC is the key's 40 characters (in single quotes) or its .pub file.

    Without PUBLIC, this uses the key that is already allowed as NAME, or NAME.pub if that was made here.
    """
    entry = AllowList(home_of()).allow(name, public_of(public) if public else "", Role(role) if role else None)
    click.echo(f"{name} may {SHOWN[entry.role]}", err=True)


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Stop allowing a key. A running broker rejects its requests within a second."""
    AllowList(home_of()).revoke(name)
    click.echo(f"{name} is no longer allowed", err=True)


@keys.command()
@json_option
def ls(as_json: bool) -> None:
    """List the allowed keys and the key pairs made here."""
    home = home_of()
    allowed = AllowList(home).read()
    made = {path.stem: public_of(str(path)) for path in sorted(directory_of(home).glob("*.pub"))}
    if as_json:
        echo_json({"allowed": allowed, "made": made})
        return
    rows = [(name, entry.role.value, entry.public, moment(entry.since)) for name, entry in sorted(allowed.items())]
    rows += [(name, "made here", public, "") for name, public in made.items()]
    echo_table(("name", "role", "public key", "since"), rows)
