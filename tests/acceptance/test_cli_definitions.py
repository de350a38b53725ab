"""The switches of job types by the command line."""

import pytest
from acceptance.command_line import APP, document_of, run_command

from runledger import JobDefinition, Ledger, ScheduleRequest, upsert_job_schedule
from runledger.postgres.definitions import sync_definitions


def lines_of(url: str) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in run_command("definition", "list", url=url).stdout.splitlines()]
    return {row[0]: row for row in rows}


def test_sync_prints_what_is_new_and_nothing_the_second_time(database_url: str) -> None:
    first = run_command("definition", "sync", "--app", APP, url=database_url)
    assert first.stdout.splitlines() == ["mail.receipt", "order.ship", "report.old"]
    again = run_command("definition", "sync", "--app", APP, url=database_url)
    assert (again.exit_code, again.stdout) == (0, "")


def test_sync_without_an_app_is_a_usage_error(shop_url: str) -> None:
    result = run_command("definition", "sync", url=shop_url)
    assert result.exit_code == 2
    assert "--app" in result.stderr


@pytest.mark.parametrize(("off", "on", "column"), [("disable", "enable", 2), ("pause", "resume", 3)])
def test_each_switch_goes_both_ways(shop_url: str, off: str, on: str, column: int) -> None:
    before = lines_of(shop_url)["mail.receipt"][column]
    run_command("definition", off, "mail.receipt", "--reason", "a test", url=shop_url)
    assert lines_of(shop_url)["mail.receipt"][column] != before
    run_command("definition", on, "mail.receipt", url=shop_url)
    assert lines_of(shop_url)["mail.receipt"][column] == before


def test_a_disabled_type_refuses_new_jobs(own_url: str) -> None:
    run_command("definition", "disable", "mail.receipt", url=own_url)
    assert run_command("enqueue", "mail.receipt", url=own_url).exit_code == 5


def test_several_types_are_switched_together_or_not_at_all(shop_url: str) -> None:
    result = run_command("definition", "pause", "mail.receipt", "nope", url=shop_url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert lines_of(shop_url)["mail.receipt"][3] == "no"


def test_the_document_tells_all_settings(shop_url: str) -> None:
    [mail, *_] = document_of(run_command("definition", "list", "--json", url=shop_url))["definitions"]
    assert mail["definition"]["job_type"] == "mail.receipt"
    assert mail["definition"]["retry"]["base_seconds"] == 5.0
    assert mail["is_paused"] is False


def test_an_exact_sync_previews_asks_and_then_disables(own_url: str) -> None:
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        sync_definitions(connection, [JobDefinition("report.gone")])
    exact = ("definition", "sync", "--app", APP, "--exact")

    preview = run_command(*exact, "--dry-run", url=own_url)
    assert (preview.exit_code, preview.stdout) == (0, "report.gone\tdisabled\n")
    refused = run_command(*exact, url=own_url)
    assert (refused.exit_code, lines_of(own_url)["report.gone"][2]) == (5, "yes")
    narrow = document_of(run_command(*exact, "--scope", "other.type", "--yes", "--json", url=own_url))
    assert narrow["disabled"] == []
    done = document_of(run_command(*exact, "--yes", "--json", url=own_url))
    assert (done["disabled"], lines_of(own_url)["report.gone"][2]) == (["report.gone"], "no")


def test_a_type_with_an_active_schedule_is_not_disabled(own_url: str) -> None:
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        upsert_job_schedule(connection, ScheduleRequest("nightly", cron="0 3 * * *", job_type="mail.receipt"))
    result = run_command("definition", "disable", "mail.receipt", url=own_url)
    assert result.exit_code == 5
    assert "nightly" in result.stderr
