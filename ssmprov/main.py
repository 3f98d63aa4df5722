"""The root command `ssmprov`. A subcommand is loaded from the room that owns it only when it is used."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ssmprov import __version__, rooms
from ssmprov.causes import explained, known, missing_module, told
from ssmprov.environment import is_on
from ssmprov.errors import SsmprovError, nearest
from ssmprov.formatting import plain
from ssmprov.terminal import begin_line, harmless

COMMANDS: dict[str, tuple[str, str]] = {
    "say": ("shell.say:say", "Say something to a model and print its answer."),
    "up": ("broker.cli_up:up", "Start and supervise the broker, workers and bridges of one configuration."),
    "status": ("shell.status:status", "Show the broker, its models and its workers."),
    "models": ("shell.status:models", "List the models that are served, or check a model file."),
    "pipe": ("shell.pipe:pipe", "Send standard input as a turn and print the reply."),
    "get": ("shell.transcript:get", "Write a FILE turn of the transcript to a file."),
    "put": ("shell.transcript:put", "Add a file to the transcript as a FILE turn."),
    "run": ("shell.transcript:run", "Run a BASH or PYTHON turn in a sandbox, and add its OUTPUT."),
    "quote": ("shell.transcript:quote", "Add a quotation of another turn."),
    "transcript": ("shell.directory:transcript", "Compare a transcript with its context, or check its form."),
    "filter": ("shell.filter:filters", "Turn a context into a program for shell pipelines."),
    "composer": ("shell.composer:composer", "Open the Composer, a window for writing with contexts and branches."),
    "primer": ("shell.primer:primer", "Write a transcript that introduces a model to this system."),
    "ckpt": ("shell.ckpt:ckpt", "List, show, fork, move, export and check contexts."),
    "probe": ("shell.probe:probe", "Show how a model with addressed slots reads a text."),
    "settings": ("shell.settings:settings", "List, show and write sampling sets."),
    "convert": ("workers.cli_convert:convert", "Write an RWKV-7 model as a GGUF file, for the llama runtime."),
    "asm": ("research.cli:asm", "Try out, train and probe an Addressed State Model."),
    "keys": ("shell.keys:keys", "Make keys, and choose who may reach the broker over the network."),
    "specialist": ("specialists.cli:specialist", "Make a context that does one thing well, then test and promote it."),
    "bench": ("benchmarks.cli:bench", "Measure speed, compared with bare sockets, models, disk and llama-server."),
    "broker": ("broker.cli:broker", "Run the broker alone."),
    "worker": ("workers.cli_worker:worker", "Run one worker alone."),
    "bridge": ("bridge_tcp.cli:bridge", "Run one TCP bridge alone."),
}
"""Each subcommand: where it is, and its line in the help. Showing the help loads none of them."""

PROGRAM = "ssmprov"
DEBUG = "SSMPROV_DEBUG"
JSON = "--json"

USAGE = "usage"
"""The code of an error in the command line itself. The other codes are in `ssmprov.errors`."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported on use."""

    def __init__(self, *args: object, lazy: Mapping[str, tuple[str, str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        group = ctx.command_path.partition(" ")[2]  # "" for the root
        return load_command(f"{group} {cmd_name}".strip(), self.lazy[cmd_name][0])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.lazy and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {args[0]!r}{nearest(args[0], self.lazy)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])


def load_command(name: str, target: str) -> click.Command:
    """The command at `package.module:attribute`. Raises Unsupported if an optional dependency is missing."""
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in (rooms.PACKAGE.name, *rooms.ROOMS):
            raise SsmprovError(
                f"this installation is incomplete: its module {error.name!r} is missing from {rooms.ROOT}. Install "
                "ssmprov again"
            ) from error
        raise missing_module(error, f"`ssmprov {name}`") from error
    if not isinstance(found, click.Command):
        raise TypeError(f"{target} is not a command")
    return found


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="You can also set these options in the environment: SSMPROV_HOME, SSMPROV_BROKER, SSMPROV_CONFIG, "
    "SSMPROV_DEBUG. SSMPROV_MODEL is the model of the shell tools. SSMPROV_KEY and SSMPROV_BROKER_KEY are the keys for "
    "a broker on another machine.",
)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="The working directory.")
@click.option("--broker", metavar="ENDPOINT", help="The broker: ipc://PATH or tcp://ADDRESS:PORT.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The TOML configuration file.")
@click.option("--debug", is_flag=True, help="Show the traceback if there is an error.")
@click.version_option(__version__, prog_name="ssmprov", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, home: Path | None, broker: str | None, config: Path | None, debug: bool) -> None:
    """Serve, save and fork the contexts of recurrent language models."""
    chosen = {
        "SSMPROV_HOME": str(home.absolute()) if home else None,
        "SSMPROV_BROKER": broker,
        "SSMPROV_CONFIG": str(config.absolute()) if config else None,
        DEBUG: "1" if debug else None,
    }
    for variable, value in chosen.items():
        if value is not None:
            _set_for(ctx, variable, value)


