"""Cancel, requeue, reschedule: by whom, on what, and what is refused."""

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from postgres.observing import count, place_of, scalar, snapshot, until_blocked

from runledger.core import errors
from runledger.core.jobs import Scope
from runledger.core.states import JobStage, JobStatus, Outcome
from runledger.postgres.cancellation import quiesce_canceled
from runledger.postgres.leases import save_progress
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.reads import (
    get_job,
    list_dead_letters,
    list_job_attempts,
    list_job_events,
    list_job_logs,
    list_jobs,
)
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_job,
    a_leased_job,
    age_lease,
    claim_one,
    dead_lettered,
    failed,
    make_due,
    succeeded,
)

ANY = Scope.any()
ADA, BOB = UUID(int=1), UUID(int=2)
LATER = datetime(2031, 1, 1, tzinfo=UTC)


def let_it_quiesce(connection):
    connection.execute("UPDATE runledger.job_queue SET quiesces_at = clock_timestamp()")


def job_in(connection, status):
    """A job that has arrived in ``status`` by way of one attempt, or waits."""
    if status is JobStatus.PENDING:
        return str(a_job(connection).job_id)
    job = a_leased_job(connection)
    if status is JobStatus.SUCCEEDED:
        settle_jobs(connection, [succeeded(job)])
    elif status is JobStatus.DEAD_LETTERED:
        settle_jobs(connection, [dead_lettered(job)])
    elif status is JobStatus.CANCELED:
        cancel_job(connection, job.job_id, scope=ANY)
        let_it_quiesce(connection)
    return job.job_id


@pytest.mark.parametrize("delay", [None, 60], ids=["ready", "scheduled"])
def test_a_waiting_job_is_cancelled_at_once(connection, delay):
    job = a_job(connection, delay=delay)

    cancel_job(connection, job.job_id, scope=ANY, reason="not needed", actor="ada")

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.stage) == (JobStatus.CANCELED, JobStage.COMPLETED)
    assert (stored.status_reason, stored.attempt) == ("not needed", 0)
    assert place_of(connection, job.job_id) == []
    event = list_job_events(connection, job.job_id, scope=ANY)[-1]
    assert (event.event_type, event.actor, event.reason, event.attempt) == ("CANCELED", "ada", "not needed", None)
    assert event.detail == {}


def test_a_running_job_loses_its_lease_and_keeps_what_it_reached(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, done=1, total=2, checkpoint='"half"')

    cancel_job(connection, job.job_id, scope=ANY)

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.status_reason, stored.attempt) == (JobStatus.CANCELED, "CANCELED", 1)
    assert (stored.progress_done, stored.progress_total, stored.checkpoint) == (1, 2, "half")
    [attempt] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert (attempt.outcome, attempt.error_code) == (Outcome.CANCELED, "job.canceled")
    assert settle_jobs(connection, [succeeded(job)]) == set()
    with pytest.raises(errors.LeaseLost):
        save_progress(connection, job.job_id, job.lease_token, done=2)


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.DEAD_LETTERED, JobStatus.CANCELED])
def test_a_job_that_has_ended_cannot_be_cancelled(connection, status):
    job_id = job_in(connection, status)
    before = snapshot(connection)

    with pytest.raises(errors.InvalidStateTransition) as refused:
        cancel_job(connection, job_id, scope=ANY)

    assert refused.value.code == "job.invalid_state_transition"
    assert snapshot(connection) == before


def test_a_cancel_that_waited_for_a_settle_is_refused_or_cancels_the_retry(connection, connect, in_background):
    first, second = a_leased_job(connection), a_leased_job(connection)
    worker, person = connect(autocommit=False), connect()
    settle_jobs(worker, [succeeded(first), failed(second)])
    cancelling = in_background(cancel_job, person, second.job_id, scope=ANY)
    until_blocked(connection, person)
    worker.commit()
    cancelling.result(10)

    with pytest.raises(errors.InvalidStateTransition):
        cancel_job(person, first.job_id, scope=ANY)

    assert get_job(connection, second.job_id, scope=ANY).status is JobStatus.CANCELED
    assert place_of(connection, second.job_id) == []


