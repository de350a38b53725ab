"""Which server the tests get, and databases of their own on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from runledger.embedded import TEST_SETTINGS, EmbeddedServer, running_server
from runledger.testing import (
    NoTestDatabase,
    directory_checksum,
    drop_abandoned_databases,
    ephemeral_database,
    migrated_template,
    scoped_environment,
    server_choice,
)
from runledger.testing.databases import connect_as_admin, create_database, database_url, drop_database

REMEDIES = ("RUNLEDGER_TEST_DATABASE_URL", "runledger-pg[embedded]", "Docker")
NO_DOCKER = {"DOCKER_HOST": "tcp://127.0.0.1:9"}


@pytest.fixture(scope="module")
def server_url(initialised_home: Path) -> Iterator[str]:
    with running_server(initialised_home, TEST_SETTINGS) as server:
        yield server.url()


def databases(server_url: str) -> set[str]:
    with connect_as_admin(server_url) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")}


def make_table(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE migrated (number integer)")


def test_a_given_url_comes_first(server_url: str) -> None:
    with (
        scoped_environment(RUNLEDGER_TEST_DATABASE_URL=server_url, RUNLEDGER_TEST_DB=None),
        server_choice.test_server() as url,
    ):
        assert url == server_url


def test_without_a_url_the_embedded_server_is_taken_and_stops_afterwards(directory: Path) -> None:
    with scoped_environment(RUNLEDGER_TEST_DATABASE_URL=None, RUNLEDGER_TEST_DB=None, RUNLEDGER_HOME=str(directory)):
        with server_choice.test_server() as url, psycopg.connect(url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
        (home,) = directory.iterdir()
        assert not EmbeddedServer(home).stop()


def test_a_given_url_that_does_not_work_is_not_passed_over_and_not_shown() -> None:
    with (
        scoped_environment(RUNLEDGER_TEST_DATABASE_URL="postgresql://u:secret@127.0.0.1:9/x", RUNLEDGER_TEST_DB=None),
        pytest.raises(NoTestDatabase) as failure,
        server_choice.test_server(),
    ):
        pass
    assert "secret" not in str(failure.value)
    assert "embedded:" not in str(failure.value)


def test_a_role_that_may_not_create_databases_is_refused(server_url: str) -> None:
    with connect_as_admin(server_url) as connection:
        connection.execute("DROP ROLE IF EXISTS modest")
        connection.execute("CREATE ROLE modest LOGIN")
    with (
        scoped_environment(RUNLEDGER_TEST_DATABASE_URL=server_url.replace("user=postgres", "user=modest")),
        pytest.raises(NoTestDatabase, match="CREATEDB"),
        server_choice.test_server(),
    ):
        pass


def test_no_database_at_all_is_a_failure_that_names_every_attempt_and_remedy(directory: Path) -> None:
    with (
        scoped_environment(
            RUNLEDGER_TEST_DATABASE_URL=None, RUNLEDGER_TEST_DB=None, RUNLEDGER_PG_BIN=str(directory), **NO_DOCKER
        ),
        pytest.raises(NoTestDatabase) as failure,
        server_choice.test_server(),
    ):
        pass
    assert failure.value.code == "testing.no_database"
    for expected in (*REMEDIES, "embedded: RUNLEDGER_PG_BIN", "docker: "):
        assert expected in str(failure.value)


@pytest.mark.parametrize("pinned", ["url", "docker"])
def test_a_pinned_choice_is_the_only_one_tried(pinned: str) -> None:
    with (
        scoped_environment(RUNLEDGER_TEST_DATABASE_URL=None, RUNLEDGER_TEST_DB=pinned, **NO_DOCKER),
        pytest.raises(NoTestDatabase) as failure,
        server_choice.test_server(),
    ):
        pass
    assert f"  {pinned}: " in str(failure.value)
    assert "embedded: " not in str(failure.value)


def test_an_unknown_choice_is_refused() -> None:
    with (
        scoped_environment(RUNLEDGER_TEST_DB="sqlite"),
        pytest.raises(NoTestDatabase, match="sqlite"),
        server_choice.test_server(),
    ):
        pass


def test_an_ephemeral_database_is_dropped_though_somebody_is_connected(server_url: str) -> None:
    with ephemeral_database(server_url, prefix="brief") as url:
        connection = psycopg.connect(url)
        name = connection.info.dbname
        assert name.startswith("brief_")
        assert name in databases(server_url)
    assert name not in databases(server_url)
    connection.close()


def test_an_ephemeral_database_is_dropped_after_an_error(server_url: str) -> None:
    before = databases(server_url)
    with pytest.raises(ZeroDivisionError), ephemeral_database(server_url):
        raise ZeroDivisionError
    assert databases(server_url) == before


def test_a_prefix_that_is_no_plain_word_is_refused(server_url: str) -> None:
    with pytest.raises(ValueError, match="prefix"), ephemeral_database(server_url, prefix='x"; --'):
        pass


def test_a_template_is_migrated_once_and_its_copies_are_independent(server_url: str) -> None:
    calls: list[str] = []

    def migrate(url: str) -> None:
        calls.append(url)
        make_table(url)

    first = migrated_template(server_url, migrate=migrate, checksum="one")
    assert migrated_template(server_url, migrate=migrate, checksum="one") == first
    assert migrated_template(server_url, migrate=migrate, checksum="two") != first
    assert len(calls) == 2

    with ephemeral_database(server_url, template=first) as one, ephemeral_database(server_url, template=first) as other:
        with psycopg.connect(one) as connection:
            connection.execute("INSERT INTO migrated VALUES (1)")
        with psycopg.connect(other) as connection:
            assert connection.execute("SELECT count(*) FROM migrated").fetchone() == (0,)


def test_processes_that_ask_together_migrate_once(server_url: str) -> None:
    calls: list[str] = []

    def migrate(url: str) -> None:
        calls.append(url)
        make_table(url)

    with ThreadPoolExecutor(max_workers=4) as pool:
        asked = [pool.submit(migrated_template, server_url, migrate=migrate, checksum="together") for _ in range(4)]
        names = {each.result(timeout=60) for each in asked}
    assert len(names) == len(calls) == 1


def test_a_template_whose_migration_failed_is_made_anew(server_url: str) -> None:
    def fail_after_a_table(url: str) -> None:
        make_table(url)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        migrated_template(server_url, migrate=fail_after_a_table, checksum="failed")
    assert migrated_template(server_url, migrate=make_table, checksum="failed")


def test_the_checksum_of_a_directory_follows_names_and_contents(directory: Path) -> None:
    (directory / "0001.sql").write_text("SELECT 1")
    first = directory_checksum(directory)
    (directory / "notes.txt").write_text("not SQL")
    assert directory_checksum(directory) == first
    (directory / "0001.sql").rename(directory / "0002.sql")
    second = directory_checksum(directory)
    (directory / "0002.sql").write_text("SELECT 2")
    assert len({first, second, directory_checksum(directory)}) == 3


def test_databases_of_processes_that_are_gone_are_dropped_and_others_stay(server_url: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with ephemeral_database(server_url) as kept, connect_as_admin(server_url) as connection:
        create_database(connection, f"test_{gone.pid}_0123abcd", template=None)
        create_database(connection, "test_of_somebody", template=None)
        assert drop_abandoned_databases(server_url) == [f"test_{gone.pid}_0123abcd"]
        assert "test_of_somebody" in databases(server_url)
        with psycopg.connect(kept):
            pass
        drop_database(connection, "test_of_somebody")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("postgresql://u:p%40@h:1/postgres?sslmode=require", "postgresql://u:p%40@h:1/a%20b?sslmode=require"),
        ("postgresql:///postgres?host=%2Ftmp%2Fx&user=u", "postgresql:///a%20b?host=%2Ftmp%2Fx&user=u"),
        ("postgres://h", "postgres://h/a%20b"),
        ("postgresql://h?dbname=old", "postgresql://h/a%20b"),
        ("host=h dbname=old", "dbname='a b' host=h"),
    ],
)
def test_another_database_of_the_same_server_keeps_everything_else(server: str, expected: str) -> None:
    assert database_url(server, "a b") == expected


def test_scoped_variables_are_restored_after_an_error() -> None:
    with scoped_environment(RL_ONE="before", RL_TWO=None):
        with pytest.raises(ZeroDivisionError), scoped_environment(RL_ONE=None, RL_TWO="inside"):
            assert read_variables() == (None, "inside")
            raise ZeroDivisionError
        assert read_variables() == ("before", None)
    assert read_variables() == (None, None)


def read_variables() -> tuple[str | None, str | None]:
    return os.environ.get("RL_ONE"), os.environ.get("RL_TWO")
