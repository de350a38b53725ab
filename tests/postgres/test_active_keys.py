"""One live job for each active key: who gets it, who is answered with its holder, and when it is free again."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import psycopg
import pytest
from postgres.conftest import Connect
from postgres.observing import Connection, count, scalar, snapshot, until_blocked

from runledger.core import errors
from runledger.core.jobs import EnqueuedJob, Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus
from runledger.postgres.claim import claim_jobs
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.reads import get_job
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_definition, claim_one, dead_lettered, failed, succeeded

ANY = Scope.any()
TYPE = "test.job"
KEY = "user-7"
CALLERS, TURNS = 4, 25


def keyed(payload: Any = None, *, key: str | None = KEY, job_type: str = TYPE, **options: Any) -> JobRequest:
    return JobRequest(job_type, payload, active_key=key, **options)


def key_of(connection: Connection, job: EnqueuedJob) -> str | None:
    return get_job(connection, job.job_id, scope=ANY).active_key


def claimed(connection: Connection) -> list[str]:
    return [one.job_id for one in claim_jobs(connection, worker_id="w", job_types=[TYPE], limit=9, lease_ttl_seconds=9)]


@pytest.fixture(autouse=True)
def _definition(connection: Connection) -> None:
    a_definition(connection, TYPE)


def test_a_live_job_is_the_answer_whatever_was_asked(connection: Connection) -> None:
    first = enqueue_job(connection, keyed({"n": 1}))
    before = snapshot(connection)

    second = enqueue_job(connection, keyed({"n": 2}, priority=9))

    assert second == EnqueuedJob(first.job_id, False, JobStatus.PENDING, 1)
    assert snapshot(connection) == before
    assert key_of(connection, first) == KEY


def _wait_later(connection: Connection) -> JobStatus:
    connection.execute("UPDATE runledger.job_definitions SET retry_base_seconds = 3600")
    settle_jobs(connection, [failed(claim_one(connection), retry_seconds=3_600)])
    return JobStatus.PENDING


def _run(connection: Connection) -> JobStatus:
    claim_one(connection)
    return JobStatus.LEASED


@pytest.mark.parametrize("bring", [_wait_later, _run])
def test_a_job_that_runs_or_waits_for_its_retry_is_live(
    connection: Connection, bring: Callable[[Connection], JobStatus]
) -> None:
    first = enqueue_job(connection, keyed())
    status = bring(connection)

    again = enqueue_job(connection, keyed())

    assert (again.job_id, again.is_new, again.status) == (first.job_id, False, status)


def _succeed(connection: Connection, job: EnqueuedJob) -> None:
    settle_jobs(connection, [succeeded(claim_one(connection))])


def _fail(connection: Connection, job: EnqueuedJob) -> None:
    settle_jobs(connection, [dead_lettered(claim_one(connection))])


def _cancel(connection: Connection, job: EnqueuedJob) -> None:
    cancel_job(connection, job.job_id, scope=ANY)


@pytest.mark.parametrize("end", [_succeed, _fail, _cancel])
@pytest.mark.parametrize("count_of_requests", [1, 3])
def test_the_key_is_free_once_the_job_has_ended(
    connection: Connection, end: Callable[[Connection, EnqueuedJob], None], count_of_requests: int
) -> None:
    first = enqueue_job(connection, keyed())
    end(connection, first)
    assert key_of(connection, first) == KEY

    with connection.transaction():
        answers = enqueue_jobs(connection, [keyed()] * count_of_requests)

    assert [one.is_new for one in answers] == [True] + [False] * (count_of_requests - 1)
    assert {one.job_id for one in answers}.isdisjoint({first.job_id})
    assert (key_of(connection, first), key_of(connection, answers[0])) == (None, KEY)


def test_keys_are_counted_by_type_and_organization(connection: Connection) -> None:
    a_definition(connection, "other.job")
    requests = [
        keyed(),
        keyed(key="user-8"),
        keyed(job_type="other.job"),
        keyed(organization_id=UUID(int=1)),
        keyed(organization_id=UUID(int=2)),
    ]

    jobs = [enqueue_job(connection, one) for one in requests]

    assert [one.is_new for one in jobs] == [True] * 5
    assert [enqueue_job(connection, one).job_id for one in requests] == [one.job_id for one in jobs]


def test_a_batch_mixes_keys_of_both_kinds_and_none(connection: Connection) -> None:
    live = enqueue_job(connection, keyed(key="live"))
    batch = [
        keyed(key="live"),
        keyed(key="new"),
        JobRequest(TYPE),
        keyed(key="new"),
        JobRequest(TYPE, idempotency_key="event-1"),
        JobRequest(TYPE, idempotency_key="event-1"),
    ]

    with connection.transaction():
        answers = enqueue_jobs(connection, batch)

    assert [one.is_new for one in answers] == [False, True, True, False, True, False]
    assert answers[0].job_id == live.job_id
    assert answers[1].job_id == answers[3].job_id
    assert answers[4].job_id == answers[5].job_id
    assert (count(connection, "job_queue"), count(connection, "job_ready")) == (4, 4)


def test_a_long_batch_holds_its_keys_too(connection: Connection) -> None:
    batch = [keyed(key=f"user-{number % 1_000}") for number in range(2_000)]

    with connection.transaction():
        answers = enqueue_jobs(connection, batch)

    assert [one.is_new for one in answers] == [True] * 1_000 + [False] * 1_000
    assert count(connection, "job_queue") == 1_000


def test_a_refused_batch_leaves_no_key_behind(connection: Connection) -> None:
    enqueue_job(connection, JobRequest(TYPE, {"n": 1}, idempotency_key="event-1"))

    with connection.transaction():
        with pytest.raises(errors.IdempotencyConflict):
            enqueue_jobs(connection, [keyed(), JobRequest(TYPE, {"n": 2}, idempotency_key="event-1")])
        connection.execute("SELECT 1")

    assert enqueue_job(connection, keyed()).is_new


def test_a_job_that_was_rolled_back_never_had_the_key(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        enqueue_job(connection, keyed())

    assert enqueue_job(connection, keyed()).is_new


def test_a_requeued_job_has_its_key_again_unless_another_took_it(connection: Connection) -> None:
    first = enqueue_job(connection, keyed())
    cancel_job(connection, first.job_id, scope=ANY)
    requeue_job(connection, first.job_id, scope=ANY)
    assert enqueue_job(connection, keyed()).job_id == first.job_id
    cancel_job(connection, first.job_id, scope=ANY)
    second = enqueue_job(connection, keyed())

    requeue_job(connection, first.job_id, scope=ANY)

    assert enqueue_job(connection, keyed()).job_id == second.job_id


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"idempotency_key": "event-1"}, errors.InvalidRequest),
        ({"key": " "}, errors.InvalidIdentifier),
        ({"key": "x" * 2_000}, errors.InvalidIdentifier),
        ({"key": 7}, errors.InvalidIdentifier),
    ],
)
def test_a_wrong_key_is_refused_before_anything_is_written(
    connection: Connection, options: dict[str, Any], error: type[errors.RunledgerError]
) -> None:
    with pytest.raises(error):
        enqueue_job(connection, keyed(**options))
    assert count(connection, "job_queue") == 0


def test_other_isolation_levels_cannot_see_the_holder(connect: Connect, connection: Connection) -> None:
    caller = connect(autocommit=False)
    caller.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with pytest.raises(errors.UnsupportedIsolation):
        enqueue_job(caller, keyed())


def test_a_disabled_type_answers_with_its_live_job_and_takes_no_new_one(connection: Connection) -> None:
    first = enqueue_job(connection, keyed())
    connection.execute("UPDATE runledger.job_definitions SET is_enabled = false")

    assert enqueue_job(connection, keyed()).job_id == first.job_id
    with pytest.raises(errors.DefinitionNotFoundOrDisabled):
        enqueue_job(connection, keyed(key="another"))


def test_the_second_of_two_callers_waits_for_the_first(
    connection: Connection, connect: Connect, in_background: Callable[..., "Future[EnqueuedJob]"]
) -> None:
    caller = connect()
    with connection.transaction():
        first = enqueue_job(connection, keyed())
        second = in_background(enqueue_job, caller, keyed())
        until_blocked(connect(), caller)

    assert second.result().job_id == first.job_id
    assert count(connection, "job_queue") == 1


def test_a_job_that_ends_at_that_moment_gives_its_key_away(
    connection: Connection, connect: Connect, in_background: Callable[..., "Future[EnqueuedJob]"]
) -> None:
    job = enqueue_job(connection, keyed())
    caller, operator = connect(autocommit=False), connect()

    with operator.transaction():
        cancel_job(operator, job.job_id, scope=ANY)
        answer = in_background(enqueue_job, caller, keyed())
        until_blocked(connection, caller)

    assert answer.result().is_new
    assert answer.result().job_id != job.job_id


def test_never_are_two_jobs_of_a_key_live(
    connect: Connect, connection: Connection, in_background: Callable[..., "Future[None]"]
) -> None:
    """Callers and a worker race; the database alone decides."""
    new: list[UUID] = []
    lives: list[int] = []
    is_over = threading.Event()

    def call(caller: Connection) -> None:
        for _ in range(TURNS):
            job = enqueue_job(caller, keyed())
            if job.is_new:
                new.append(job.job_id)

    def work(worker: Connection) -> None:
        while not is_over.is_set():
            for one in claim_jobs(worker, worker_id="w", job_types=[TYPE], limit=5, lease_ttl_seconds=60):
                live = scalar(worker, "SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL")
                lives.append(live)
                settle_jobs(worker, [succeeded(one)])

    worker = in_background(work, connect())
    calls = [in_background(call, connect()) for _ in range(CALLERS)]
    try:
        for one in calls:
            one.result()
    finally:
        is_over.set()
    worker.result()

    assert set(lives) == {1}
    assert len(new) == len(set(new)) == count(connection, "job_queue")


def test_batches_that_name_their_keys_in_other_orders_do_not_wait_in_a_circle(
    connect: Connect, in_background: Callable[..., "Future[list[EnqueuedJob]]"]
) -> None:
    batch = [keyed(key=f"user-{number}") for number in range(500)]

    def enqueue(caller: Connection, requests: list[JobRequest]) -> list[EnqueuedJob]:
        with caller.transaction():
            return enqueue_jobs(caller, requests)

    for _ in range(5):
        one = in_background(enqueue, connect(), batch)
        other = in_background(enqueue, connect(), batch[::-1])

        assert [job.job_id for job in one.result()] == [job.job_id for job in other.result()[::-1]]


def test_a_refusal_leaves_the_key_where_it_was(connection: Connection) -> None:
    first = enqueue_job(connection, keyed())
    cancel_job(connection, first.job_id, scope=ANY)
    connection.execute("UPDATE runledger.job_definitions SET is_enabled = false")

    with pytest.raises(errors.DefinitionNotFoundOrDisabled):
        enqueue_job(connection, keyed())

    assert key_of(connection, first) == KEY