def test_a_cancel_that_waited_for_a_promotion_finds_the_job(connection, connect, in_background):
    job = a_job(connection, delay=60)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp()")
    keeper, person = connect(autocommit=False), connect()
    promote_due_jobs(keeper)
    cancelling = in_background(cancel_job, person, job.job_id, scope=ANY)
    until_blocked(connection, person)

    keeper.commit()
    cancelling.result(10)

    assert get_job(connection, job.job_id, scope=ANY).status is JobStatus.CANCELED
    assert place_of(connection, job.job_id) == []


def test_of_two_cancels_one_is_refused(connection, connect, in_background):
    job = a_job(connection)
    first, second = connect(autocommit=False), connect()
    cancel_job(first, job.job_id, scope=ANY)
    cancelling = in_background(cancel_job, second, job.job_id, scope=ANY)
    until_blocked(connection, second)

    first.commit()

    with pytest.raises(errors.InvalidStateTransition):
        cancelling.result(10)


def test_a_requeued_dead_letter_starts_its_next_run_afresh(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, done=1, total=2, checkpoint='"old"')
    settle_jobs(connection, [dead_lettered(first)])

    assert requeue_job(connection, first.job_id, scope=ANY, reason="fixed", actor="ada") == 2

    stored = get_job(connection, first.job_id, scope=ANY)
    assert (stored.status, stored.run_number, stored.attempt) == (JobStatus.PENDING, 2, 0)
    assert (stored.progress_done, stored.checkpoint, stored.finished_at) == (None, None, None)
    assert (stored.status_reason, stored.last_error_code, stored.last_error_message) == (None, None, None)
    event = list_job_events(connection, first.job_id, scope=ANY)[-1]
    assert (event.event_type, event.run_number, event.actor, event.reason) == ("REQUEUED", 1, "ada", "fixed")
    assert event.detail == {"next_run_number": 2}
    again = claim_one(connection)
    assert (again.run_number, again.attempt, again.checkpoint) == (2, 1, None)
    assert again.lease_token > first.lease_token


def test_a_requeue_keeps_the_dead_letter_and_the_attempts(connection):
    for expected in (1, 2):
        job = claim_one(connection) if expected > 1 else a_leased_job(connection)
        settle_jobs(connection, [dead_lettered(job)])
        assert requeue_job(connection, job.job_id, scope=ANY) == expected + 1

    assert [letter.run_number for letter in list_dead_letters(connection, scope=ANY)] == [2, 1]
    attempts = list_job_attempts(connection, job.job_id, scope=ANY)
    assert [(one.run_number, one.attempt) for one in attempts] == [(1, 1), (2, 1)]


def test_a_requeue_forgets_the_expiry_that_cancelled_the_job(connection):
    job = a_job(connection, expires_at=datetime(2001, 1, 1, tzinfo=UTC))
    cancel_job(connection, job.job_id, scope=ANY)

    requeue_job(connection, job.job_id, scope=ANY)

    assert claim_one(connection).is_expired is False


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.LEASED, JobStatus.SUCCEEDED])
def test_only_a_dead_letter_or_a_cancelled_job_is_requeued(connection, status):
    job_id = job_in(connection, status)
    before = snapshot(connection)

    with pytest.raises(errors.InvalidStateTransition):
        requeue_job(connection, job_id, scope=ANY)

    assert snapshot(connection) == before


