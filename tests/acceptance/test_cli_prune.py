"""Retention by the command line."""

from acceptance.command_line import document_of, enqueued, run_command

from runledger import Ledger, Scope, cancel_job, list_operator_actions
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import claim_one, dead_lettered


def a_cancelled_job(url: str) -> str:
    job_id = enqueued(url, "mail.receipt")
    with Ledger(url) as ledger, ledger.begin() as connection:
        cancel_job(connection, job_id, scope=Scope.any())
    return job_id


def test_a_dry_run_counts_and_deletes_nothing(own_url: str) -> None:
    job_id = a_cancelled_job(own_url)
    counted = document_of(run_command("prune", "--older-than", "0", "--dry-run", "--json", url=own_url))
    assert (counted["jobs"], counted["is_dry_run"]) == (1, True)
    assert run_command("job", "show", job_id, url=own_url).exit_code == 0


def test_nobody_prunes_without_agreeing_and_what_was_done_is_on_record(own_url: str) -> None:
    job_id = a_cancelled_job(own_url)
    waiting = enqueued(own_url, "mail.receipt")
    assert run_command("prune", "--older-than", "0", url=own_url).exit_code == 5
    assert run_command("job", "show", job_id, url=own_url).exit_code == 0

    done = document_of(run_command("prune", "--older-than", "0", "--yes", "--reason", "old", "--json", url=own_url))

    assert done["jobs"] == 1
    assert run_command("job", "show", job_id, url=own_url).exit_code == 4
    assert run_command("job", "show", waiting, url=own_url).exit_code == 0
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        [action] = list_operator_actions(connection, action="prune")
    assert (action.affected, action.reason) == (1, "old")


def test_an_age_is_needed(shop_url: str) -> None:
    assert run_command("prune", url=shop_url).exit_code == 2


def test_dead_letters_are_purged_by_type_and_nothing_else_goes(own_url: str) -> None:
    cancelled = a_cancelled_job(own_url)
    dead = enqueued(own_url, "mail.receipt")
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        settle_jobs(connection, [dead_lettered(claim_one(connection, "mail.receipt"))])

    assert run_command("dead", "purge", url=own_url).exit_code == 2
    assert run_command("dead", "purge", "--all", url=own_url).exit_code == 5
    assert document_of(run_command("dead", "purge", "--older-than", "1d", "--json", "--yes", url=own_url))["jobs"] == 0
    assert run_command("job", "show", dead, url=own_url).exit_code == 0
    done = document_of(run_command("dead", "purge", "--type", "mail.receipt", "--json", "--yes", url=own_url))

    assert done["jobs"] == 1
    assert run_command("job", "show", dead, url=own_url).exit_code == 4
    assert run_command("job", "show", cancelled, url=own_url).exit_code == 0
