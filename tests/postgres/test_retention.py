"""Retention: what ended long ago goes with all that belongs to it, and nothing that lives does."""

from datetime import timedelta
from uuid import UUID

import pytest
from postgres.observing import count, scalar, snapshot

from runledger.core.errors import InvalidRequest, JobNotFound
from runledger.core.jobs import Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.postgres import retention as module
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.retention import Retention, count_prunable, prune_jobs, prune_workflow_runs
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import a_definition, a_job, a_leased_job, claim_one, dead_lettered, failed, succeeded

ANY = Scope.any()
AT_ONCE = Retention(timedelta(0))
EVERYTHING = Retention(timedelta(0), tuple(status for status in JobStatus if status.is_final))
LONG_AGO = "UPDATE runledger.job_queue SET finished_at = finished_at - interval '31 days'"


def a_finished_job(connection, **options):
    job = a_job(connection, **options)
    settle_jobs(connection, [succeeded(claim_one(connection))])
    return job


def test_a_finished_job_goes_with_all_that_belongs_to_it(connection):
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job, retry_seconds=0)])
    settle_jobs(connection, [dead_lettered(claim_one(connection))])
    requeue_job(connection, job.job_id, scope=ANY)
    settle_jobs(connection, [succeeded(claim_one(connection))])
    connection.execute(
        "INSERT INTO runledger.job_logs (job_id, run_number, level, message) VALUES (%s, 1, 'INFO', 'x')", [job.job_id]
    )

    pruned = prune_jobs(connection, AT_ONCE, scope=ANY)

    assert (pruned.jobs, pruned.attempts, pruned.events, pruned.logs, pruned.dead_letters) == (1, 3, 1, 1, 1)
    assert [count(connection, table) for table in ("job_queue", "job_attempts", "job_events", "job_logs")] == [0] * 4
    assert count(connection, "job_dead_letters") == 0


def test_only_what_is_old_enough_and_ended_so_goes(connection, monkeypatch):
    monkeypatch.setattr(module, "_SLACK", timedelta(days=60))  # the rows are aged, their ids cannot be
    old = a_finished_job(connection)
    connection.execute(LONG_AGO)
    a_finished_job(connection)
    settle_jobs(connection, [dead_lettered(a_leased_job(connection))])
    month = Retention(timedelta(days=30))

    assert count_prunable(connection, month, scope=ANY) == (1, 0)
    assert prune_jobs(connection, month, scope=ANY).jobs == 1
    assert scalar(connection, "SELECT count(*) FROM runledger.job_queue WHERE id = %s", old.job_id) == 0
    assert prune_jobs(connection, AT_ONCE, scope=ANY).jobs == 1
    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 1


def test_nothing_that_lives_goes(connection):
    a_job(connection)
    a_job(connection, delay=60)
    a_leased_job(connection, "leased")
    cancelled = a_leased_job(connection, "may.still.run")
    cancel_job(connection, cancelled.job_id, scope=ANY)
    before = snapshot(connection)

    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 0
    assert snapshot(connection) == before


@pytest.mark.parametrize(
    ("ttl", "forget_keys", "is_gone"),
    [
        (None, False, False),
        (None, True, True),
        (timedelta(days=1), False, False),
        (timedelta(days=1), True, False),
        (timedelta(microseconds=1), False, True),
    ],
)
def test_a_job_stays_while_its_key_answers(connection, ttl, forget_keys, is_gone):
    a_definition(connection)
    request = JobRequest("test.job", {}, idempotency_key="once", idempotency_ttl=ttl)
    first = enqueue_job(connection, request)
    settle_jobs(connection, [succeeded(claim_one(connection))])

    assert prune_jobs(connection, Retention(timedelta(0), forget_keys=forget_keys), scope=ANY).jobs == is_gone
    assert enqueue_job(connection, request).is_new is is_gone
    assert first.is_new


def test_batches_follow_the_ids_and_come_to_an_end(connection, monkeypatch):
    monkeypatch.setattr(module, "PRUNE_BATCH", 2)
    for number in range(7):
        if number == 3:
            a_job(connection, "other")
        else:
            a_finished_job(connection)

    batches, after = [], None
    for _ in range(10):
        batch = prune_jobs(connection, AT_ONCE, scope=ANY, after=after)
        batches.append(batch.jobs)
        after = batch.next_after
        if after is None:
            break

    assert batches == [2, 1, 2, 1]
    assert count(connection, "job_queue") == 1


