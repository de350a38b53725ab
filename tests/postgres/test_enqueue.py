"""Enqueue: what one call stores, what it refuses, and whose transaction decides."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from postgres.observing import count, place_of, scalar, snapshot

from runledger.core.errors import DefinitionNotFoundOrDisabled, RunledgerError, ValidationError
from runledger.core.jobs import EnqueuedJob, Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStage, JobStatus
from runledger.core.workflows import WorkflowRunRequest
from runledger.postgres.definitions import set_definition_enabled
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.reads import get_job, list_job_events
from runledger.testing.factories import a_definition, a_job

ANY = Scope.any()
ORGANIZATION = UUID("0190a5a4-0000-7000-8000-000000000001")


def test_an_enqueued_job_is_pending_with_the_defaults_of_its_definition(connection):
    a_definition(connection, "mail.send", max_attempts=5, timeout_seconds=30, priority=7)

    enqueued = enqueue_job(connection, JobRequest("mail.send"))

    job = get_job(connection, enqueued.job_id, scope=ANY)
    assert enqueued == EnqueuedJob(job.job_id, True, JobStatus.PENDING, 1)
    assert (job.status, job.stage, job.run_number, job.attempt) == (JobStatus.PENDING, JobStage.QUEUED, 1, 0)
    assert (job.max_attempts, job.timeout_seconds, job.priority) == (5, 30, 7)
    assert (job.payload, job.organization_id, job.idempotency_key, job.tags) == ({}, None, None, ())
    assert job.next_run_at == job.created_at
    assert [event.event_type for event in list_job_events(connection, job.job_id, scope=ANY)] == ["ENQUEUED"]


def test_defaults_are_frozen_when_the_job_is_enqueued(connection):
    a_definition(connection, "mail.send", max_attempts=5)
    enqueued = enqueue_job(connection, JobRequest("mail.send"))

    a_definition(connection, "mail.send", max_attempts=9, timeout_seconds=1, priority=3)

    job = get_job(connection, enqueued.job_id, scope=ANY)
    assert (job.max_attempts, job.timeout_seconds, job.priority) == (5, 300, 0)


def test_a_request_without_options_is_stored_like_one_that_says_its_defaults(connection):
    a_definition(connection, "mail.send", max_attempts=5, timeout_seconds=30, priority=7)

    plain = enqueue_job(connection, JobRequest("mail.send", {"n": 1}))
    explicit = enqueue_job(
        connection, JobRequest("mail.send", {"n": 1}, max_attempts=5, timeout_seconds=30, priority=7)
    )

    columns = "to_jsonb(t) - 'id' - 'job_id' - 'created_at' - 'next_run_at'"
    for table, key in (("job_queue", "id"), ("job_ready", "job_id")):
        rows = [
            scalar(connection, f"SELECT {columns} FROM runledger.{table} t WHERE {key} = '{one.job_id}'")
            for one in (plain, explicit)
        ]
        assert rows[0] == rows[1]
        assert rows[0] is not None


def test_every_option_of_a_request_is_stored(connection):
    a_definition(connection, "mail.send")
    later = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)

    enqueued = enqueue_job(
        connection,
        JobRequest(
            "mail.send",
            {"to": "ada", "ä": [1, 1.5, None, "\u2028"]},
            organization_id=ORGANIZATION,
            priority=-3,
            max_attempts=1,
            timeout_seconds=9,
            next_run_at=later,
            expires_at=later + timedelta(days=1),
            tags=["b", "a", 'quoted "," \\ {}', "NULL", "b"],
        ),
    )

    job = get_job(connection, enqueued.job_id, scope=ANY)
    assert job.payload == {"to": "ada", "ä": [1, 1.5, None, "\u2028"]}
    assert (job.organization_id, job.priority, job.max_attempts, job.timeout_seconds) == (ORGANIZATION, -3, 1, 9)
    assert (job.next_run_at, job.expires_at) == (later, later + timedelta(days=1))
    assert job.tags == ("NULL", "a", "b", 'quoted "," \\ {}')
    assert (job.status, job.stage) == (JobStatus.PENDING, JobStage.SCHEDULED)


def test_a_delay_counts_on_the_clock_of_the_database(connection):
    job = get_job(connection, a_job(connection, delay=timedelta(hours=2)).job_id, scope=ANY)

    assert job.next_run_at - job.created_at == timedelta(hours=2)
    assert place_of(connection, job.job_id) == ["job_scheduled"]


@pytest.mark.parametrize("when", [{"delay": 0}, {"next_run_at": datetime(2001, 1, 1, tzinfo=UTC)}, {}])
def test_a_job_due_already_is_ready(connection, when):
    assert place_of(connection, a_job(connection, **when).job_id) == ["job_ready"]


@pytest.mark.parametrize(
    ("wrong", "said", "cure"),
    [
        ("mail.send", "must be a JobRequest, not str", "JobRequest("),
        (JobRequest(print), "job_type must be text, not builtin_function", "catalog.request("),  # type: ignore[arg-type]
        (WorkflowRunRequest("w", ()), "must be a JobRequest, not WorkflowRunRequest", "JobRequest("),
    ],
)
def test_what_is_no_request_is_refused_with_what_to_write(connection, wrong: Any, said: str, cure: str) -> None:
    for enqueue in (enqueue_job, lambda connection, request: enqueue_jobs(connection, [request])):
        with pytest.raises(ValidationError, match=said) as refused:
            enqueue(connection, wrong)
        assert cure in str(refused.value.hint)


@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "disabled"])
def test_a_type_without_an_enabled_definition_is_refused(connection, is_missing):
    if not is_missing:
        a_definition(connection, "mail.send")
        set_definition_enabled(connection, "mail.send", is_enabled=False)
    before = snapshot(connection)

    with pytest.raises(DefinitionNotFoundOrDisabled) as refused:
        enqueue_job(connection, JobRequest("mail.send"))

    assert refused.value.code == "job.definition_not_found_or_disabled"
    for cure in ("start a worker", "`runledger definition sync`", "`manage.py migrate`", "`flask runledger definition"):
        assert cure in str(refused.value.hint)
    assert snapshot(connection) == before


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: JobRequest("mail.send", {"a": float("nan")}),
        lambda: JobRequest("mail.send", {"a": "\0"}),
        lambda: JobRequest(" mail.send"),
        lambda: JobRequest("mail.send", priority=2**31),
        lambda: JobRequest("mail.send", idempotency_key=""),
        lambda: JobRequest("mail.send", tags=["x" * 65]),
        lambda: JobRequest("mail.send", delay=1, next_run_at=datetime.now(UTC)),
    ],
)
def test_a_bad_request_is_refused_before_any_sql(connect, request_of):
    closed = connect()
    closed.close()

    with pytest.raises(RunledgerError) as refused:
        enqueue_job(closed, request_of())

    assert refused.value.category == "validation"


def test_a_rollback_leaves_nothing(connection, connect):
    a_definition(connection, "mail.send")
    before = snapshot(connection)
    caller = connect(autocommit=False)

    enqueue_job(caller, JobRequest("mail.send", idempotency_key="k"))
    enqueue_job(caller, JobRequest("mail.send", delay=60))
    caller.rollback()

    assert snapshot(connection) == before
    assert enqueue_job(connection, JobRequest("mail.send", {"other": 1}, idempotency_key="k")).is_new


def test_nothing_is_seen_before_the_commit(connection, connect):
    a_definition(connection, "mail.send")
    caller = connect(autocommit=False)
    enqueue_job(caller, JobRequest("mail.send"))

    assert count(connection, "job_queue") == 0
    caller.commit()
    assert count(connection, "job_queue") == 1


def test_jobs_enqueued_later_have_larger_ids(connection):
    jobs = [a_job(connection).job_id for _ in range(50)]

    assert jobs == sorted(jobs)
    assert {job.version for job in jobs} == {7}


def listening(connection, connect):
    listener = connect()
    listener.execute("LISTEN runledger_wake")
    return listener


def heard(connection, listener):
    """What was sent until now: notifications arrive in the order of their commits, so the marker comes last."""
    connection.execute("SELECT pg_notify('runledger_wake', 'the end')")
    notes = []
    for note in listener.notifies(timeout=30):
        if note.payload == "the end":
            return notes
        notes.append((note.channel, note.payload))
    raise AssertionError("the marker did not arrive")


def test_an_enqueue_wakes_a_host_that_says_it_is_idle_with_its_commit(connection, connect):
    a_definition(connection)
    listener, caller = listening(connection, connect), connect(autocommit=False)
    connection.execute("INSERT INTO runledger.job_listeners VALUES ('host', clock_timestamp() + interval '1 minute')")

    enqueue_job(caller, JobRequest("test.job"))
    assert heard(connection, listener) == []
    caller.commit()

    assert heard(connection, listener) == [("runledger_wake", "runledger")]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_batch_wakes_once_and_a_busy_system_never(connection, connect, size):
    a_definition(connection)
    listener, caller = listening(connection, connect), connect(autocommit=False)
    requests = [JobRequest("test.job")] * size

    enqueue_jobs(caller, requests)
    caller.commit()
    assert heard(connection, listener) == []
    connection.execute("INSERT INTO runledger.job_listeners VALUES ('host', clock_timestamp() - interval '1 second')")
    enqueue_jobs(caller, requests)
    caller.commit()
    assert heard(connection, listener) == []
    connection.execute("UPDATE runledger.job_listeners SET listening_until = clock_timestamp() + interval '1 minute'")
    enqueue_jobs(caller, requests)
    caller.commit()
    assert heard(connection, listener) == [("runledger_wake", "runledger")]


def test_the_payload_of_a_request_changed_afterwards_changes_nothing(connection):
    payload = {"order": 1}
    job = a_job(connection, payload=payload)

    payload["order"] = 2

    assert get_job(connection, job.job_id, scope=ANY).payload == {"order": 1}


@pytest.mark.parametrize("text", ["'; DROP TABLE job_queue; --", "%(job_id)s %s %%", "{}", "\\", "$1 :name"])
def test_sql_text_is_inert_everywhere(connection, text):
    a_definition(connection, text)

    job = enqueue_job(connection, JobRequest(text, {text: text}, idempotency_key=text, tags=[text]))

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.job_type, stored.payload, stored.idempotency_key, stored.tags) == (text, {text: text}, text, (text,))
    assert scalar(connection, "SELECT count(*) FROM runledger.job_ready WHERE job_type = %s", text) == 1
