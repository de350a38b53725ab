"""Many jobs by one command: chosen, counted, confirmed, changed, and told."""

import pytest
from acceptance.command_line import document_of, enqueued, run_command

from runledger import JobFilter, JobStatus, Ledger, Scope, list_jobs, list_operator_actions
from runledger.cli.main import run
from runledger.database import bulk as database_bulk
from runledger.postgres import bulk, job_walks

ID = "01900000-0000-7000-8000-000000000000"


def statuses(url: str) -> list[str]:
    with Ledger(url) as ledger, ledger.begin() as connection:
        return sorted(job.status.value for job in list_jobs(connection, scope=Scope.any()))


@pytest.mark.parametrize("command", [["cancel"], ["requeue"], ["priority", "--to", "1"]])
@pytest.mark.parametrize(
    "chosen", [[], [ID, "--all"], [ID, "--tag", "x"], ["--all", "--tag", "x"], ["--status", "succeeded"]]
)
def test_jobs_are_chosen_in_exactly_one_way_that_can_be(shop_url: str, command: list[str], chosen: list[str]) -> None:
    assert run_command("job", *command, *chosen, "--yes", url=shop_url).exit_code == 2


def test_nothing_changes_until_somebody_agrees(own_url: str) -> None:
    for number in range(3):
        enqueued(own_url, "mail.receipt", f'{{"n": {number}}}')
    asked = run_command("job", "cancel", "--type", "mail.receipt", url=own_url)
    assert (asked.exit_code, asked.stdout) == (5, "")
    assert "3 jobs match" in asked.stderr
    assert "--yes" in asked.stderr
    assert statuses(own_url) == ["PENDING"] * 3

    done = document_of(
        run_command("job", "cancel", "--type", "mail.receipt", "--reason", "r", "--yes", "--json", url=own_url)
    )

    assert done == {"matched": 3, "changed": 3, "skipped": 0, "of_workflows": 0}
    assert statuses(own_url) == ["CANCELED"] * 3
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        [action] = list_operator_actions(connection)
    assert (action.action, action.affected, action.reason) == ("job.cancel", 3, "r")
    assert (action.actor or "").startswith("cli:")


def test_a_repetition_finds_nothing_and_asks_nobody(own_url: str) -> None:
    enqueued(own_url, "mail.receipt")
    assert run_command("job", "cancel", "--all", "--yes", url=own_url).exit_code == 0
    again = run_command("job", "cancel", "--all", url=own_url)
    assert (again.exit_code, again.stdout) == (0, "matched\t0\nchanged\t0\nskipped\t0\nof_workflows\t0\n")


def test_priorities_change_by_id_and_by_filter(own_url: str) -> None:
    first, second = enqueued(own_url, "mail.receipt"), enqueued(own_url, "mail.receipt", '{"n": 2}')
    changed = document_of(run_command("job", "priority", first, "--to", "-4", "--json", url=own_url))
    assert [job["priority"] for job in changed["jobs"]] == [-4]
    assert run_command("job", "priority", "--all", "--to", "7", "--yes", url=own_url).exit_code == 0
    with Ledger(own_url) as ledger:
        assert [ledger.get_job(job_id).priority for job_id in (first, second)] == [7, 7]
    assert run_command("job", "priority", ID, "--to", "1", url=own_url).exit_code == 4


def test_more_than_the_count_goes_up_to_says_so(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runledger.cli.bulk.COUNTED", 0)
    enqueued(own_url, "mail.receipt")
    assert "more than 0 jobs match" in run_command("job", "cancel", "--all", "--yes", url=own_url).stderr


def test_an_interrupt_leaves_whole_batches_and_says_so(
    own_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for number in range(3):
        enqueued(own_url, "mail.receipt", f'{{"n": {number}}}')
    monkeypatch.setattr(job_walks, "LONGEST_WALK_OF_PLACES", 1)
    monkeypatch.setattr(database_bulk, "set_operator_action", interrupted)

    assert run(["job", "cancel", "--all", "--yes", "-d", own_url]) == 130

    assert "stopped: 1 jobs were changed, in whole batches" in capsys.readouterr().err
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        assert bulk.count_jobs(connection, JobFilter(status=JobStatus.PENDING), scope=Scope.any()) == 2
        assert list_operator_actions(connection)[0].affected == 1
