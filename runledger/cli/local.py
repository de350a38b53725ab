"""``runledger db``: the embedded development database. URLs and states go to stdout, everything said goes to stderr."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import NoReturn

import click

from runledger.core.errors import ConfigurationError, RunledgerError, UnavailableError
from runledger.embedded import (
    EmbeddedInUse,
    EmbeddedServer,
    ServerState,
    ServerStatus,
    embedded_home,
)

EXIT_UNEXPECTED = 1
EXIT_NOT_FOUND = 4
EXIT_REFUSED = 5
EXIT_UNAVAILABLE = 69
EXIT_CONFIGURATION = 78
NOTICE = "embedded development database, not for production"


@click.group()
def db() -> None:
    """The embedded development database.

    It lives in ./.runledger (or RUNLEDGER_HOME) and listens on a private socket only.
    """


@db.command()
def start() -> None:
    """Start the server and print its URL. It runs until `db stop`."""
    with _errors_as_exit_codes():
        server = _server()
        _say(f"{NOTICE}: {server.home}")
        click.echo(server.start())


@db.command()
@click.option("--force", is_flag=True, help="Stop it even while another process uses it.")
def stop(*, force: bool) -> None:
    """Stop the server, also one that a killed process left behind."""
    with _errors_as_exit_codes():
        server = _server()
        was_running = server.stop(even_if_in_use=force)
        _say("stopped" if was_running else "was not running", server)


@db.command()
@click.option("--json", "is_json", is_flag=True, help="One JSON document instead of text.")
def status(*, is_json: bool) -> None:
    """Print what the server is doing. Exit code 69 when it is stopped, 4 when it was never made."""
    with _errors_as_exit_codes():
        found = _server().status()
    click.echo(_as_json(found) if is_json else _as_text(found))
    if found.state is not ServerState.RUNNING:
        raise click.exceptions.Exit(EXIT_NOT_FOUND if found.state is ServerState.ABSENT else EXIT_UNAVAILABLE)


@db.command()
@click.argument("database", default="postgres")
def url(database: str) -> None:
    """Print the URL of a database of the running server."""
    with _errors_as_exit_codes():
        click.echo(_running(_server()).url(database))


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the running server; arguments are passed on.

    \b
    runledger db psql -- -c 'select version()'
    """
    with _errors_as_exit_codes():
        server = _running(_server())
        program, address = server.program("psql"), server.url()
        if not os.access(program, os.X_OK):
            _fail(EXIT_NOT_FOUND, f"there is no psql beside the server: {program}")
    sys.stdout.flush()
    os.execv(program, [program, f"--dbname={address}", *arguments])  # noqa: S606 - the terminal belongs to psql now


@db.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def reset(*, yes: bool) -> None:
    """Destroy the database with all its data, make it anew, start it and print its URL."""
    with _errors_as_exit_codes():
        server = _server()
        _say("destroys and recreates", server)
        if not yes:
            _confirm_reset()
        server.destroy(even_if_in_use=False)
        click.echo(server.start())


def _server() -> EmbeddedServer:
    return EmbeddedServer(embedded_home())


def _running(server: EmbeddedServer) -> EmbeddedServer:
    if server.status().state is ServerState.ABSENT:
        _fail(EXIT_NOT_FOUND, f"there is no embedded database in {server.home}", "runledger db start")
    return server


def _confirm_reset() -> None:
    if not sys.stdin.isatty():
        _fail(EXIT_REFUSED, "reset destroys data and nobody is there to confirm it", "add --yes")
    if not click.confirm("All its data will be lost. Continue?", default=False, err=True):
        _fail(EXIT_REFUSED, "not confirmed, nothing was changed")


def _as_json(found: ServerStatus) -> str:
    return json.dumps(asdict(found), default=str, sort_keys=True)


def _as_text(found: ServerStatus) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in sorted(found.settings.items()))
    lines = {
        "state": found.state,
        "url": found.url,
        "pid": found.pid,
        "version": found.version,
        "home": found.home,
        "data": found.data_directory,
        "settings": settings,
        "stays until stopped": "yes" if found.keep_running else "no",
        "in use": "yes" if found.is_in_use else "no",
    }
    return "\n".join(f"{name}\t{value}" for name, value in lines.items() if value not in (None, ""))


@contextlib.contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    try:
        yield
    except RunledgerError as error:
        _fail(_exit_code(error), str(error), error.hint)


def _exit_code(error: RunledgerError) -> int:
    if isinstance(error, EmbeddedInUse):
        return EXIT_REFUSED
    if isinstance(error, UnavailableError):
        return EXIT_UNAVAILABLE
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_UNEXPECTED


def _say(text: str, server: EmbeddedServer | None = None) -> None:
    click.echo(f"{text}: {server.home}" if server else text, err=True)


def _fail(exit_code: int, text: str, hint: str | None = None) -> NoReturn:
    click.echo(f"Error: {text}", err=True)
    if hint:
        click.echo(f"Hint: {hint}", err=True)
    raise click.exceptions.Exit(exit_code)
