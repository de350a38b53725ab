"""Jobs in every situation, made in one line that reads as a sentence; for tests of Runledger and of what uses it.

Everything goes through the same functions as production. Only ``age_lease`` and ``make_due`` write past them, because
a test moves the row in time and never the clock.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import Double, Uuid, update

from runledger.core.definitions import DEFAULT_QUEUE, JobDefinition, RetryPolicy
from runledger.core.jobs import ClaimedJob, EnqueuedJob, Job, JsonValue
from runledger.core.requests import JobRequest
from runledger.core.results import Ended, Succeeded
from runledger.core.states import JobStatus, Outcome
from runledger.postgres.claim import claim_jobs
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.definitions import get_definitions, sync_definitions
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.expressions import CLOCK, ONE_SECOND, parameter
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_leases, job_scheduled

TEST_TYPE = "test.job"
TEST_WORKER = "worker-1"
TEST_TTL_SECONDS = 60.0

AnyJob: TypeAlias = EnqueuedJob | ClaimedJob | Job | UUID | str

AGE_LEASE = Statement(
    "age_lease",
    update(job_leases)
    .where(job_leases.c.job_id == parameter("job_id", Uuid))
    .values(
        {
            name: job_leases.c[name] - parameter("seconds", Double) * ONE_SECOND
            for name in ("leased_at", "lease_expires_at", "renewed_at")
        }
    )
    .returning(job_leases.c.lease_token),
)
MAKE_DUE = Statement(
    "make_due",
    update(job_scheduled).where(job_scheduled.c.job_id == parameter("job_id", Uuid)).values(next_run_at=CLOCK),
)


def a_definition(
    connection: AnyConnection,
    job_type: str = TEST_TYPE,
    *,
    max_attempts: int = 3,
    timeout_seconds: int = 300,
    priority: int = 0,
    queue: str = DEFAULT_QUEUE,
    is_enabled: bool = True,
    retry: RetryPolicy | None = None,
    crash_budget: int = 3,
    has_dead_letter_hook: bool = False,
    max_running: int | None = None,
    rate_limit: str | None = None,
) -> JobDefinition:
    """The definition is stored, replacing what was there."""
    definition = JobDefinition(
        job_type=job_type,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        priority=priority,
        queue=queue,
        is_enabled=is_enabled,
        retry=retry or RetryPolicy(jitter=False),
        crash_budget=crash_budget,
        has_dead_letter_hook=has_dead_letter_hook,
        max_running=max_running,
        rate_limit=rate_limit,
    )
    sync_definitions(connection, [definition])
    return definition


def a_job(
    connection: AnyConnection,
    job_type: str = TEST_TYPE,
    payload: JsonValue = None,
    *,
    organization_id: UUID | str | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    delay: timedelta | float | None = None,
    next_run_at: datetime | None = None,
    idempotency_key: str | None = None,
    active_key: str | None = None,
    expires_at: datetime | None = None,
    tags: Sequence[str] = (),
) -> EnqueuedJob:
    """The job is enqueued; a definition with our defaults is stored first when its type has none."""
    if job_type not in get_definitions(connection, [job_type]):
        a_definition(connection, job_type)
    request = JobRequest(
        job_type,
        payload,
        organization_id=organization_id,
        priority=priority,
        max_attempts=max_attempts,
        delay=delay,
        next_run_at=next_run_at,
        idempotency_key=idempotency_key,
        active_key=active_key,
        expires_at=expires_at,
        tags=tags,
    )
    return enqueue_job(connection, request)


def claim_one(
    connection: AnyConnection,
    job_type: str = TEST_TYPE,
    *,
    worker_id: str = TEST_WORKER,
    lease_ttl_seconds: float = TEST_TTL_SECONDS,
) -> ClaimedJob:
    """The first job in line of this type is leased. Raises AssertionError when none is due."""
    claimed = claim_jobs(
        connection, worker_id=worker_id, job_types=[job_type], limit=1, lease_ttl_seconds=lease_ttl_seconds
    )
    if not claimed:
        raise AssertionError(f"no job of type {job_type!r} is due")
    return claimed[0]


def a_leased_job(
    connection: AnyConnection,
    job_type: str = TEST_TYPE,
    payload: JsonValue = None,
    *,
    worker_id: str = TEST_WORKER,
    lease_ttl_seconds: float = TEST_TTL_SECONDS,
    max_attempts: int | None = None,
    organization_id: UUID | str | None = None,
) -> ClaimedJob:
    """A new job is enqueued and leased; it must be the first in line of its type, or AssertionError is raised."""
    job = a_job(connection, job_type, payload, max_attempts=max_attempts, organization_id=organization_id)
    leased = claim_one(connection, job_type, worker_id=worker_id, lease_ttl_seconds=lease_ttl_seconds)
    if leased.job_id != str(job.job_id):
        raise AssertionError(f"another job of type {job_type!r} was first in line")
    return leased


def age_lease(connection: AnyConnection, job: AnyJob, *, seconds: float) -> None:
    """The job's lease lies ``seconds`` further in the past. Raises AssertionError when it has none."""
    if not borrow(connection).fetch(AGE_LEASE, {"job_id": identity(job), "seconds": seconds}):
        raise AssertionError("the job is not leased")


