"""``runledger db``: what it prints where, and which exit code it ends with."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from embedded.conftest import REPOSITORY

from runledger.cli.main import root
from runledger.embedded import TEST_SETTINGS, EmbeddedServer, running_server
from runledger.testing import scoped_environment

COMMAND = "from runledger.cli.local import db; db(prog_name='db')"


@pytest.fixture
def stopped_home(home: Path) -> Iterator[Path]:
    """The home of the command holds a database that is stopped."""
    with scoped_environment(RUNLEDGER_HOME=str(home.parent)):
        yield home


@pytest.fixture
def empty_home(directory: Path) -> Iterator[Path]:
    """The home of the command does not exist."""
    with scoped_environment(RUNLEDGER_HOME=str(directory)):
        yield directory / "pg18"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["db", *arguments], prog_name="runledger")


def test_start_prints_only_the_url_on_stdout_and_the_notice_on_stderr(stopped_home: Path) -> None:
    started = run("start")
    assert started.exit_code == 0
    assert started.stdout == EmbeddedServer(stopped_home).url() + "\n"
    assert "not for production" in started.stderr

    assert run("start").stdout == started.stdout
    assert run("url").stdout == started.stdout
    with psycopg.connect(started.stdout.strip()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert run("stop").exit_code == 0
    assert "was not running" in run("stop").stderr


def test_status_tells_running_stopped_and_absent_apart(stopped_home: Path) -> None:
    stopped = run("status", "--json")
    assert (stopped.exit_code, json.loads(stopped.stdout)["state"]) == (69, "stopped")
    run("start")
    running = run("status", "--json")
    assert (running.exit_code, json.loads(running.stdout)["state"]) == (0, "running")
    assert "synchronous_commit=off" in run("status").stdout


@pytest.mark.parametrize("command", ["status", "url", "psql"])
def test_what_was_never_made_is_not_found(empty_home: Path, command: str) -> None:
    assert run(command).exit_code == 4
    assert not empty_home.exists()


@pytest.mark.parametrize("command", ["url", "psql"])
def test_what_is_stopped_is_unavailable(stopped_home: Path, command: str) -> None:
    refused = run(command)
    assert refused.exit_code == 69
    assert refused.stdout == ""
    assert "runledger db start" in refused.stderr


def test_reset_without_a_terminal_is_refused_and_destroys_nothing(stopped_home: Path) -> None:
    refused = run("reset")
    assert refused.exit_code == 5
    assert "--yes" in refused.stderr
    assert (stopped_home / "data" / "PG_VERSION").exists()


def test_reset_gives_an_empty_running_database(stopped_home: Path) -> None:
    with psycopg.connect(run("start").stdout.strip()) as connection:
        connection.execute("CREATE TABLE old_data ()")
    again = run("reset", "--yes")
    assert again.exit_code == 0
    with psycopg.connect(again.stdout.strip()) as connection:
        assert connection.execute("SELECT to_regclass('old_data')").fetchone() == (None,)


def test_a_directory_of_another_version_is_bad_configuration(stopped_home: Path) -> None:
    version_file = stopped_home / "data" / "PG_VERSION"
    found = version_file.read_text()
    version_file.write_text("15\n")
    refused = run("start")
    version_file.write_text(found)
    assert refused.exit_code == 78
    assert "runledger db reset" in refused.stderr


@pytest.mark.parametrize("command", [("stop",), ("reset", "--yes")])
def test_a_server_in_use_is_neither_stopped_nor_reset(stopped_home: Path, command: tuple[str, ...]) -> None:
    with running_server(stopped_home, TEST_SETTINGS) as server:
        assert run(*command).exit_code == 5
        assert server.status().pid
        assert run("stop", "--force").exit_code == 0


def test_missing_programs_are_said_with_the_remedy(empty_home: Path, directory: Path) -> None:
    with scoped_environment(RUNLEDGER_PG_BIN=str(directory)):
        refused = run("start")
    assert refused.exit_code == 69
    assert "runledger-pg[embedded]" in refused.stderr


def test_psql_takes_over_the_process_and_the_server_outlives_the_command(stopped_home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def in_a_process(*arguments: str) -> str:
        command = [sys.executable, "-c", COMMAND, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    url = in_a_process("start")
    assert in_a_process("url") == url
    assert in_a_process("psql", "--", "-At", "-c", "SELECT 6 * 7") == "42"
    in_a_process("stop")
    assert not EmbeddedServer(stopped_home).stop()
