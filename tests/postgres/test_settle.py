"""Settling: each way an attempt can end, and every lease that may not write."""

import json
from typing import Any

import pytest
from postgres.observing import Connection, count, place_of, scalar, snapshot, until, until_blocked

from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.results import Ended, LeaseCheck, Succeeded
from runledger.core.states import JobStage, JobStatus, Outcome
from runledger.postgres.leases import renew_leases, save_progress
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.reads import get_job, list_dead_letters, list_job_attempts, list_job_events
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_definition,
    a_job,
    a_leased_job,
    age_lease,
    claim_one,
    continued,
    dead_lettered,
    expired,
    failed,
    make_due,
    released,
    snoozed,
    succeeded,
)

ANY = Scope.any()
EVERY_END = [succeeded, failed, dead_lettered, snoozed, continued, released, expired]


def job_of(connection: Connection, job: ClaimedJob) -> Any:
    return get_job(connection, job.job_id, scope=ANY)


def attempts_of(connection: Connection, job: ClaimedJob) -> Any:
    return list_job_attempts(connection, job.job_id, scope=ANY)


def test_a_success_stores_the_output_and_ends_the_job(connection):
    job = a_leased_job(connection)

    assert settle_jobs(connection, [succeeded(job, {"sent": True})]) == {job.job_id}

    stored = job_of(connection, job)
    assert (stored.status, stored.stage, stored.output) == (JobStatus.SUCCEEDED, JobStage.COMPLETED, {"sent": True})
    assert (stored.attempt, stored.run_number, stored.worker_id) == (1, 1, None)
    assert stored.finished_at is not None
    assert place_of(connection, job.job_id) == []
    assert [one.outcome for one in attempts_of(connection, job)] == [Outcome.SUCCEEDED]


def test_a_success_keeps_times_and_usage_of_the_attempt(connection):
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=30)

    settle_jobs(connection, [Succeeded(job.job_id, job.lease_token, None, 20.0, 5.0, cpu_ms=70, max_rss_kb=9000)])

    [attempt] = attempts_of(connection, job)
    assert (attempt.cpu_ms, attempt.max_rss_kb) == (70, 9000)
    assert attempt.started_at is not None
    assert round((attempt.finished_at - attempt.started_at).total_seconds()) == 15
    assert attempt.leased_at < attempt.started_at


def test_an_attempt_whose_start_nobody_saw_has_no_start_time(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [failed(job)])

    assert attempts_of(connection, job)[0].started_at is None


def test_a_start_is_never_before_the_lease(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [Succeeded(job.job_id, job.lease_token, started_ago=3600.0, finished_ago=1800.0)])

    [attempt] = attempts_of(connection, job)
    assert attempt.started_at == attempt.leased_at == attempt.finished_at


def test_a_failure_waits_for_its_retry_time_and_keeps_the_attempt(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [failed(job, code="mail.down", message="no route", retry_seconds=60)])

    stored = job_of(connection, job)
    assert (stored.status, stored.stage, stored.attempt) == (JobStatus.PENDING, JobStage.SCHEDULED, 1)
    assert (stored.last_error_code, stored.last_error_message) == ("mail.down", "no route")
    [attempt] = attempts_of(connection, job)
    assert (attempt.outcome, attempt.error_code, attempt.retry_at) == (
        Outcome.RETRYABLE,
        "mail.down",
        stored.next_run_at,
    )
    assert (stored.next_run_at - attempt.finished_at).total_seconds() == 60
    assert place_of(connection, job.job_id) == ["job_scheduled"]


def test_a_failure_without_delay_is_ready_at_once(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [failed(job, retry_seconds=0)])

    assert place_of(connection, job.job_id) == ["job_ready"]
    assert claim_one(connection).attempt == 2


def test_a_timeout_is_retried_with_its_traceback(connection):
    job = a_leased_job(connection)
    ended = failed(job, outcome=Outcome.TIMEOUT, code="job.timeout_exceeded")
    ended.traceback = "Traceback: here"

    settle_jobs(connection, [ended])

    [attempt] = attempts_of(connection, job)
    assert (attempt.outcome, attempt.traceback) == (Outcome.TIMEOUT, "Traceback: here")


