"""Recovery: what a dead worker and a lapsed lease leave behind is settled once, by the same decision as a failure."""

from dataclasses import replace

import pytest
from postgres.observing import count, place_of, scalar, snapshot

from runledger.core.definitions import RetryPolicy
from runledger.core.failures import Failure
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, Outcome
from runledger.postgres.leases import save_progress
from runledger.postgres.operations import requeue_job
from runledger.postgres.reads import get_job, list_dead_letters, list_job_attempts, list_job_events
from runledger.postgres.recovery import Recovered, WorkerDeath, reap_lapsed_leases, settle_dead_worker
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_definition,
    a_leased_job,
    age_lease,
    claim_one,
    make_due,
    succeeded,
)

ANY = Scope.any()
CRASH = Failure(Outcome.PANICKED, "job.worker_crash", "the worker process died", None, None, exit_signal=11)
TIMEOUT = Failure(Outcome.TIMEOUT, "job.timeout_exceeded", "killed after its timeout", None, None, exit_signal=9)


def lapsed_job(connection, **options):
    job = a_leased_job(connection, **options)
    age_lease(connection, job, seconds=61)
    return job


def test_a_lapsed_lease_is_retried_after_the_delay_of_its_type(connection):
    a_definition(connection, retry=RetryPolicy(base_seconds=7, factor=3, jitter=False))
    job = lapsed_job(connection)

    assert reap_lapsed_leases(connection) == Recovered(retried=(job.job_id,))

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.attempt, stored.last_error_code) == (JobStatus.PENDING, 1, "job.lease_expired")
    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert (attempt.outcome, attempt.error_code) == (Outcome.LEASE_EXPIRED, "job.lease_expired")
    assert (attempt.retry_at - attempt.finished_at).total_seconds() == 21
    assert attempt.retry_at == stored.next_run_at


def test_a_failure_code_with_its_own_delay_has_it_in_the_reaper_too(connection):
    a_definition(connection, retry=RetryPolicy(overrides={"job.lease_expired": 3.5}))
    job = lapsed_job(connection)

    reap_lapsed_leases(connection)

    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert (attempt.retry_at - attempt.finished_at).total_seconds() == 3.5


def test_a_lapsed_lease_of_the_last_attempt_is_dead_lettered(connection):
    job = lapsed_job(connection, max_attempts=1)

    assert reap_lapsed_leases(connection) == Recovered(dead_lettered=(job.job_id,))

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.status_reason) == (JobStatus.DEAD_LETTERED, "ATTEMPTS_EXHAUSTED")
    [letter] = list_dead_letters(connection, scope=ANY)
    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert {letter.error_code, attempt.error_code, stored.last_error_code} == {"job.lease_expired"}
    assert {letter.error_message, attempt.error_message, stored.last_error_message} == {
        "the lease ended before its attempt was settled"
    }


def test_a_live_lease_is_never_reaped(connection):
    a_leased_job(connection)
    before = snapshot(connection)

    assert len(reap_lapsed_leases(connection)) == 0
    assert snapshot(connection) == before


def test_the_reaper_takes_at_most_its_limit(connection):
    for _ in range(5):
        lapsed_job(connection)

    assert len(reap_lapsed_leases(connection, limit=3)) == 3
    assert len(reap_lapsed_leases(connection, limit=3)) == 2


def test_the_reaper_skips_a_lease_that_somebody_is_settling(connection, connect):
    busy, other = lapsed_job(connection), lapsed_job(connection)
    holder = connect(autocommit=False)
    holder.execute("SELECT 1 FROM runledger.job_leases WHERE job_id = %s FOR UPDATE", (busy.job_id,))

    assert reap_lapsed_leases(connection) == Recovered(retried=(other.job_id,))


def test_two_reapers_share_the_work(connection, connect):
    jobs = {lapsed_job(connection).job_id for _ in range(4)}
    first, second = connect(autocommit=False), connect(autocommit=False)

    taken_first = reap_lapsed_leases(first, limit=2)
    taken_second = reap_lapsed_leases(second)
    first.commit()
    second.commit()

    assert {*taken_first.retried, *taken_second.retried} == jobs
    assert count(connection, "job_attempts") == 4


def test_the_reaper_recovers_a_type_whose_definition_is_gone(connection):
    job = lapsed_job(connection)
    connection.execute("DELETE FROM runledger.job_definitions")

    assert reap_lapsed_leases(connection).retried == (job.job_id,)


def test_a_reaped_job_keeps_the_checkpoint_of_its_lost_attempt(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, checkpoint='{"page": 9}')
    age_lease(connection, job, seconds=61)
    reap_lapsed_leases(connection)

    make_due(connection, job.job_id)

    assert claim_one(connection).checkpoint == '{"page": 9}'


def test_a_dead_worker_leaves_a_panicked_attempt_with_its_signal_and_usage(connection):
    job = a_leased_job(connection)

    recovered = settle_dead_worker(
        connection,
        WorkerDeath("worker-1", CRASH, running=job.lease_token, started_ago=0.001, cpu_ms=120, max_rss_kb=4096),
    )

    assert recovered == Recovered(retried=(job.job_id,))
    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert (attempt.outcome, attempt.exit_signal, attempt.error_code) == (Outcome.PANICKED, 11, "job.worker_crash")
    assert (attempt.cpu_ms, attempt.max_rss_kb) == (120, 4096)
    assert attempt.started_at is not None


