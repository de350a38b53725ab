"""The schema by the command line: migrate, ask, and what the other commands say when it does not fit."""

import psycopg
import pytest
from acceptance.command_line import document_of, run_command

from runledger.postgres.migrations import bundled_migrations

NAMES = [f"{one.version}\t{one.name}" for one in bundled_migrations()]


def test_migrate_lists_what_it_applied_and_may_run_again(empty_url: str) -> None:
    assert run_command("migrate", "--plan", url=empty_url).stdout.splitlines() == NAMES
    first = run_command("migrate", url=empty_url)
    assert (first.exit_code, first.stdout.splitlines()) == (0, NAMES)
    assert "target: " in first.stderr
    again = run_command("migrate", url=empty_url)
    assert (again.exit_code, again.stdout) == (0, "")
    assert document_of(run_command("migrate", "--check", "--json", url=empty_url)) == {"pending": []}


def test_migrate_takes_another_schema(empty_url: str) -> None:
    assert run_command("migrate", "--schema", "jobs", url=empty_url).exit_code == 0
    assert run_command("migrate", "--check", url=empty_url, RUNLEDGER_SCHEMA="jobs").exit_code == 0
    assert run_command("migrate", "--check", url=empty_url).exit_code == 3


def test_the_sql_needs_no_database_and_does_what_migrate_does(empty_url: str) -> None:
    script = run_command("migrate", "--sql", "--schema", "jobs")
    assert (script.exit_code, script.stderr) == (0, "")
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(script.stdout.encode())
    assert run_command("migrate", "--check", "--schema", "jobs", url=empty_url).exit_code == 0


def test_the_questions_exclude_each_other(empty_url: str) -> None:
    assert run_command("migrate", "--check", "--plan", url=empty_url).exit_code == 2


@pytest.mark.parametrize("schema", ["Robert'); DROP TABLE x", "pg_catalog", "ü", "x" * 64])
def test_a_schema_name_outside_the_alphabet_is_bad_configuration(schema: str) -> None:
    for arguments in (["migrate", "--sql"], ["job", "list", "-d", "postgresql://localhost:1/x"]):
        assert run_command(*arguments, "--schema", schema).exit_code == 78


def test_a_missing_schema_says_which_command_helps(empty_url: str) -> None:
    checked = run_command("migrate", "--check", url=empty_url)
    assert (checked.exit_code, checked.stdout) == (3, "")
    assert "runledger migrate" in checked.stderr
    read = run_command("job", "list", url=empty_url)
    assert (read.exit_code, read.stdout) == (78, "")
    assert "runledger migrate" in read.stderr


def test_a_schema_that_is_behind_is_told_from_one_that_is_ahead(own_url: str) -> None:
    with psycopg.connect(own_url, autocommit=True) as connection:
        connection.execute(
            "DELETE FROM runledger.runledger_migration_history"
            " WHERE version = (SELECT max(version) FROM runledger.runledger_migration_history)"
        )
        behind = run_command("migrate", "--check", "--json", url=own_url)
        assert (behind.exit_code, behind.stdout) == (3, "")
        assert "schema.behind" in behind.stderr
        assert run_command("worker", "--check", "--app", "acceptance.shop:catalog", url=own_url).exit_code == 3
        connection.execute(
            "INSERT INTO runledger.runledger_migration_history VALUES (999901010000, 'later', 'x', '9.9')"
        )
    assert run_command("migrate", "--check", url=own_url).exit_code == 3
    ahead = run_command("migrate", url=own_url)
    assert (ahead.exit_code, ahead.stdout) == (78, "")
    assert "upgrade" in ahead.stderr


def test_a_role_without_rights_is_refused_and_the_missing_grant_named(server_url: str, own_url: str) -> None:
    role = own_url.partition("?")[0].rpartition("/")[2] + "_nobody"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{role}" LOGIN')
        try:
            url = psycopg.conninfo.make_conninfo(own_url, user=role)
            refused = run_command("job", "list", "-v", url=url)
            migrated = run_command("migrate", "--schema", "other", url=url)
        finally:
            connection.execute(f'DROP ROLE "{role}"')
    assert (refused.exit_code, refused.stdout) == (5, "")
    assert "permission denied for schema runledger" in refused.stderr
    assert migrated.exit_code == 5


def test_grants_are_printed_for_the_schema_and_names_that_were_asked_for() -> None:
    printed = run_command("migrate", "--grants", "--schema", "jobs", "--role-prefix", "shop")
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert "GRANT SELECT, INSERT ON jobs.job_queue TO shop_enqueuer;" in printed.stdout.splitlines()
    assert run_command("migrate", "--grants", "--role-prefix", "Shop; --").exit_code == 78
    assert run_command("migrate", "--grants", "--sql").exit_code == 2