def test_a_crash_is_stored_with_its_signal(connection):
    job = a_leased_job(connection)
    ended = failed(job, outcome=Outcome.PANICKED, code="job.worker_crash")
    ended.exit_signal = 11

    settle_jobs(connection, [ended])

    [attempt] = attempts_of(connection, job)
    assert (attempt.outcome, attempt.exit_signal) == (Outcome.PANICKED, 11)


def test_a_dead_letter_keeps_payload_and_checkpoint_as_they_were(connection):
    job = a_leased_job(connection, payload={"order": 7})
    save_progress(connection, job.job_id, job.lease_token, done=1, total=2, checkpoint='{"page": 3}')

    settle_jobs(connection, [dead_lettered(job, code="mail.no_recipient")])

    stored = job_of(connection, job)
    assert (stored.status, stored.status_reason) == (JobStatus.DEAD_LETTERED, "FAILURE_KIND_NON_RETRYABLE")
    assert (stored.last_error_code, stored.last_error_message) == ("mail.no_recipient", "it failed for good")
    assert (stored.checkpoint, stored.progress_percent) == ({"page": 3}, 50.0)
    [letter] = list_dead_letters(connection, scope=ANY)
    assert (letter.payload, letter.checkpoint) == ({"order": 7}, {"page": 3})
    assert (letter.error_code, letter.run_number, letter.attempt) == ("mail.no_recipient", 1, 1)
    assert letter.failed_at == stored.finished_at


def test_a_dead_letter_keeps_the_checkpoint_of_an_earlier_attempt(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, checkpoint='"kept"')
    settle_jobs(connection, [failed(first, retry_seconds=0)])

    settle_jobs(connection, [dead_lettered(claim_one(connection))])

    [letter] = list_dead_letters(connection, scope=ANY)
    assert (letter.checkpoint, letter.attempt) == ("kept", 2)


def test_a_snooze_refunds_the_attempt_and_waits(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [snoozed(job, seconds=60)])

    assert job_of(connection, job).attempt == 0
    assert place_of(connection, job.job_id) == ["job_scheduled"]
    make_due(connection, job.job_id)
    again = claim_one(connection)
    assert again.attempt == 1
    assert again.lease_token > job.lease_token


def test_a_snooze_of_nothing_goes_back_to_its_place_in_line(connection):
    job = a_leased_job(connection)
    a_job(connection)

    settle_jobs(connection, [snoozed(job, seconds=0)])

    assert claim_one(connection).job_id == job.job_id


def test_continue_begins_the_next_run_with_its_checkpoint(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, checkpoint='{"cursor": 10}')

    settle_jobs(connection, [continued(job)])

    stored = job_of(connection, job)
    assert (stored.status, stored.run_number, stored.attempt) == (JobStatus.PENDING, 2, 0)
    again = claim_one(connection)
    assert (again.run_number, again.attempt) == (2, 1)
    assert json.loads(again.checkpoint) == {"cursor": 10}


def test_continue_after_a_delay_is_scheduled(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [continued(job, seconds=30)])

    assert place_of(connection, job.job_id) == ["job_scheduled"]
    assert job_of(connection, job).run_number == 2


def test_a_released_job_is_refunded_leaves_no_attempt_and_says_why(connection):
    job = a_leased_job(connection)
    waiting = a_job(connection)

    settle_jobs(connection, [released(job, reason="worker is stopping")])

    assert attempts_of(connection, job) == []
    assert job_of(connection, job).attempt == 0
    [_, _, event] = list_job_events(connection, job.job_id, scope=ANY)
    assert (event.event_type, event.reason, event.actor) == ("RELEASED", "worker is stopping", "worker-1")
    assert event.detail["lease_token"] == job.lease_token
    again = claim_one(connection)
    assert (again.job_id, again.attempt) == (job.job_id, 1)
    assert again.lease_token > job.lease_token
    assert str(waiting.job_id) != again.job_id


def test_an_expired_job_is_canceled_without_an_attempt(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [expired(job)])

    stored = job_of(connection, job)
    assert (stored.status, stored.status_reason, stored.attempt) == (JobStatus.CANCELED, "EXPIRED", 0)
    assert attempts_of(connection, job) == []