def test_a_worker_killed_at_its_deadline_leaves_a_timeout(connection):
    job = a_leased_job(connection)

    settle_dead_worker(connection, WorkerDeath("worker-1", TIMEOUT, running=job.lease_token))

    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert (attempt.outcome, attempt.exit_signal, attempt.started_at) == (Outcome.TIMEOUT, 9, None)


def test_jobs_that_never_began_go_back_with_their_attempt(connection):
    running, ran, unstarted = (a_leased_job(connection) for _ in range(3))

    recovered = settle_dead_worker(
        connection,
        WorkerDeath("worker-1", CRASH, running=running.lease_token, ran_unsettled=[ran.lease_token]),
    )

    assert recovered == Recovered(retried=(running.job_id, ran.job_id), released=(unstarted.job_id,))
    [lost] = list_job_attempts(connection, ran.job_id, scope=ANY)
    assert (lost.outcome, lost.error_code) == (Outcome.RETRYABLE, "job.outcome_lost")
    assert place_of(connection, ran.job_id) == ["job_ready"]
    assert list_job_attempts(connection, unstarted.job_id, scope=ANY) == []
    assert get_job(connection, unstarted.job_id, scope=ANY).attempt == 0
    assert [event.event_type for event in list_job_events(connection, unstarted.job_id, scope=ANY)] == [
        "ENQUEUED",
        "LEASED",
        "RELEASED",
    ]


def test_a_lost_outcome_of_the_last_attempt_is_dead_lettered(connection):
    job = a_leased_job(connection, max_attempts=1)

    recovered = settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, ran_unsettled=[job.lease_token]))

    assert recovered.dead_lettered == (job.job_id,)


def test_the_leases_of_other_workers_are_left_alone(connection):
    other = a_leased_job(connection, worker_id="worker-2")
    before = snapshot(connection)

    assert settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, running=other.lease_token)) == Recovered()
    assert snapshot(connection) == before


def test_a_dead_worker_is_settled_although_its_lease_lapsed(connection):
    job = lapsed_job(connection)

    assert settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, running=job.lease_token)).retried
    assert reap_lapsed_leases(connection) == Recovered()


def test_a_poison_pill_is_dead_lettered_when_its_crash_budget_is_spent(connection):
    a_definition(connection, max_attempts=10, crash_budget=3)
    job = a_leased_job(connection)
    outcomes = []
    for _ in range(3):
        recovered = settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, running=job.lease_token))
        outcomes.append(recovered.dead_lettered == (job.job_id,))
        if recovered.retried:
            make_due(connection, job.job_id)
            job = claim_one(connection)

    assert outcomes == [False, False, True]
    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status_reason, stored.attempt) == ("CRASH_BUDGET_SPENT", 3)


def test_a_requeue_begins_with_a_fresh_crash_budget(connection):
    a_definition(connection, max_attempts=10, crash_budget=2)
    job = a_leased_job(connection)
    death = WorkerDeath("worker-1", CRASH)
    for _ in range(2):
        settle_dead_worker(connection, replace(death, running=job.lease_token))
        make_due(connection, job.job_id)
        job = claim_one(connection) if place_of(connection, job.job_id) else job
    assert requeue_job(connection, job.job_id, scope=ANY) == 2

    again = claim_one(connection)

    assert settle_dead_worker(connection, replace(death, running=again.lease_token)).retried == (job.job_id,)


def test_other_failures_do_not_spend_the_crash_budget(connection):
    a_definition(connection, max_attempts=10, crash_budget=2)
    job = lapsed_job(connection)
    for _ in range(3):
        reap_lapsed_leases(connection)
        make_due(connection, job.job_id)
        job = claim_one(connection)
        age_lease(connection, job, seconds=61)

    assert settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, running=job.lease_token)).retried


@pytest.mark.parametrize("who", ["reaper", "keeper"])
def test_whoever_dead_letters_brings_the_hook_job(connection, who):
    a_definition(connection, "mail.send", has_dead_letter_hook=True, max_attempts=1)
    a_definition(connection, "mail.send.on_dead_letter")
    job = a_leased_job(connection, "mail.send")

    if who == "reaper":
        age_lease(connection, job, seconds=61)
        reap_lapsed_leases(connection)
    else:
        settle_dead_worker(connection, WorkerDeath("worker-1", CRASH, running=job.lease_token))

    hook = claim_one(connection, "mail.send.on_dead_letter")
    assert scalar(connection, "SELECT parent_job_id::text FROM runledger.jobs WHERE id = %s", hook.job_id) == job.job_id


def test_the_keeper_and_the_reaper_settle_one_lease_once(connection, connect, in_background):
    job = lapsed_job(connection)
    keeper = connect(autocommit=False)
    settle_dead_worker(keeper, WorkerDeath("worker-1", CRASH, running=job.lease_token))

    assert reap_lapsed_leases(connection) == Recovered()
    keeper.commit()
    assert reap_lapsed_leases(connection) == Recovered()
    assert count(connection, "job_attempts") == 1


def test_a_recovery_that_rolls_back_leaves_everything(connection, connect):
    lapsed_job(connection)
    before = snapshot(connection)
    reaper = connect(autocommit=False)

    reap_lapsed_leases(reaper)
    reaper.rollback()

    assert snapshot(connection) == before


def test_after_a_recovery_the_worker_that_was_only_slow_writes_nothing(connection):
    job = a_leased_job(connection)
    settle_dead_worker(connection, WorkerDeath("worker-1", CRASH))

    assert settle_jobs(connection, [succeeded(job)]) == set()
