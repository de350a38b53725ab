"""Schedules by the command line."""

import pytest
from acceptance.command_line import document_of, run_command

from runledger import Ledger, ScheduleRequest, upsert_job_schedule


@pytest.fixture
def scheduled_url(own_url: str) -> str:
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        for name in ("nightly", "weekly"):
            request = ScheduleRequest(name, cron=f"@{name.replace('night', 'dai')}", job_type="mail.receipt")
            upsert_job_schedule(connection, request)
    return own_url


def test_the_next_firings_need_no_database() -> None:
    after = ("--after", "2027-03-27T12:00:00Z")
    result = run_command("schedule", "next", "30 2 * * *", "-n", "2", "--timezone", "Europe/Berlin", *after)
    assert result.stdout.splitlines() == [
        "2027-03-28T01:00:00Z\t2027-03-28 03:00:00+02:00",
        "2027-03-29T00:30:00Z\t2027-03-29 02:30:00+02:00",
    ]
    assert document_of(run_command("schedule", "next", "@daily", *after, "-n", "1", "--json")) == {
        "expression": "@daily",
        "timezone": "UTC",
        "next": ["2027-03-28T00:00:00Z"],
    }


@pytest.mark.parametrize("arguments", [("0 9-9 * * *",), ("@reboot",), ("@daily", "--timezone", "Mars")])
def test_what_does_not_parse_is_one_line_and_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = run_command("schedule", "next", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_a_list_is_by_name_and_goes_on_after_one(scheduled_url: str) -> None:
    rows = [line.split("\t") for line in run_command("schedule", "list", url=scheduled_url).stdout.splitlines()]
    assert [row[:5] for row in rows] == [
        ["nightly", "mail.receipt", "@daily", "UTC", "yes"],
        ["weekly", "mail.receipt", "@weekly", "UTC", "yes"],
    ]
    found = document_of(run_command("schedule", "list", "--json", "--after", "nightly", url=scheduled_url))
    assert [one["name"] for one in found["schedules"]] == ["weekly"]


def test_pause_and_resume_go_together_or_not_at_all(scheduled_url: str) -> None:
    refused = run_command("schedule", "pause", "nightly", "ghost", url=scheduled_url)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert document_of(run_command("schedule", "list", "--json", url=scheduled_url))["schedules"][0]["is_active"]

    run_command("schedule", "pause", "nightly", "weekly", url=scheduled_url)
    listed = document_of(run_command("schedule", "resume", "weekly", "--json", url=scheduled_url))["schedules"]
    assert [(one["name"], one["is_active"]) for one in listed] == [("weekly", True)]


def test_a_trigger_prints_the_id_of_its_job(scheduled_url: str) -> None:
    run_command("schedule", "pause", "nightly", "weekly", url=scheduled_url)
    job_id = run_command("schedule", "trigger", "nightly", url=scheduled_url).stdout.strip()
    job = document_of(run_command("job", "show", job_id, "--json", url=scheduled_url))
    assert job["payload"]["_schedule"]["schedule_name"] == "nightly"

    assert run_command("schedule", "trigger", "ghost", url=scheduled_url).exit_code == 4
    run_command("definition", "disable", "mail.receipt", url=scheduled_url)
    assert run_command("schedule", "trigger", "nightly", url=scheduled_url).exit_code == 5


def test_what_was_deleted_is_gone(scheduled_url: str) -> None:
    assert run_command("schedule", "delete", "nightly", url=scheduled_url).exit_code == 0
    assert run_command("schedule", "delete", "nightly", "weekly", url=scheduled_url).exit_code == 4
    assert run_command("schedule", "list", url=scheduled_url).stdout.startswith("weekly\t")
