"""What people and programs read: jobs, attempts, timeline, logs, dead letters, queue figures.

Every read names its scope, goes through the views, and pages by key. Optional filters are parameters that may be
NULL; the planner sees the values and folds them away.
"""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Integer, Text, Uuid, and_, func, or_, select, tuple_

from runledger.core import errors
from runledger.core.jobs import Attempt, DeadLetter, Job, JobEvent, JobLog, Scope
from runledger.core.states import JobEventType, JobStage, JobStatus, LogLevel, Outcome
from runledger.postgres import tables
from runledger.postgres.columns import Columns, decoded, decoded_json, decoded_moment, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import as_microseconds, as_text, constant, parameter
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import (
    job_attempts,
    job_dead_letters,
    job_logs,
    job_queue,
    job_timeline,
    jobs,
)

LARGEST_PAGE = 1_000


def _tags(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


def in_scope(organization_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a row of this organization lies in the scope that ``scoped`` gives as parameters."""
    kind = parameter("scope_kind", Text)
    return or_(
        kind == constant("any"),
        and_(kind == constant("global"), organization_id.is_(None)),
        and_(kind == constant("organization"), organization_id == parameter("scope_organization_id", Uuid)),
    )


def _matches(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The filter ``name``, or everything when it is NULL."""
    return or_(parameter(name, Text).is_(None), as_text(column) == parameter(name, Text))


_job = jobs.c
_JOB: Columns = (
    (as_text(_job.id), UUID),
    (_job.job_type, same),
    (as_text(_job.organization_id), decoded_uuid),
    (as_text(_job.status), JobStatus),
    (_job.stage, JobStage),
    (_job.priority, same),
    (_job.run_number, same),
    (_job.attempt, same),
    (_job.max_attempts, same),
    (_job.timeout_seconds, same),
    (as_text(_job.payload), decoded_json),
    (as_text(_job.output), decoded_json),
    (as_text(_job.checkpoint), decoded_json),
    (_job.progress_done, same),
    (_job.progress_total, same),
    (as_text(func.to_jsonb(_job.tags)), _tags),
    (_job.idempotency_key, same),
    (as_text(_job.workflow_run_id), decoded_uuid),
    (as_microseconds(_job.created_at), decoded_moment),
    (as_microseconds(_job.next_run_at), decoded_moment),
    (as_microseconds(_job.expires_at), decoded_moment),
    (as_microseconds(_job.leased_at), decoded_moment),
    (as_microseconds(_job.lease_expires_at), decoded_moment),
    (_job.worker_id, same),
    (as_microseconds(_job.finished_at), decoded_moment),
    (_job.status_reason, same),
    (_job.last_error_code, same),
    (_job.last_error_message, same),
)
SELECT_JOB = Statement(
    "select_job",
    select(*selected(_JOB)).where(_job.id == parameter("job_id", Uuid)).where(in_scope(_job.organization_id)),
)
LIST_JOBS = Statement(
    "list_jobs",
    select(*selected(_JOB))
    .where(in_scope(_job.organization_id))
    .where(or_(parameter("job_type", Text).is_(None), _job.job_type == parameter("job_type", Text)))
    .where(_matches(_job.status, "status"))
    .where(or_(parameter("before", Uuid).is_(None), _job.id < parameter("before", Uuid)))
    .order_by(_job.id.desc())
    .limit(parameter("limit", Integer)),
)

_attempt = job_attempts.c
_ATTEMPT: Columns = (
    (as_text(_attempt.job_id), UUID),
    (_attempt.run_number, same),
    (_attempt.attempt, same),
    (_attempt.lease_token, same),
    (as_text(_attempt.outcome), Outcome),
    (_attempt.worker_id, same),
    (as_microseconds(_attempt.leased_at), decoded_moment),
    (as_microseconds(_attempt.started_at), decoded_moment),
    (as_microseconds(_attempt.finished_at), decoded_moment),
    (_attempt.error_code, same),
    (_attempt.error_message, same),
    (_attempt.traceback, same),
    (as_microseconds(_attempt.retry_at), decoded_moment),
    (_attempt.exit_signal, same),
    (_attempt.cpu_ms, same),
    (_attempt.max_rss_kb, same),
)
LIST_ATTEMPTS = Statement(
    "list_job_attempts",
    select(*selected(_ATTEMPT))
    .select_from(job_attempts.join(job_queue, job_queue.c.id == _attempt.job_id))
    .where(_attempt.job_id == parameter("job_id", Uuid))
    .where(in_scope(job_queue.c.organization_id))
    .order_by(_attempt.run_number, _attempt.lease_token)
    .limit(parameter("limit", Integer)),
)

_event = job_timeline.c
_EVENT: Columns = (
    (as_text(_event.job_id), UUID),
    (as_text(_event.event_type), JobEventType),
    (_event.run_number, same),
    (_event.attempt, same),
    (as_microseconds(_event.occurred_at), decoded_moment),
    (_event.actor, same),
    (_event.reason, same),
    (as_text(_event.detail), decoded_json),
)
LIST_EVENTS = Statement(
    "list_job_events",
    select(*selected(_EVENT))
    .select_from(job_timeline.join(job_queue, job_queue.c.id == _event.job_id))
    .where(_event.job_id == parameter("job_id", Uuid))
    .where(in_scope(job_queue.c.organization_id))
    .order_by(_event.occurred_at, _event.position)
    .limit(parameter("limit", Integer)),
)

_log = job_logs.c
_LOG: Columns = (
    (_log.id, same),
    (as_text(_log.job_id), UUID),
    (_log.run_number, same),
    (_log.attempt, same),
    (as_text(_log.level), LogLevel),
    (_log.message, same),
    (as_text(_log.fields), decoded_json),
    (as_microseconds(_log.occurred_at), decoded_moment),
)
LIST_LOGS = Statement(
    "list_job_logs",
    select(*selected(_LOG))
    .select_from(job_logs.join(job_queue, job_queue.c.id == _log.job_id))
    .where(_log.job_id == parameter("job_id", Uuid))
    .where(_log.id > parameter("after", BigInteger))
    .where(in_scope(job_queue.c.organization_id))
    .order_by(_log.id)
    .limit(parameter("limit", Integer)),
)

_dead = job_dead_letters.c
_DEAD_LETTER: Columns = (
    (as_text(_dead.job_id), UUID),
    (_dead.job_type, same),
    (as_text(_dead.organization_id), decoded_uuid),
    (_dead.run_number, same),
    (_dead.attempt, same),
    (_dead.error_code, same),
    (_dead.error_message, same),
    (as_text(_dead.payload_snapshot), decoded_json),
    (as_text(_dead.checkpoint_snapshot), decoded_json),
    (as_microseconds(_dead.failed_at), decoded_moment),
)
LIST_DEAD_LETTERS = Statement(
    "list_dead_letters",
    select(*selected(_DEAD_LETTER))
    .where(in_scope(_dead.organization_id))
    .where(or_(parameter("job_type", Text).is_(None), _dead.job_type == parameter("job_type", Text)))
    .where(
        or_(
            parameter("before", tables.Timestamp).is_(None),
            tuple_(_dead.failed_at, _dead.job_id, _dead.run_number)
            < tuple_(
                parameter("before", tables.Timestamp),
                parameter("before_job_id", Uuid),
                parameter("before_run_number", Integer),
            ),
        )
    )
    .order_by(_dead.failed_at.desc(), _dead.job_id.desc(), _dead.run_number.desc())
    .limit(parameter("limit", Integer)),
)


def get_job(connection: AnyConnection, job_id: UUID | str, *, scope: Scope) -> Job:
    """The job as it is now. Raises JobNotFound when it does not exist in ``scope``."""
    rows = borrow(connection).fetch(SELECT_JOB, scoped(scope) | {"job_id": job_identity(job_id)})
    if not rows:
        raise errors.JobNotFound("no such job in this scope")
    return Job(*decoded(_JOB, rows[0]))


def list_jobs(
    connection: AnyConnection,
    *,
    scope: Scope,
    job_type: str | None = None,
    status: JobStatus | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> list[Job]:
    """Jobs, the newest first; pass the last ``job_id`` of a page as ``before`` to get the next one."""
    parameters = scoped(scope) | {
        "job_type": job_type,
        "status": None if status is None else JobStatus(status).value,
        "before": None if before is None else job_identity(before),
        "limit": check_page(limit),
    }
    return [Job(*decoded(_JOB, row)) for row in borrow(connection).fetch(LIST_JOBS, parameters)]


def list_job_attempts(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, limit: int = LARGEST_PAGE
) -> list[Attempt]:
    """The ended attempts of a job in order; an open one is its lease, shown by ``get_job``."""
    rows = borrow(connection).fetch(LIST_ATTEMPTS, _of_job(job_id, scope, limit))
    return [Attempt(*decoded(_ATTEMPT, row)) for row in rows]


def list_job_events(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, limit: int = LARGEST_PAGE
) -> list[JobEvent]:
    """The timeline of a job: what its record and attempts say and what was stored beside them, in order."""
    rows = borrow(connection).fetch(LIST_EVENTS, _of_job(job_id, scope, limit))
    return [JobEvent(*decoded(_EVENT, row)) for row in rows]


def list_job_logs(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, after: int = 0, limit: int = 100
) -> list[JobLog]:
    """What the handler wrote down, in order; pass the last ``log_id`` of a page as ``after`` to get the next one."""
    rows = borrow(connection).fetch(LIST_LOGS, _of_job(job_id, scope, limit) | {"after": after})
    return [JobLog(*decoded(_LOG, row)) for row in rows]


def list_dead_letters(
    connection: AnyConnection,
    *,
    scope: Scope,
    job_type: str | None = None,
    before: DeadLetter | None = None,
    limit: int = 100,
) -> list[DeadLetter]:
    """Dead letters, the latest first, also of jobs that were requeued since; pass the last one of a page as ``before``
    to get the next one."""
    parameters = scoped(scope) | {
        "job_type": job_type,
        "before": before and before.failed_at,
        "before_job_id": before and str(before.job_id),
        "before_run_number": before and before.run_number,
        "limit": check_page(limit),
    }
    rows = borrow(connection).fetch(LIST_DEAD_LETTERS, parameters)
    return [DeadLetter(*decoded(_DEAD_LETTER, row)) for row in rows]


def scoped(scope: Scope) -> Parameters:
    """The parameters of ``in_scope``."""
    return {
        "scope_kind": scope.kind.value,
        "scope_organization_id": None if scope.organization_id is None else str(scope.organization_id),
    }


def _of_job(job_id: UUID | str, scope: Scope, limit: int) -> Parameters:
    return scoped(scope) | {"job_id": job_identity(job_id), "limit": check_page(limit)}


def check_page(limit: int) -> int:
    """The size of a page, 1 to 1,000 rows. Raises InvalidPagination."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise errors.InvalidPagination(f"limit must be from 1 to {LARGEST_PAGE}")
    return limit


def job_identity(job_id: UUID | str) -> str:
    """The id as text. Raises JobNotFound when it is none, as for any other id that does not exist."""
    try:
        return str(UUID(str(job_id)))
    except ValueError:
        raise errors.JobNotFound("no such job: the id is not a UUID") from None
