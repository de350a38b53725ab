"""The check-up by the command line."""

import json

import psycopg
import pytest
from acceptance.command_line import document_of, run_command

from runledger import Ledger
from runledger.database.doctor import CHECKS
from runledger.testing.factories import a_job


@pytest.fixture
def sound_url(own_url: str) -> str:
    with psycopg.connect(own_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET synchronous_commit = on'.encode())
    return own_url


def test_a_healthy_system_ends_with_zero_and_a_line_for_each_check(sound_url: str) -> None:
    result = run_command("doctor", url=sound_url)

    assert result.exit_code == 0, result.stdout
    assert sum(line.startswith(("PASSED", "ADVICE")) for line in result.stdout.splitlines()) == len(CHECKS)


def test_a_finding_ends_with_three_and_says_what_helps(sound_url: str) -> None:
    with Ledger(sound_url) as ledger, ledger.begin() as connection:
        a_job(connection, "lost.place")
    with psycopg.connect(sound_url, autocommit=True) as connection:
        connection.execute("DELETE FROM runledger.job_ready")

    result = run_command("doctor", "--only", "job-in-one-place", url=sound_url)

    assert result.exit_code == 3
    status, finding, fix = result.stdout.splitlines()
    assert status.startswith("FOUND      job-in-one-place")
    assert "is in 0 places" in finding
    assert "fix: report it" in fix


def test_the_document_tells_health_and_every_result(sound_url: str) -> None:
    document = document_of(run_command("doctor", "--json", "--only", "schema", url=sound_url))

    assert document == {
        "is_healthy": True,
        "results": [
            {
                "name": "schema",
                "what": "the schema is what this package needs",
                "status": "PASSED",
                "findings": [],
                "fix": "runledger migrate",
            }
        ],
    }


def test_a_database_without_a_schema_is_a_finding_and_no_crash(empty_url: str) -> None:
    result = run_command("doctor", "--json", url=empty_url)

    assert result.exit_code == 3
    by_name = {one["name"]: one for one in json.loads(result.stdout)["results"]}
    assert "run `runledger migrate`" in by_name["schema"]["findings"][0]
    assert by_name["job-in-one-place"]["status"] == "FAILED"


def test_a_check_that_does_not_exist_is_a_usage_error(sound_url: str) -> None:
    refused = run_command("doctor", "--only", "nope", url=sound_url)
    assert refused.exit_code == 2
    assert "job-in-one-place" in refused.stderr
