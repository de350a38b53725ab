"""A server of our own starts anywhere: as root, as a plain user, in odd places, under odd environments."""

import os
import stat
from pathlib import Path

import psycopg
import pytest
from embedded.conftest import IS_ROOT, StartProgram, finish

from runledger.embedded import (
    DEVELOPMENT_SETTINGS,
    DURABLE_SETTINGS,
    TEST_SETTINGS,
    EmbeddedNotRunning,
    EmbeddedServer,
    EmbeddedStartFailed,
    EmbeddedUnavailable,
    EmbeddedVersionMismatch,
    ServerState,
    embedded_home,
)
from runledger.embedded.postmaster import is_running
from runledger.testing import scoped_environment

START_AND_ANSWER = """
server = EmbeddedServer(home, TEST_SETTINGS)
try:
    with psycopg.connect(server.start()) as connection:
        print(connection.execute("SELECT current_setting('lc_messages'), uuidv7() IS NOT NULL").fetchone())
finally:
    server.destroy()
"""


def setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def test_a_server_starts_answers_and_stops(new_home: Path) -> None:
    server = EmbeddedServer(new_home)
    assert server.status().state is ServerState.ABSENT

    url = server.start()

    running = server.status()
    assert running.state is ServerState.RUNNING
    assert running.url == url
    assert running.pid is not None
    assert setting(url, "listen_addresses") == ""
    assert setting(url, "server_encoding") == "UTF8"
    assert os.stat(f"/proc/{running.pid}").st_uid != 0

    assert server.stop()
    assert not is_running(running.pid)
    assert not server.stop()
    assert server.status().state is ServerState.STOPPED
    with pytest.raises(EmbeddedNotRunning):
        server.url()

    server.destroy()
    assert server.status().state is ServerState.ABSENT
    assert not (new_home / "data").exists()


def test_a_second_start_finds_the_running_server(home: Path) -> None:
    first = EmbeddedServer(home).start()
    assert EmbeddedServer(home).start() == first


def test_only_the_server_can_read_its_files_and_git_ignores_them(home: Path) -> None:
    server = EmbeddedServer(home)
    url = server.start()
    data, sockets = server.status().data_directory, Path(setting(url, "unix_socket_directories"))
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert (home / ".gitignore").read_text() == "*\n"

    server.stop()

    assert not sockets.exists()


@pytest.mark.parametrize("settings", [DEVELOPMENT_SETTINGS, TEST_SETTINGS, DURABLE_SETTINGS])
def test_the_settings_of_the_starter_are_in_force(home: Path, settings: dict[str, str]) -> None:
    url = EmbeddedServer(home, settings).start()
    assert {name: setting(url, name) for name in settings} == dict(settings)
    assert EmbeddedServer(home).status().settings == dict(settings)


def test_a_path_with_blanks_quotes_and_umlauts_and_too_long_for_a_socket_does_no_harm(directory: Path) -> None:
    server = EmbeddedServer(directory / "Jörgs 'neue\" $HOME, Äcker" / ("long" * 40) / "pg 18", TEST_SETTINGS)
    try:
        assert setting(server.start(), "fsync") == "off"
    finally:
        server.destroy()


def test_a_database_name_is_percent_encoded_in_the_url(home: Path) -> None:
    server = EmbeddedServer(home, TEST_SETTINGS)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute('CREATE DATABASE "a b/ü?"')
    with psycopg.connect(server.url("a b/ü?")) as connection:
        assert connection.info.dbname == "a b/ü?"


def test_a_broken_environment_does_no_harm(new_home: Path, start_program: StartProgram) -> None:
    broken = {"LC_ALL": "xx_YY.UTF-8", "HOME": None, "XDG_RUNTIME_DIR": "/no/where", "PGPORT": "1", "TZ": "No/Zone"}
    assert finish(start_program(START_AND_ANSWER, new_home, **broken)) == "('C', True)"


@pytest.mark.skipif(not IS_ROOT, reason="the other tests already run as a plain user")
def test_a_plain_user_starts_a_server(directory: Path, start_program: StartProgram, reachable_bin: str) -> None:
    own = directory / "own"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    plain = {"RUN_AS_NOBODY": "1", "RUNLEDGER_PG_BIN": reachable_bin, "HOME": None}
    assert finish(start_program(START_AND_ANSWER, own / "home", **plain)) == "('C', True)"


@pytest.mark.skipif(not IS_ROOT, reason="only root hands the server to another user")
def test_a_home_in_a_private_directory_is_served_from_elsewhere_and_found_again(directory: Path) -> None:
    private = directory / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedServer(private / "home", TEST_SETTINGS)
    try:
        server.start()
        elsewhere = EmbeddedServer(private / "home").status()
        assert elsewhere.state is ServerState.RUNNING
        assert not elsewhere.data_directory.is_relative_to(private)
        assert (private / "home" / "location").read_text() == str(elsewhere.data_directory.parent)
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert EmbeddedServer(private / "home").stop()
    finally:
        place = server.place.root
        server.destroy()
    assert not place.exists()


def test_a_directory_of_another_version_is_refused_with_the_command_that_recreates_it(new_home: Path) -> None:
    server = EmbeddedServer(new_home)
    (new_home / "data").mkdir(parents=True)
    (new_home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedVersionMismatch, match="PostgreSQL 15") as refused:
        server.start()
    assert "runledger db reset" in str(refused.value.hint)
    assert (new_home / "data" / "PG_VERSION").read_text() == "15\n"


def test_a_failed_start_shows_the_log_of_the_server(home: Path) -> None:
    server = EmbeddedServer(home, {"max_connections": "many"})
    with pytest.raises(EmbeddedStartFailed, match="max_connections"):
        server.start()
    assert server.status().state is ServerState.STOPPED


def test_an_interrupted_initdb_is_begun_anew(new_home: Path) -> None:
    (new_home / "data.new" / "base").mkdir(parents=True)
    assert EmbeddedServer(new_home, TEST_SETTINGS).start()


def test_a_home_that_others_may_write_to_is_refused(new_home: Path) -> None:
    new_home.mkdir()
    new_home.chmod(0o777)
    with pytest.raises(EmbeddedUnavailable, match="private"):
        EmbeddedServer(new_home).start()
    assert stat.S_IMODE(new_home.stat().st_mode) == 0o777
    new_home.chmod(0o700)


def test_the_home_follows_its_variable_and_defaults_to_the_current_directory(directory: Path) -> None:
    with scoped_environment(RUNLEDGER_HOME=str(directory)):
        assert embedded_home() == directory / "pg18"
    with scoped_environment(RUNLEDGER_HOME=None):
        assert embedded_home() == Path.cwd() / ".runledger" / "pg18"