def _set_for(ctx: click.Context, variable: str, value: str) -> None:
    """Set an environment variable for one command and the processes that it starts."""
    before = os.environ.get(variable)
    os.environ[variable] = value

    @ctx.call_on_close
    def restore() -> None:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def main(arguments: Sequence[str] | None = None, *, program: str = PROGRAM, subcommand: str = "") -> int:
    """Run the command line and return its exit code. Every error becomes one line here.

    With a subcommand, only that one can be run, as `PIPE` runs `ssmprov pipe`; `program` is then the other name.
    """
    _open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or is_on(DEBUG)
    try:
        code = _run(words, debug, program, subcommand)
        sys.stdout.flush()
    except OSError as error:  # standard output is full (a disk) or nobody reads it any more (`| head`)
        if error.errno != errno.EPIPE:
            _Voice(program, words).tell(explained(error, "standard output").message, error)
        _discard_output()
        code = 1
    return code


def _run(words: list[str], debug: bool, program: str, subcommand: str) -> int:
    voice = _Voice(program, words)
    try:
        rooms.put_first()
        command = load_command(subcommand, COMMANDS[subcommand][0]) if subcommand else cli
        result = command.main(words, prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        voice.tell(f"{error.format_message()}\nTry '{path} --help'.", error)
        return error.exit_code
    except click.ClickException as error:
        voice.tell(error.format_message(), error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except rooms.Collision as error:
        voice.tell(str(error), error)
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        ours = known(error)
        voice.tell(ours.message if ours else _unexpected(error, debug), error)
        if debug:
            remote = ours.remote_traceback if ours else ""
            click.echo(harmless(remote or traceback.format_exc()), err=True, nl=False)
        return ours.exit_code if ours else 1
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception, debug: bool) -> str:
    hint = "" if debug else "; use `ssmprov --debug ...` to see where it happened"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}{hint}"


class _Voice:
    """Tells errors on standard error: one sentence for people, or with `--json` one line of JSON with the code."""

    def __init__(self, program: str, words: Sequence[str]) -> None:
        self._program = program
        self._as_json = JSON in words[: words.index("--")] if "--" in words else JSON in words

    def tell(self, message: str, error: BaseException) -> None:
        begin_line()
        if not self._as_json:
            click.echo(harmless(f"{self._program}: {message}"), err=True)
            return
        found = told(error)
        code = USAGE if isinstance(error, click.UsageError) else found.code
        shown = {"code": code, "message": message, "retry_ms": found.retry_ms, "details": plain(found.details)}
        click.echo(json.dumps({"error": shown}), err=True)


def _open_streams() -> None:
    """Open /dev/null in place of a standard stream that was closed (`>&-`), so that no other file gets its number.

    Characters that a terminal's encoding lacks are escaped, instead of ending the program.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test has put in its place
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send the interpreter's last flush nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
