"""``runledger dev``: database, schema and a worker that follows the files, for as long as somebody writes code."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.database.ledger import Ledger
from runledger.database.migrate import migrate
from runledger.database.settings import url_from_environment
from runledger.embedded import running_server

LOOK_SECONDS = 1.0
MOST_FILES = 20_000
"""Files that are looked at; an application with more is reloaded by hand."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
STOP_SECONDS = 60

Stamps = dict[str, int]


@click.command("dev", cls=LedgerCommand)
@click.option("-p", "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.pass_obj
def dev(session: Session, *, processes: int) -> None:
    """Run an application while you write it.

    Brings the schema up to date and runs a worker with scheduler and reaper, whose processes are replaced when a Python
    file below the current directory changes. Without --database-url it uses the embedded database of this directory,
    which runs as long as this command and keeps its data; the line to export for other terminals is printed. A file
    that cannot be imported leaves the old processes at work until it is repaired. Ctrl-C stops everything.

    \b
    Examples:
      runledger dev --app jobs:catalog
      runledger dev --app jobs:catalog -d postgresql://localhost/app
    """
    app = session.required_app()
    session.catalog()
    named = (session.database_url or "").strip() or url_from_environment()
    with _database(named) as url, Ledger(url, schema=session.schema or None, pool_size=1) as ledger:
        migrate(url, schema=session.schema or None)
        session.say(f"target: {ledger.database.target}, schema {ledger.database.schema}, up to date")
        if not named:
            session.say(f"for other terminals: export RUNLEDGER_DATABASE_URL={shlex.quote(url)}")
        command = [sys.executable, "-m", "runledger", "worker", "--app", app, "--processes", str(processes)]
        command += ["--log-format", session.log_format, "--log-level", session.process_log_level]
        command += ["--schema", session.schema] if session.schema else []
        status = _run_and_follow(session, command, os.environ | {"RUNLEDGER_DATABASE_URL": url})
    raise click.exceptions.Exit(status)


@contextmanager
def _database(named: str | None) -> Iterator[str]:
    """The URL of the database that was named, or of the embedded one, which runs inside the block."""
    if named:
        yield named
        return
    with running_server() as server:
        yield server.url()


def _run_and_follow(session: Session, command: list[str], environment: dict[str, str]) -> int:
    """The worker's exit status, after somebody asked to stop. A worker that ends by itself, because a file is broken
    for example, is started again at the next change; a broken file alone leaves the one that runs at work."""
    is_asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: is_asked_to_stop.set())
    stamps = stamps_below(Path())
    worker, is_waiting = _started(command, environment), False
    while not is_asked_to_stop.wait(LOOK_SECONDS):
        if worker.poll() is not None and not is_waiting:
            is_waiting = True
            session.say(f"the worker ended with {worker.returncode}; waiting for a change of a file to start it again")
        now = stamps_below(Path())
        if now == stamps:
            continue
        session.say(f"changed: {', '.join(_changed(stamps, now))}")
        stamps = now
        if worker.poll() is None:
            worker.send_signal(signal.SIGHUP)
        else:
            worker, is_waiting = _started(command, environment), False
    if worker.poll() is None:
        worker.terminate()
    try:
        return worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def stamps_below(folder: Path) -> Stamps:
    """When each Python file below the folder was last changed; hidden folders and those of packages are left out."""
    stamps: Stamps = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        for name in files:
            if name.endswith(".py") and len(stamps) < MOST_FILES:
                path = os.path.join(place, name)
                try:
                    stamps[path] = os.stat(path).st_mtime_ns
                except OSError:  # it went away between the two calls
                    continue
    return stamps


def _changed(before: Stamps, after: Stamps) -> list[str]:
    names = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return [os.path.relpath(path) for path in names[:5]]


def _started(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A session of its own: a Ctrl-C at the terminal reaches this command alone, which then stops the worker once."""
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