def test_a_requeue_waits_until_the_cancelled_attempt_can_no_longer_run(connection):
    job = a_leased_job(connection)
    cancel_job(connection, job.job_id, scope=ANY)
    before = snapshot(connection)

    with pytest.raises(errors.CancellationNotQuiesced) as refused:
        requeue_job(connection, job.job_id, scope=ANY)

    assert refused.value.code == "job.cancellation_not_quiesced"
    [seconds] = re.findall(r"once it has ended, in (\d+) s at most", str(refused.value))
    assert 0 < int(seconds) <= 60
    assert snapshot(connection) == before
    let_it_quiesce(connection)
    assert requeue_job(connection, job.job_id, scope=ANY) == 2


def test_the_end_of_a_cancelled_attempt_is_news_once_and_waits_for_nobody(connection, connect):
    job = a_leased_job(connection)
    cancel_job(connection, job.job_id, scope=ANY)
    holder = connect(autocommit=False)
    holder.execute("SELECT FROM runledger.job_queue FOR UPDATE")

    assert quiesce_canceled(connection, [job.job_id], [job.lease_token]) == []
    holder.rollback()
    assert quiesce_canceled(connection, [job.job_id], [job.lease_token + 1]) == []
    assert quiesce_canceled(connection, [job.job_id], [job.lease_token]) == [job.job_id]
    assert quiesce_canceled(connection, [job.job_id], [job.lease_token]) == []
    assert requeue_job(connection, job.job_id, scope=ANY) == 2


def test_a_job_of_a_workflow_is_not_requeued_alone(connection):
    job_id = job_in(connection, JobStatus.DEAD_LETTERED)
    connection.execute("UPDATE runledger.job_queue SET workflow_run_id = gen_random_uuid()")
    before = snapshot(connection)

    with pytest.raises(errors.WorkflowRequeueNotSupported):
        requeue_job(connection, job_id, scope=ANY)

    assert snapshot(connection) == before


def test_of_two_requeues_one_is_refused(connection, connect, in_background):
    job_id = job_in(connection, JobStatus.DEAD_LETTERED)
    first, second = connect(autocommit=False), connect()
    requeue_job(first, job_id, scope=ANY)
    requeueing = in_background(requeue_job, second, job_id, scope=ANY)
    until_blocked(connection, second)

    first.commit()

    with pytest.raises(errors.InvalidStateTransition):
        requeueing.result(10)
    assert count(connection, "job_ready") == 1


def test_a_rescheduled_job_waits_for_its_new_time(connection):
    job = a_job(connection)

    reschedule_job(connection, job.job_id, next_run_at=LATER, scope=ANY, reason="quiet hours", actor="ada")

    assert get_job(connection, job.job_id, scope=ANY).next_run_at == LATER
    assert place_of(connection, job.job_id) == ["job_scheduled"]
    event = list_job_events(connection, job.job_id, scope=ANY)[-1]
    assert (event.event_type, event.actor, event.reason) == ("RESCHEDULED", "ada", "quiet hours")
    assert set(event.detail) == {"from", "to"}
    reschedule_job(connection, job.job_id, next_run_at=datetime(2001, 1, 1, tzinfo=UTC), scope=ANY)
    assert place_of(connection, job.job_id) == ["job_ready"]


def test_a_rescheduled_retry_keeps_its_attempt(connection):
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job)])

    reschedule_job(connection, job.job_id, next_run_at=datetime(2001, 1, 1, tzinfo=UTC), scope=ANY)

    assert claim_one(connection).attempt == 2


@pytest.mark.parametrize("status", [one for one in JobStatus if one is not JobStatus.PENDING])
def test_only_a_waiting_job_is_rescheduled(connection, status):
    job_id = job_in(connection, status)
    before = snapshot(connection)

    with pytest.raises(errors.InvalidStateTransition):
        reschedule_job(connection, job_id, next_run_at=LATER, scope=ANY)

    assert snapshot(connection) == before