def test_a_batch_settles_every_live_lease_and_leaves_the_lost_ones(connection):
    jobs = [a_leased_job(connection) for _ in range(8)]
    cancel_job(connection, jobs[7].job_id, scope=ANY)
    ends = [end(job) for end, job in zip([*EVERY_END, succeeded], jobs, strict=True)]

    assert settle_jobs(connection, ends) == {job.job_id for job in jobs[:7]}
    assert count(connection, "job_leases") == 0


def test_success_forgets_the_reason_of_an_earlier_failure(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, checkpoint="1")
    settle_jobs(connection, [failed(first, retry_seconds=0)])

    settle_jobs(connection, [succeeded(claim_one(connection))])

    stored = job_of(connection, first)
    assert (stored.status_reason, stored.last_error_code, stored.last_error_message) == (None, None, None)


@pytest.mark.parametrize("end", EVERY_END)
def test_a_lapsed_lease_settles_nothing_and_has_no_grace(connection, end):
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=60.001)
    before = snapshot(connection)

    assert settle_jobs(connection, [end(job)]) == set()
    assert snapshot(connection) == before


@pytest.mark.parametrize("end", EVERY_END)
def test_the_lease_of_an_earlier_claim_settles_nothing(connection, end):
    leases = [a_leased_job(connection)]
    for ending in (failed, released, snoozed, continued):
        settle_jobs(connection, [ending(leases[-1])])
        make_due(connection, leases[0].job_id)
        leases.append(claim_one(connection))
    cancel_job(connection, leases[0].job_id, scope=ANY)
    connection.execute("UPDATE runledger.job_queue SET quiesces_at = now()")
    requeue_job(connection, leases[0].job_id, scope=ANY)
    leases.append(claim_one(connection))
    before = snapshot(connection)

    for stale in leases[:-1]:
        assert settle_jobs(connection, [end(stale)]) == set()
        assert settle_jobs(connection, [end(stale)], lease_check=LeaseCheck.ANY) == set()
    assert snapshot(connection) == before
    assert settle_jobs(connection, [end(leases[-1])]) == {leases[-1].job_id}


@pytest.mark.parametrize("end", EVERY_END)
def test_nothing_is_settled_twice(connection, end):
    job = a_leased_job(connection)
    settle_jobs(connection, [end(job)])
    before = snapshot(connection)

    assert settle_jobs(connection, [end(job)]) == set()
    assert snapshot(connection) == before


@pytest.mark.parametrize("end", [succeeded, failed])
def test_a_lease_that_ends_while_its_settle_waits_for_the_row_settles_nothing(connection, connect, in_background, end):
    job = a_leased_job(connection, lease_ttl_seconds=0.4)
    holder, late = connect(autocommit=False), connect()
    holder.execute("SELECT 1 FROM runledger.job_leases FOR UPDATE")
    settling = in_background(settle_jobs, late, [end(job)])
    until_blocked(connection, late)
    until(lambda: scalar(connection, "SELECT lease_expires_at <= clock_timestamp() FROM runledger.job_leases"))
    before = snapshot(connection)

    holder.rollback()

    assert settling.result(10) == set()
    assert snapshot(connection) == before


@pytest.mark.parametrize("end", EVERY_END)
def test_a_settle_that_waited_for_a_renewal_takes_the_renewed_lease_away(connection, connect, in_background, end):
    job = a_leased_job(connection)
    keeper, worker = connect(autocommit=False), connect()
    renew_leases(keeper, worker_ids=[job_worker(connection)], lease_ttl_seconds=90)
    settling = in_background(settle_jobs, worker, [end(job)])
    until_blocked(connection, worker)

    keeper.commit()

    assert settling.result(10) == {job.job_id}
    assert count(connection, "job_leases") == 0


def job_worker(connection: Connection) -> str:
    return str(scalar(connection, "SELECT worker_id FROM runledger.job_leases"))


def test_a_settle_that_waited_for_a_cancel_is_refused(connection, connect, in_background):
    job = a_leased_job(connection)
    person, worker = connect(autocommit=False), connect()
    cancel_job(person, job.job_id, scope=ANY)
    settling = in_background(settle_jobs, worker, [succeeded(job)])
    until_blocked(connection, worker)

    person.commit()

    assert settling.result(10) == set()
    assert job_of(connection, job).status is JobStatus.CANCELED


