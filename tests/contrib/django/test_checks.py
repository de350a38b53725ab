"""``manage.py check`` names what is wrong; it asks the database only when told to."""

from pathlib import Path

import psycopg
import pytest
from contrib.django.projects import Project, database, make_project


def checked(project: Project, *arguments: str, code: int = 0) -> str:
    return project.run("check", *arguments, code=code).stderr


def test_a_migrated_project_has_no_findings(shop: Project) -> None:
    assert "no issues" in shop.run("check", "--database", "default", "--fail-level", "WARNING").stdout


def test_a_missing_schema_is_found_only_when_the_database_is_asked(project: Project) -> None:
    assert checked(project, "--fail-level", "WARNING") == ""

    assert "runledger.W002" in checked(project, "--database", "default")


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM runledger.runledger_migration_history WHERE version = 202611220004", "runledger.W003"),
        (
            "INSERT INTO runledger.runledger_migration_history (version, name, checksum, package_version) "
            "VALUES (999912310001, 'future', 'x', '9')",
            "runledger.E002",
        ),
        ("UPDATE runledger.runledger_migration_history SET checksum = 'other'", "runledger.E004"),
    ],
)
def test_a_schema_of_another_release_is_found(shop: Project, shop_url: str, statement: str, finding: str) -> None:
    with psycopg.connect(shop_url, autocommit=True) as connection:
        connection.execute(statement)

    code = 0 if ".W" in finding else 1
    assert finding in checked(shop, "--database", "default", code=code)


def test_the_wrong_engine_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})

    assert "runledger.E001" in checked(project, code=1)


def test_an_alias_without_autocommit_is_found(shop_url: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, {"default": database(shop_url, AUTOCOMMIT=False)})

    assert "runledger.W001" in checked(project)


def test_jobs_in_another_database_than_the_default_one_are_noted(shop_url: str, tmp_path: Path) -> None:
    both = {"default": database(shop_url), "jobs": database(shop_url)}

    apart = make_project(tmp_path / "apart", both, runledger={"DATABASE": "jobs"})
    together = make_project(tmp_path / "together", both)

    assert "runledger.I001" in checked(apart)
    assert "runledger.I001" not in checked(together)


def test_a_database_that_is_away_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    place = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "127.0.0.1", "PORT": "1"}
    project = make_project(tmp_path, {"default": place})

    assert "runledger.E003" in checked(project, "--database", "default", code=1)
