"""Headers reach the worker by every way a job can be enqueued, and cost jobs without them nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from runledger import (
    InvalidRequest,
    JobCatalog,
    JobRequest,
    Middleware,
    ScheduleRequest,
    Scope,
    enqueue_job,
    enqueue_jobs,
    trigger_job_schedule,
    upsert_job_schedule,
    use_for_enqueues,
)
from runledger.core.failures import DeadLetter, DeadLetterReason, JobFailure, failure_of
from runledger.core.headers import decode_headers
from runledger.core.middleware import no_longer_for_enqueues
from runledger.core.results import failed_end
from runledger.postgres.claim import claim_jobs
from runledger.postgres.operations import requeue_job
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import continued, dead_lettered

Connection = psycopg.Connection[Any]
HEADERS = {"traceparent": "00-abc-def-01"}


class Stamp(Middleware):
    def __init__(self, name: str = "stamp") -> None:
        self.name = name
        self.batches: list[int] = []

    def on_enqueue_batch(self, requests: Any) -> Any:
        self.batches.append(len(requests))
        return super().on_enqueue_batch(requests)

    def on_enqueue(self, request: JobRequest) -> JobRequest:
        return replace(request, headers={**(request.headers or {}), self.name: "1"})


@pytest.fixture
def job_type(connection: Connection) -> str:
    catalog = JobCatalog()
    catalog.job("mail.send")(lambda context, payload: None)
    catalog.sync_definitions(connection)
    return "mail.send"


@pytest.fixture
def stored(connection: Connection) -> Callable[[], list[Any]]:
    def read() -> list[Any]:
        return [row[0] for row in connection.execute("SELECT headers FROM runledger.job_queue ORDER BY id")]

    return read


@pytest.fixture
def stamp() -> Any:
    made = Stamp()
    use_for_enqueues(made)
    yield made
    no_longer_for_enqueues(made)


def test_a_claimed_job_has_the_headers_of_its_enqueue(connection, job_type):
    enqueue_job(connection, JobRequest(job_type, headers=HEADERS))
    [job] = claim_jobs(connection, worker_id="w", job_types=[job_type], limit=1, lease_ttl_seconds=30)
    assert job.headers == '{"traceparent": "00-abc-def-01"}'


@pytest.mark.parametrize("count", [2, 1_000])
def test_batches_by_arrays_and_by_copy_carry_headers(connection, job_type, stored, count):
    requests = [JobRequest(job_type, headers={"n": str(n)} if n % 2 else None) for n in range(count)]
    with connection.transaction():
        enqueue_jobs(connection, requests)
    assert stored() == [{"n": str(n)} if n % 2 else None for n in range(count)]


def test_a_keyed_replay_keeps_the_first_headers(connection, job_type, stored):
    first = enqueue_job(connection, JobRequest(job_type, idempotency_key="k", headers={"trace": "1"}))
    second = enqueue_job(connection, JobRequest(job_type, idempotency_key="k", headers={"trace": "2"}))
    assert second.job_id == first.job_id
    assert not second.is_new
    assert stored() == [{"trace": "1"}]


def test_no_headers_are_null(connection, job_type, stored):
    enqueue_job(connection, JobRequest(job_type))
    enqueue_job(connection, JobRequest(job_type, headers={}))
    assert stored() == [None, None]


def test_middleware_of_the_process_sees_single_enqueues_and_batches_once(connection, job_type, stored, stamp):
    use_for_enqueues(stamp)  # a second time changes nothing
    enqueue_job(connection, JobRequest(job_type, headers=HEADERS))
    with connection.transaction():
        enqueue_jobs(connection, [JobRequest(job_type), JobRequest(job_type)])
    assert stored() == [{**HEADERS, "stamp": "1"}, {"stamp": "1"}, {"stamp": "1"}]
    assert stamp.batches == [1, 2]


def test_middleware_of_a_catalog_sees_the_requests_it_made_and_no_others(connection, stored, stamp):
    catalog = JobCatalog()
    catalog.job("mail.send")(lambda context, payload: None)
    mine = Stamp("mine")
    catalog.use(mine)
    catalog.use(stamp)  # used by the process too: called once
    catalog.sync_definitions(connection)
    with connection.transaction():
        enqueue_jobs(connection, [catalog.request("mail.send"), JobRequest("mail.send")])
    assert stored() == [{"stamp": "1", "mine": "1"}, {"stamp": "1"}]
    assert (mine.batches, stamp.batches) == ([1], [2])


def test_an_enqueue_that_middleware_refuses_leaves_nothing(connection, job_type, stored):
    class Refusing(Middleware):
        def on_enqueue(self, request: JobRequest) -> JobRequest:
            raise PermissionError("not now")

    refusing = Refusing()
    use_for_enqueues(refusing)
    try:
        with pytest.raises(PermissionError, match="not now"):
            enqueue_job(connection, JobRequest(job_type))
    finally:
        no_longer_for_enqueues(refusing)
    assert stored() == []


def test_a_middleware_that_loses_a_request_is_refused(connection, job_type, stored, stamp, monkeypatch):
    monkeypatch.setattr(stamp, "on_enqueue_batch", lambda requests: requests[1:])
    with pytest.raises(InvalidRequest, match="Stamp must answer each JobRequest"):
        enqueue_job(connection, JobRequest(job_type))
    assert stored() == []


def test_the_hook_job_of_a_dead_letter_keeps_the_headers(connection, stored):
    class Handler:
        job_type = "mail.send"

        def execute(self, context: Any, payload: Any) -> None: ...

        def on_dead_letter(self, context: Any, payload: Any, info: Any) -> None: ...

    catalog = JobCatalog()
    catalog.register(Handler())
    catalog.sync_definitions(connection)
    enqueue_job(connection, JobRequest("mail.send", headers=HEADERS))
    [job] = claim_jobs(connection, worker_id="w", job_types=["mail.send"], limit=1, lease_ttl_seconds=30)
    failure = failure_of(JobFailure.terminal("broken", "broken"))
    decision = DeadLetter(DeadLetterReason.FAILURE_KIND_NON_RETRYABLE)
    settle_jobs(connection, [failed_end(job.job_id, job.lease_token, failure, decision)])
    assert stored() == [HEADERS, HEADERS]


def test_a_fired_job_names_its_schedule_in_a_header(connection, job_type, stored):
    upsert_job_schedule(connection, ScheduleRequest("nightly", cron="0 3 * * *", job_type=job_type))
    trigger_job_schedule(connection, "nightly")
    assert stored() == [{"schedule": "nightly"}]


def test_a_job_keeps_its_headers_when_it_continues_and_when_it_is_requeued(connection, job_type):
    def claimed() -> Any:
        [job] = claim_jobs(connection, worker_id="w", job_types=[job_type], limit=1, lease_ttl_seconds=30)
        assert decode_headers(job.headers) == HEADERS
        return job

    job_id = enqueue_job(connection, JobRequest(job_type, headers=HEADERS)).job_id
    settle_jobs(connection, [continued(claimed())])
    settle_jobs(connection, [dead_lettered(claimed())])
    requeue_job(connection, job_id, scope=Scope.any())
    assert claimed().run_number == 3