def test_a_scope_and_a_type_keep_the_rest(connection):
    a_finished_job(connection, organization_id=UUID(int=7))
    a_finished_job(connection)

    assert prune_jobs(connection, AT_ONCE, scope=Scope.organization(UUID(int=8))).jobs == 0
    assert prune_jobs(connection, Retention(timedelta(0), job_type="other"), scope=ANY).jobs == 0
    assert prune_jobs(connection, AT_ONCE, scope=Scope.organization(UUID(int=7))).jobs == 1
    assert prune_jobs(connection, Retention(timedelta(0), job_type="test.job"), scope=ANY).jobs == 1


def test_a_job_that_is_being_requeued_is_passed_over_and_one_that_was_stays(connection, connect):
    job = a_leased_job(connection)
    settle_jobs(connection, [dead_lettered(job)])
    other = connect(autocommit=False)
    requeue_job(other, job.job_id, scope=ANY)

    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 0
    other.commit()
    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 0
    assert claim_one(connection).job_id == job.job_id


def test_a_requeue_that_waits_for_the_deletion_finds_nothing(connection, connect, in_background):
    job = a_leased_job(connection)
    settle_jobs(connection, [dead_lettered(job)])
    pruning = connect(autocommit=False)
    assert prune_jobs(pruning, EVERYTHING, scope=ANY).jobs == 1

    requeued = in_background(requeue_job, connect(), job.job_id, scope=ANY)
    pruning.commit()

    with pytest.raises(JobNotFound):
        requeued.result(10)


def test_an_enqueue_by_a_key_that_is_being_forgotten_makes_a_new_job(connection, connect, in_background):
    a_definition(connection)
    request = JobRequest("test.job", {}, idempotency_key="once")
    first = enqueue_job(connection, request)
    settle_jobs(connection, [succeeded(claim_one(connection))])
    pruning = connect(autocommit=False)
    assert prune_jobs(pruning, Retention(timedelta(0), forget_keys=True), scope=ANY).jobs == 1

    enqueued = in_background(enqueue_job, connect(), request)
    pruning.commit()

    again = enqueued.result(10)
    assert again.job_id == first.job_id or again.is_new


def a_run(connection, **options):
    builder = WorkflowDagBuilder("order").job("a", "test.job", {}).job("b", "test.job", {}).after_success("b", ["a"])
    with connection.transaction():
        return enqueue_workflow_run(connection, builder.build(), **options)


def settle_one(connection):
    with connection.transaction():
        settle_jobs(connection, [succeeded(claim_one(connection))])


def test_a_run_goes_as_a_whole_when_it_has_ended_and_not_before(connection):
    a_definition(connection)
    a_run(connection)
    settle_one(connection)
    assert prune_workflow_runs(connection, EVERYTHING, scope=ANY).workflow_runs == 0
    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 0
    settle_one(connection)

    assert prune_jobs(connection, EVERYTHING, scope=ANY).jobs == 0
    assert count_prunable(connection, AT_ONCE, scope=ANY) == (0, 1)
    pruned = prune_workflow_runs(connection, AT_ONCE, scope=ANY)

    assert (pruned.workflow_runs, pruned.jobs, pruned.attempts) == (1, 2, 2)
    tables = ("workflow_runs", "workflow_steps", "workflow_step_dependencies", "job_queue", "job_attempts")
    assert [count(connection, table) for table in tables] == [0] * 5


@pytest.mark.parametrize(
    "retention",
    [
        Retention(timedelta(seconds=-1)),
        Retention(timedelta(0), ()),
        Retention(timedelta(0), (JobStatus.PENDING,)),
    ],
)
def test_a_retention_that_means_nothing_is_refused(connection, retention):
    a_finished_job(connection)

    with pytest.raises(InvalidRequest):
        prune_jobs(connection, retention, scope=ANY)
    assert count(connection, "job_queue") == 1
