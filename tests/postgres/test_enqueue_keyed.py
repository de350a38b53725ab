"""Keyed enqueue: one key, one job; the same request answers with it, a different one learns where it differs."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from postgres.observing import count, scalar, snapshot, until_blocked

from runledger.core import errors
from runledger.core.errors import FieldDifference
from runledger.core.jobs import Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus
from runledger.database import Database
from runledger.postgres.definitions import set_definition_enabled
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.keys import RESOLVE_KEYS
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.reads import list_job_events
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_definition, claim_one, continued, dead_lettered, succeeded

ANY = Scope.any()
ORGANIZATION, OTHER = UUID(int=1), UUID(int=2)


def keyed(payload=None, *, key="order-7", **options):
    return JobRequest("test.job", {"order": 7} if payload is None else payload, idempotency_key=key, **options)


@pytest.fixture(autouse=True)
def _definition(connection):
    a_definition(connection)


def test_the_same_request_answers_with_the_same_job_and_writes_nothing(connection):
    first = enqueue_job(connection, keyed())
    before = snapshot(connection)

    again = enqueue_job(connection, keyed())

    assert (first.is_new, again.is_new) == (True, False)
    assert again.job_id == first.job_id
    assert snapshot(connection) == before
    assert len(list_job_events(connection, first.job_id, scope=ANY)) == 1


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_replay_answers_with_the_job_whatever_its_status(connection, status):
    job = enqueue_job(connection, keyed())
    if status is not JobStatus.PENDING:
        leased = claim_one(connection)
        if status is JobStatus.SUCCEEDED:
            settle_jobs(connection, [succeeded(leased)])
        elif status is JobStatus.DEAD_LETTERED:
            settle_jobs(connection, [dead_lettered(leased)])
        elif status is JobStatus.CANCELED:
            cancel_job(connection, job.job_id, scope=ANY)

    again = enqueue_job(connection, keyed())

    assert (again.job_id, again.is_new, again.status) == (job.job_id, False, status)


def test_a_replay_answers_with_the_current_run_number(connection):
    enqueue_job(connection, keyed())
    settle_jobs(connection, [continued(claim_one(connection))])

    assert enqueue_job(connection, keyed()).run_number == 2


def test_a_replay_succeeds_although_the_definition_was_disabled_since(connection):
    job = enqueue_job(connection, keyed())
    set_definition_enabled(connection, "test.job", is_enabled=False)

    assert enqueue_job(connection, keyed()).job_id == job.job_id
    with pytest.raises(errors.DefinitionNotFoundOrDisabled):
        enqueue_job(connection, keyed(key="new"))


def test_a_replay_succeeds_although_the_definition_is_gone(connection):
    job = enqueue_job(connection, keyed())
    connection.execute("DELETE FROM runledger.job_definitions")

    assert enqueue_job(connection, keyed()).job_id == job.job_id


def test_the_order_of_keys_and_the_spelling_of_numbers_make_no_difference(connection):
    job = enqueue_job(connection, keyed({"a": 1, "b": [1.5, 2]}))

    assert enqueue_job(connection, keyed({"b": [1.50, 2.0], "a": 1.0})).job_id == job.job_id


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"payload": {"order": 8}}, FieldDifference("payload", '{"order":7}', '{"order":8}')),
        ({"priority": 0}, FieldDifference("priority", "null", "0")),
        ({"max_attempts": 3}, FieldDifference("max_attempts", "null", "3")),
        ({"timeout_seconds": 300}, FieldDifference("timeout_seconds", "null", "300")),
        (
            {"next_run_at": datetime(2030, 1, 1, tzinfo=UTC)},
            FieldDifference("next_run_at", "null", '"2030-01-01T00:00:00.000000Z"'),
        ),
        ({"delay": 5}, FieldDifference("delay_seconds", "(absent)", "5")),
        ({"tags": ["a"]}, FieldDifference("tags", "(absent)", '["a"]')),
        ({"stage": "scheduled"}, FieldDifference("stage", '"queued"', '"scheduled"')),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_different_request_conflicts_and_says_where(connection, options, difference):
    enqueue_job(connection, keyed())
    before = snapshot(connection)

    with pytest.raises(errors.IdempotencyConflict) as conflict:
        enqueue_job(connection, keyed(**options))

    assert conflict.value.differences == (difference,)
    assert difference.field in str(conflict.value)
    assert "order" not in str(conflict.value).replace("order-7", "")
    assert snapshot(connection) == before


def test_what_happens_to_the_job_later_changes_nothing_of_its_request(connection):
    job = enqueue_job(connection, keyed())
    connection.execute("UPDATE runledger.job_queue SET priority = 99, max_attempts = 1")

    assert enqueue_job(connection, keyed()).job_id == job.job_id


def test_a_key_belongs_to_its_type_and_organization(connection):
    a_definition(connection, "other.job")
    requests = [
        keyed(),
        keyed(organization_id=ORGANIZATION),
        keyed(organization_id=OTHER),
        JobRequest("other.job", {"order": 7}, idempotency_key="order-7"),
    ]

    first = [enqueue_job(connection, request) for request in requests]
    again = [enqueue_job(connection, request) for request in requests]

    assert len({job.job_id for job in first}) == 4
    assert [job.job_id for job in again] == [job.job_id for job in first]
    with pytest.raises(errors.IdempotencyConflict):
        enqueue_job(connection, keyed({"other": 1}, organization_id=ORGANIZATION))


def test_without_a_key_every_request_is_a_new_job_and_leaves_no_snapshot(connection):
    assert len({enqueue_job(connection, JobRequest("test.job")).job_id for _ in range(3)}) == 3
    assert scalar(connection, "SELECT count(enqueue_request) + count(idempotency_key) FROM runledger.job_queue") == 0


def test_the_snapshot_says_what_was_asked_for(connection):
    enqueue_job(connection, keyed({"b": 1, "a": None}, priority=5))

    stored = json.loads(scalar(connection, "SELECT enqueue_request::text FROM runledger.job_queue"))
    assert stored == {
        "payload": {"a": None, "b": 1},
        "priority": 5,
        "max_attempts": None,
        "timeout_seconds": None,
        "next_run_at": None,
        "stage": "queued",
    }


def test_a_key_with_a_time_to_live_is_free_afterwards(connection):
    ttl = timedelta(hours=1)
    first = enqueue_job(connection, keyed(idempotency_ttl=ttl))
    assert enqueue_job(connection, keyed(idempotency_ttl=ttl)).job_id == first.job_id

    connection.execute("UPDATE runledger.job_queue SET idempotency_expires_at = clock_timestamp()")
    second = enqueue_job(connection, keyed({"order": 8}))

    assert second.is_new
    assert second.job_id != first.job_id
    assert not enqueue_job(connection, keyed({"order": 8})).is_new
    held = "SELECT idempotency_key FROM runledger.job_queue WHERE id = %s"
    assert scalar(connection, held, first.job_id) is None


def test_a_key_whose_time_ran_out_is_freed_for_a_whole_batch(connection, connect):
    caller = connect(autocommit=False)
    requests = [keyed(key=f"k{n}", idempotency_ttl=timedelta(hours=1)) for n in range(3)]
    first = enqueue_jobs(caller, requests)
    caller.commit()
    connection.execute(
        "UPDATE runledger.job_queue SET idempotency_expires_at = clock_timestamp() WHERE idempotency_key <> 'k1'"
    )

    second = enqueue_jobs(caller, requests)
    caller.commit()

    assert [job.is_new for job in second] == [True, False, True]
    assert second[1].job_id == first[1].job_id


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("is_held", [True, False])
def test_a_stricter_isolation_is_refused_with_nothing_written(connection, connect, level, is_held):
    if is_held:
        enqueue_job(connection, keyed())
    before = snapshot(connection)
    caller = connect(autocommit=False)
    caller.isolation_level = level

    for requests in ([keyed()], [JobRequest("test.job"), keyed()]):
        with pytest.raises(errors.UnsupportedIsolation) as refused:
            enqueue_jobs(caller, requests)
        caller.commit()

    assert refused.value.code == "job.enqueue_idempotency_unsupported_isolation"
    assert snapshot(connection) == before
    assert enqueue_job(caller, JobRequest("test.job")).is_new


def test_a_replay_that_waits_for_the_first_request_answers_with_its_job(connection, connect, in_background):
    first, second = connect(autocommit=False), connect()
    job = enqueue_job(first, keyed())
    waiting = in_background(enqueue_job, second, keyed())
    until_blocked(connection, second)

    first.commit()

    assert (waiting.result(10).job_id, waiting.result(10).is_new) == (job.job_id, False)


def test_a_request_that_waited_for_one_that_rolled_back_is_new(connection, connect, in_background):
    first, second = connect(autocommit=False), connect()
    enqueue_job(first, keyed())
    waiting = in_background(enqueue_job, second, keyed({"order": 8}))
    until_blocked(connection, second)

    first.rollback()

    assert waiting.result(10).is_new
    assert count(connection, "job_queue") == 1


def test_sixty_four_concurrent_requests_with_one_key_are_one_job(connection, database_url):
    database = Database(database_url, pool_size=16)

    def enqueue(_):
        with database.begin() as ledger:
            return enqueue_job(ledger, keyed())

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(enqueue, range(64)))
    database.close()

    assert len({answer.job_id for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    assert (count(connection, "job_queue"), count(connection, "job_ready")) == (1, 1)


def test_a_keyed_row_without_a_snapshot_is_refused_by_the_database(connection):
    with pytest.raises(psycopg.errors.CheckViolation, match="ck_job_queue_idempotency_enqueue_request"):
        connection.execute(
            "INSERT INTO runledger.job_queue (job_type, priority, max_attempts, timeout_seconds, idempotency_key)"
            " VALUES ('test.job', 0, 1, 1, 'k')"
        )


def test_a_legacy_row_without_a_snapshot_cannot_be_compared(connection):
    enqueue_job(connection, keyed())
    with connection.transaction(force_rollback=True):
        connection.execute("ALTER TABLE runledger.job_queue DROP CONSTRAINT ck_job_queue_idempotency_enqueue_request")
        connection.execute("UPDATE runledger.job_queue SET enqueue_request = NULL")

        with pytest.raises(errors.RequestSnapshotMissing):
            enqueue_job(connection, keyed())


def test_a_requeued_job_still_owns_its_key(connection):
    job = enqueue_job(connection, keyed())
    cancel_job(connection, job.job_id, scope=ANY)
    requeue_job(connection, job.job_id, scope=ANY)

    again = enqueue_job(connection, keyed())

    assert (again.job_id, again.run_number, again.status) == (job.job_id, 2, JobStatus.PENDING)


def test_a_key_is_looked_up_by_its_index_in_both_scopes(connection, connect):
    caller = connect(autocommit=False)
    enqueue_jobs(caller, [keyed(key=f"k{n}") for n in range(2_000)])
    caller.execute("ANALYZE runledger.job_queue")
    arrays = {
        "job_types": ["test.job"],
        "organization_ids": [None],
        "idempotency_keys": ["k7"],
        "active_keys": [None],
        "snapshots": ["{}"],
    }

    rows = caller.execute(f"EXPLAIN {RESOLVE_KEYS.text('runledger')}".encode(), arrays).fetchall()

    plan = "\n".join(row[0] for row in rows)
    assert "uq_job_queue_type_idempotency_org" in plan
    assert "uq_job_queue_type_idempotency_global" in plan
    assert "uq_job_queue_active_key_org" in plan
    assert "uq_job_queue_active_key_global" in plan
    assert "Seq Scan on job_queue" not in plan
