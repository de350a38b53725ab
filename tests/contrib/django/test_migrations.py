"""Django's migrate and ours take turns on one database; our own history is the truth for both."""

from pathlib import Path

import psycopg
from contrib.django.projects import Project, database, make_project

from runledger.database.migrate import ensure_schema_compatible, migrate
from runledger.postgres.migrations import bundled_migrations
from runledger.testing import databases

NAMES = [f"{one.version}_{one.name}" for one in bundled_migrations()]


def history(url: str, schema: str = "runledger") -> list[int]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(f"SELECT version FROM {schema}.runledger_migration_history ORDER BY 1").fetchall()
        return [row[0] for row in rows]


def schemas(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT nspname FROM pg_namespace").fetchall()}


def test_every_sql_file_is_a_django_migration(project: Project) -> None:
    shown = project.run("showmigrations", "runledger").stdout

    assert [line.split()[-1] for line in shown.splitlines()[1:]] == NAMES


def test_djangos_migrate_satisfies_ours(project: Project, empty_url: str) -> None:
    project.run("migrate")

    ensure_schema_compatible(empty_url)
    assert migrate(empty_url) == ()
    assert project.run("runledger", "migrate", "--check").stdout == ""
    assert "[ ]" not in project.run("showmigrations").stdout


def test_a_database_that_ours_migrated_is_recognised(project: Project, empty_url: str) -> None:
    applied = migrate(empty_url)

    project.run("migrate", "--check", code=1)
    project.run("migrate")

    project.run("migrate", "--check")
    assert history(empty_url) == [one.version for one in applied]


def test_an_upgrade_applies_what_was_added(project: Project, empty_url: str) -> None:
    project.run("migrate", "runledger", NAMES[-2])
    assert len(history(empty_url)) == len(NAMES) - 1
    project.run("runledger", "migrate", "--check", code=3)

    project.run("migrate")

    ensure_schema_compatible(empty_url)


def test_ours_finishes_what_djangos_began(project: Project, empty_url: str) -> None:
    project.run("migrate", "runledger", NAMES[0])

    project.run("runledger", "migrate")
    project.run("migrate")

    ensure_schema_compatible(empty_url)
    assert "[ ]" not in project.run("showmigrations", "runledger").stdout


def test_the_schema_is_the_one_of_the_settings(empty_url: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, {"default": database(empty_url)}, runledger={"SCHEMA": "jobs_of_shop"})
    project.run("migrate")

    ensure_schema_compatible(empty_url, schema="jobs_of_shop")
    project.run("runledger", "migrate", "--check")
    assert "runledger" not in schemas(empty_url)
    assert (
        project.python(
            """
        from runledger.contrib.django import enqueue
        from runledger.contrib.django.models import Job
        enqueue("shop.pay", {"order": 1})
        print(Job.objects.get().status)
        """
        )
        == "PENDING"
    )


def test_only_the_configured_alias_gets_the_tables(server_url: str, empty_url: str, tmp_path: Path) -> None:
    with databases.ephemeral_database(server_url, prefix="django") as other_url:
        aliases = {"default": database(empty_url), "jobs": database(other_url)}
        project = make_project(tmp_path, aliases, runledger={"DATABASE": "jobs"})
        project.run("migrate")
        assert "runledger" not in schemas(empty_url)

        project.run("migrate", "--database", "jobs")

        ensure_schema_compatible(other_url)
        project.run("runledger", "migrate", "--check")


def test_makemigrations_finds_nothing_to_do(project: Project) -> None:
    assert "No changes" in project.run("makemigrations", "--check", "--dry-run").stdout


def test_sqlmigrate_prints_the_file_and_its_record(project: Project) -> None:
    [views] = [name for name in NAMES if name.endswith("_views")]
    printed = project.run("sqlmigrate", "runledger", views).stdout

    assert "CREATE VIEW" in printed
    assert "INSERT INTO runledger_migration_history" in printed


def test_definitions_are_stored_after_migrate(project: Project, empty_url: str) -> None:
    project.run("migrate")

    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT job_type, max_attempts FROM runledger.job_definitions").fetchall() == [
            ("shop.pay", 2)
        ]


def test_nothing_goes_backwards(project: Project, empty_url: str) -> None:
    project.run("migrate")

    assert "IrreversibleError" in project.run("migrate", "runledger", "zero", code=1).stderr
    ensure_schema_compatible(empty_url)
