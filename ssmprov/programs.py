"""The shell tools as separate programs: PIPE, GET_FILE, PUT_FILE, RUN and QUOTE, with GET and PUT for short."""

from __future__ import annotations

from ssmprov.main import main


def pipe() -> int:
    return main(program="PIPE", subcommand="pipe")


def get_file() -> int:
    return main(program="GET_FILE", subcommand="get")


def put_file() -> int:
    return main(program="PUT_FILE", subcommand="put")


def run() -> int:
    return main(program="RUN", subcommand="run")


def quote() -> int:
    return main(program="QUOTE", subcommand="quote")