@pytest.mark.parametrize("bad", [LATER.replace(tzinfo=None), "tomorrow", None, datetime(1, 1, 1, tzinfo=UTC)])
def test_a_job_is_not_rescheduled_to_a_time_that_is_none(connect, bad):
    closed = connect()
    closed.close()

    with pytest.raises(errors.InvalidRequest):
        reschedule_job(closed, uuid4(), next_run_at=bad, scope=ANY)


OPERATIONS = [
    cancel_job,
    requeue_job,
    lambda connection, job_id, scope: reschedule_job(connection, job_id, next_run_at=LATER, scope=scope),
    get_job,
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=["cancel", "requeue", "reschedule", "get"])
@pytest.mark.parametrize(
    ("owner", "scope"),
    [
        (ADA, Scope.organization(BOB)),
        (ADA, Scope.global_only()),
        (None, Scope.organization(ADA)),
        (None, Scope.organization(UUID(int=0))),
    ],
)
def test_a_job_outside_the_scope_does_not_exist(connection, operation, owner, scope):
    job = a_job(connection, organization_id=owner)
    before = snapshot(connection)

    with pytest.raises(errors.JobNotFound) as missing:
        operation(connection, job.job_id, scope=scope)

    assert missing.value.code == "job.not_found"
    assert snapshot(connection) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=["cancel", "requeue", "reschedule", "get"])
@pytest.mark.parametrize("job_id", [uuid4(), "no uuid", ""])
def test_an_unknown_job_does_not_exist(connection, operation, job_id):
    with pytest.raises(errors.JobNotFound):
        operation(connection, job_id, scope=ANY)


@pytest.mark.parametrize(
    ("owner", "scope"), [(ADA, Scope.organization(ADA)), (None, Scope.global_only()), (ADA, ANY), (None, ANY)]
)
def test_every_scope_reaches_its_own_jobs(connection, owner, scope):
    job = a_leased_job(connection, organization_id=owner)
    cancel_job(connection, job.job_id, scope=scope)
    let_it_quiesce(connection)
    requeue_job(connection, job.job_id, scope=scope)
    reschedule_job(connection, job.job_id, next_run_at=LATER, scope=scope)

    assert [one.job_id for one in list_jobs(connection, scope=scope)] == [UUID(job.job_id)]
    assert len(list_job_attempts(connection, job.job_id, scope=scope)) == 1
    assert len(list_job_events(connection, job.job_id, scope=scope)) == 5


def test_lists_show_nothing_of_another_scope(connection):
    job = a_leased_job(connection, organization_id=ADA)
    settle_jobs(connection, [dead_lettered(job)])

    for scope in (Scope.organization(BOB), Scope.global_only()):
        assert list_jobs(connection, scope=scope) == []
        assert list_job_attempts(connection, job.job_id, scope=scope) == []
        assert list_job_events(connection, job.job_id, scope=scope) == []
        assert list_job_logs(connection, job.job_id, scope=scope) == []
        assert list_dead_letters(connection, scope=scope) == []


def test_a_long_reason_is_cut_and_cleaned(connection):
    job = a_job(connection)

    cancel_job(connection, job.job_id, scope=ANY, reason="x\0" * 5000, actor="a" * 500)

    stored = get_job(connection, job.job_id, scope=ANY)
    assert len(stored.status_reason.encode()) <= 2048
    assert len(scalar(connection, "SELECT actor FROM runledger.job_events")) <= 200


def test_a_cancelled_retry_counts_its_attempts(connection):
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job)])

    cancel_job(connection, job.job_id, scope=ANY)

    assert get_job(connection, job.job_id, scope=ANY).attempt == 1
    assert list_job_events(connection, job.job_id, scope=ANY)[-1].attempt == 1


def test_a_lapsed_lease_that_was_cancelled_can_be_requeued_at_once(connection):
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=61)
    cancel_job(connection, job.job_id, scope=ANY)

    assert requeue_job(connection, job.job_id, scope=ANY) == 2
    make_due(connection, job.job_id)
    assert claim_one(connection).run_number == 2