def make_due(connection: AnyConnection, job: AnyJob) -> None:
    """A job that waits for its time is due now and ready to be claimed; a ready one stays as it is."""
    borrow(connection).fetch(MAKE_DUE, {"job_id": identity(job)})
    promote_due_jobs(connection)


def succeeded(job: ClaimedJob, output: JsonValue = None) -> Succeeded:
    """The handler returned ``output``."""
    text = None if output is None else json.dumps(output)
    return Succeeded(job.job_id, job.lease_token, text, workflow_run_id=job.workflow_run_id)


def failed(
    job: ClaimedJob,
    *,
    code: str = "test.failed",
    message: str = "it failed",
    outcome: Outcome = Outcome.RETRYABLE,
    retry_seconds: float = 60.0,
) -> Ended:
    """The attempt failed, and the job waits ``retry_seconds`` for the next one."""
    return Ended(
        job.job_id,
        job.lease_token,
        outcome,
        status_reason=outcome.value,
        retry_seconds=retry_seconds,
        error_code=code,
        error_message=message,
        workflow_run_id=job.workflow_run_id,
    )


def dead_lettered(
    job: ClaimedJob,
    *,
    code: str = "test.failed",
    message: str = "it failed for good",
    outcome: Outcome = Outcome.TERMINAL,
    reason: str = "FAILURE_KIND_NON_RETRYABLE",
) -> Ended:
    """The attempt failed for good, and the job goes to the dead letters."""
    ended = failed(job, code=code, message=message, outcome=outcome)
    return replace(ended, final_status=JobStatus.DEAD_LETTERED, status_reason=reason, retry_seconds=None)


def snoozed(job: ClaimedJob, *, seconds: float = 60.0) -> Ended:
    """The handler asked for a later time; the attempt does not count."""
    return Ended(job.job_id, job.lease_token, Outcome.SNOOZED, retry_seconds=seconds, is_refunded=True)


def continued(job: ClaimedJob, *, seconds: float = 0.0) -> Ended:
    """The run succeeded, and the handler asked for a next one."""
    reason = "HANDLER_CONTINUATION"
    return Ended(
        job.job_id, job.lease_token, Outcome.SUCCEEDED, status_reason=reason, retry_seconds=seconds, is_continued=True
    )


def released(job: ClaimedJob, *, reason: str = "never started") -> Ended:
    """The job was claimed, never started, and is given back."""
    return Ended(
        job.job_id, job.lease_token, Outcome.RELEASED, status_reason=reason, is_refunded=True, is_unstarted=True
    )


def expired(job: ClaimedJob) -> Ended:
    """The job's own expiry passed before its handler began."""
    return Ended(
        job.job_id,
        job.lease_token,
        Outcome.CANCELED,
        final_status=JobStatus.CANCELED,
        status_reason="EXPIRED",
        is_refunded=True,
        is_unstarted=True,
        workflow_run_id=job.workflow_run_id,
    )


def identity(job: AnyJob) -> str:
    """The id of a job in any form, as text."""
    return str(job) if isinstance(job, UUID | str) else str(job.job_id)