def test_a_late_worker_cannot_finish_a_reaped_job(connection):
    job = a_leased_job(connection, worker_id="slow")
    age_lease(connection, job, seconds=61)
    reap_lapsed_leases(connection)

    assert settle_jobs(connection, [succeeded(job)]) == set()
    assert job_of(connection, job).status is JobStatus.PENDING


def test_the_reaper_takes_only_lapsed_leases_and_the_keeper_any(connection):
    live, lapsed = a_leased_job(connection), a_leased_job(connection)
    age_lease(connection, lapsed, seconds=61)

    ends = [failed(live), failed(lapsed)]
    assert settle_jobs(connection, ends, lease_check=LeaseCheck.LAPSED) == {lapsed.job_id}
    assert settle_jobs(connection, ends, lease_check=LeaseCheck.ANY) == {live.job_id}


def test_the_reaper_waits_for_no_record(connection, connect):
    """Somebody's open transaction about one job must not keep the leases of all others from being recovered."""
    held, *others = (a_leased_job(connection) for _ in range(3))
    for job in (held, *others):
        age_lease(connection, job, seconds=61)
    holder = connect(autocommit=False)
    holder.execute("UPDATE runledger.job_queue SET tags = tags WHERE id = %s", [held.job_id])

    assert set(reap_lapsed_leases(connection).retried) == {job.job_id for job in others}
    holder.rollback()
    assert reap_lapsed_leases(connection).retried == (held.job_id,)


def test_a_rolled_back_settle_leaves_the_lease_as_it_was(connection, connect):
    job = a_leased_job(connection)
    before = snapshot(connection)
    worker = connect(autocommit=False)

    settle_jobs(worker, [succeeded(job)])
    worker.rollback()

    assert snapshot(connection) == before


def test_an_outcome_of_an_unknown_job_settles_nothing(connection):
    assert settle_jobs(connection, [Succeeded("0190a5a4-0000-7000-8000-000000000000", 1)]) == set()
    assert settle_jobs(connection, []) == set()


@pytest.mark.parametrize("has_hook", [True, False])
def test_a_dead_letter_brings_a_hook_job_only_when_its_type_has_one(connection, has_hook):
    a_definition(connection, "mail.send", has_dead_letter_hook=has_hook)
    a_definition(connection, "mail.send.on_dead_letter", priority=5)
    job = a_leased_job(connection, "mail.send", {"order": 7})

    settle_jobs(connection, [dead_lettered(job, code="mail.gone", message="no such box")])

    if not has_hook:
        assert count(connection, "job_queue") == 1
        return
    hook = claim_one(connection, "mail.send.on_dead_letter")
    assert json.loads(hook.payload) == {
        "job_id": job.job_id,
        "run_number": 1,
        "attempt": 1,
        "code": "mail.gone",
        "message": "no such box",
        "reason": "FAILURE_KIND_NON_RETRYABLE",
        "payload": {"order": 7},
    }
    assert scalar(connection, "SELECT parent_job_id::text FROM runledger.jobs WHERE id = %s", hook.job_id) == job.job_id


@pytest.mark.parametrize("end", [end for end in EVERY_END if end is not dead_lettered])
def test_no_other_end_brings_a_hook_job(connection, end):
    a_definition(connection, "mail.send", has_dead_letter_hook=True)
    a_definition(connection, "mail.send.on_dead_letter")
    job = a_leased_job(connection, "mail.send")

    settle_jobs(connection, [end(job)])

    assert count(connection, "job_queue") == 1


def test_an_output_of_json_null_is_stored_as_such(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [Succeeded(job.job_id, job.lease_token, "null")])

    assert scalar(connection, "SELECT output::text FROM runledger.job_queue") == "null"


def test_ended_without_an_error_leaves_the_last_error_empty(connection):
    job = a_leased_job(connection)

    settle_jobs(connection, [Ended(job.job_id, job.lease_token, Outcome.SNOOZED, retry_seconds=1, is_refunded=True)])

    assert job_of(connection, job).last_error_code is None
