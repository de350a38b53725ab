"""Enqueue in bulk: order, all or nothing, and the index of the first bad request."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from postgres.observing import count, place_of, scalar, snapshot

from runledger.core import errors
from runledger.core.jobs import Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus
from runledger.postgres.definitions import set_definition_enabled
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.reads import get_job
from runledger.testing.factories import a_definition, claim_one

ANY = Scope.any()
SIZES = [2, 300, 1000, 1100]


@pytest.fixture
def caller(connection, connect) -> psycopg.Connection:
    """A connection with transactions, and the definition of ``test.job``."""
    a_definition(connection)
    return connect(autocommit=False)


def payloads(connection):
    rows = connection.execute("SELECT payload FROM runledger.job_queue ORDER BY id").fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize("size", SIZES)
def test_answers_and_ids_stand_in_the_order_of_the_requests(connection, caller, size):
    answers = enqueue_jobs(caller, [JobRequest("test.job", {"n": n}) for n in range(size)])
    caller.commit()

    assert payloads(connection) == [{"n": n} for n in range(size)]
    assert [answer.job_id for answer in answers] == sorted(answer.job_id for answer in answers)
    assert {(answer.is_new, answer.status, answer.run_number) for answer in answers} == {(True, JobStatus.PENDING, 1)}
    first = get_job(connection, answers[0].job_id, scope=ANY)
    assert first.payload == {"n": 0}
    assert claim_one(connection).job_id == str(answers[0].job_id)


@pytest.mark.parametrize("padding", [0, 1000], ids=["one statement", "copy"])
def test_every_way_to_enqueue_stores_the_same(connection, caller, padding):
    a_definition(connection, "mail.send", max_attempts=5, timeout_seconds=30, priority=7)
    later = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    requests = [
        JobRequest("mail.send"),
        JobRequest("mail.send", {"tab": "\t", "line": "\n\r", "slash": "\\N \\. \\", "é": "\U0001f600"}),
        JobRequest("test.job", [1, None, "x"], organization_id="0190a5a4-0000-7000-8000-000000000001", priority=-1),
        JobRequest("test.job", max_attempts=2, timeout_seconds=3, next_run_at=later, expires_at=later),
        JobRequest("test.job", delay=timedelta(hours=1), tags=["b", 'a "quoted", \\ {x}', "NULL"]),
        JobRequest("test.job", next_run_at=datetime(2001, 1, 1, tzinfo=UTC)),
    ]
    many = enqueue_jobs(caller, [*requests, *[JobRequest("test.job")] * padding])[: len(requests)]
    single = [enqueue_job(caller, request) for request in requests]
    caller.commit()

    for one, other in zip(many, single, strict=True):
        left, right = (facts(connection, job.job_id) for job in (one, other))
        assert left == right


def facts(connection, job_id):
    volatile = ("id", "created_at")
    record = scalar(connection, "SELECT to_jsonb(j) FROM runledger.jobs j WHERE id = %s", job_id)
    if record["next_run_at"] == record["created_at"]:
        del record["next_run_at"]
    elif record["job_type"] == "test.job" and record["tags"]:
        hour = "SELECT next_run_at - created_at = interval '1 hour' FROM runledger.jobs WHERE id = %s"
        record["next_run_at"] = scalar(connection, hour, job_id)
    return {name: value for name, value in record.items() if name not in volatile}, place_of(connection, job_id)


def test_no_requests_are_no_jobs(connect):
    closed = connect()
    closed.close()

    assert enqueue_jobs(closed, []) == []


def test_more_than_one_chunk_keeps_the_order(connection, caller):
    keyed = [JobRequest("test.job", {"n": n}, idempotency_key=f"k{n}") for n in range(5_001)]

    answers = enqueue_jobs(caller, keyed)
    caller.commit()

    assert payloads(connection) == [{"n": n} for n in range(5_001)]
    assert len({answer.job_id for answer in answers}) == 5_001


def test_duplicates_inside_a_batch_behave_as_in_separate_calls(connection, caller):
    answers = enqueue_jobs(
        caller,
        [
            JobRequest("test.job", {"a": 1, "b": 2}, idempotency_key="k"),
            JobRequest("test.job", idempotency_key="other"),
            JobRequest("test.job", {"b": 2, "a": 1.0}, idempotency_key="k"),
        ],
    )
    caller.commit()

    assert [answer.is_new for answer in answers] == [True, True, False]
    assert answers[0].job_id == answers[2].job_id
    assert count(connection, "job_queue") == 2
    assert count(connection, "job_ready") == 2


def bad_batches():
    good = JobRequest("test.job")
    yield "invalid", [good, JobRequest("test.job", priority=2**40), JobRequest(" ")], errors.InvalidRequest, 1
    yield "missing", [good, good, JobRequest("nobody.knows")], errors.DefinitionNotFoundOrDisabled, 2
    yield "disabled", [good, JobRequest("is.disabled"), good], errors.DefinitionNotFoundOrDisabled, 1
    taken = JobRequest("test.job", {"other": 1}, idempotency_key="taken")
    yield "conflict", [good, JobRequest("test.job", idempotency_key="new"), taken], errors.IdempotencyConflict, 2
    pair = [JobRequest("test.job", {"n": n}, idempotency_key="twice") for n in range(2)]
    yield "conflict inside", [good, *pair], errors.IdempotencyConflict, 2
    yield "two bad", [good, taken, JobRequest("nobody.knows")], errors.IdempotencyConflict, 1
    many = [good] * 1500
    yield "copy missing", [*many, JobRequest("nobody.knows"), good], errors.DefinitionNotFoundOrDisabled, 1500
    yield "copy none known", [JobRequest("nobody.knows")] * 1500, errors.DefinitionNotFoundOrDisabled, 0
    yield "copy invalid", [*many, JobRequest("test.job", {"nul": "\0"}), *many], errors.InvalidPayload, 1500
    yield "copy no type", [*many, JobRequest("\0"), *many], errors.InvalidIdentifier, 1500
    yield "copy no text", [*many, JobRequest(["test.job"])], errors.InvalidIdentifier, 1500
    keyed = [JobRequest("test.job", idempotency_key=f"k{n}") for n in range(5_100)]
    yield "second chunk", [*keyed, taken], errors.IdempotencyConflict, 5_100


@pytest.mark.parametrize(
    ("requests", "error", "index"), [pytest.param(*rest, id=name) for name, *rest in bad_batches()]
)
def test_a_bad_batch_stores_nothing_and_names_the_first_bad_request(connection, caller, requests, error, index):
    a_definition(connection, "is.disabled")
    set_definition_enabled(connection, "is.disabled", is_enabled=False)
    enqueue_job(connection, JobRequest("test.job", idempotency_key="taken"))
    before = snapshot(connection)

    with pytest.raises(error, match=rf"requests\[{index}\]"):
        enqueue_jobs(caller, requests)

    caller.commit()  # the caller may catch the error and go on: the batch must have left nothing behind
    assert snapshot(connection) == before


def test_a_batch_on_a_connection_in_autocommit_is_refused(connection):
    a_definition(connection)
    before = snapshot(connection)

    with pytest.raises(errors.TransactionRequired) as refused:
        enqueue_jobs(connection, [JobRequest("test.job")] * 2)

    assert refused.value.code == "db.transaction_required"
    assert snapshot(connection) == before
    with connection.transaction():
        assert len(enqueue_jobs(connection, [JobRequest("test.job")] * 2)) == 2


def test_one_request_is_a_batch_that_works_in_autocommit(connection):
    a_definition(connection)

    [answer] = enqueue_jobs(connection, [JobRequest("test.job", organization_id=UUID(int=1))])

    assert answer.is_new


def test_a_rollback_of_a_copied_batch_leaves_nothing(connection, caller):
    before = snapshot(connection)

    enqueue_jobs(caller, [JobRequest("test.job")] * 1000)
    caller.rollback()

    assert snapshot(connection) == before


def test_a_payload_that_asks_the_callers_own_connection_does_not_wait_for_itself(connection, caller):
    @dataclass
    class Order:
        number: int

        def __post_init__(self):
            caller.execute("SELECT 1")

    answers = enqueue_jobs(caller, [JobRequest("test.job", Order(number)) for number in range(1_000)])
    caller.commit()

    assert len(answers) == count(connection, "job_queue") == 1_000


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_requests_may_come_from_a_generator(connection, caller, size):
    answers = enqueue_jobs(caller, (JobRequest("test.job", {"n": n}) for n in range(size)))
    caller.commit()

    assert len(answers) == count(connection, "job_queue") == size


def test_a_connection_in_pipeline_mode_is_refused(connection, caller):
    with caller.pipeline(), pytest.raises(errors.InvalidConfiguration, match="pipeline"):
        enqueue_job(caller, JobRequest("test.job"))
    caller.commit()

    assert count(connection, "job_queue") == 0
