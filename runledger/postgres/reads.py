"""What people and programs read: jobs, attempts, timeline, logs, dead letters, queue figures.

Every read names its scope, goes through the views, and pages by key. Optional filters are parameters that may be
NULL; the planner sees the values and folds them away.
"""

import json
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Text, Uuid, func, or_, select, tuple_

from runledger.core import errors
from runledger.core.filters import JobFilter
from runledger.core.jobs import Attempt, DeadLetter, Job, JobEvent, JobLog, JobPage, Scope
from runledger.core.limits import check_time
from runledger.core.states import JobEventType, JobStage, JobStatus, LogLevel, Outcome
from runledger.postgres import tables
from runledger.postgres.columns import Columns, decoded, decoded_json, decoded_moment, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ONE, as_microseconds, as_text, parameter
from runledger.postgres.job_walks import SOURCES, page_of, source_of, walk_parameters
from runledger.postgres.scopes import in_scope as in_scope
from runledger.postgres.scopes import scoped as scoped
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
    (_job.active_key, same),
)
SELECT_JOB = Statement(
    "select_job",
    select(*selected(_JOB)).where(_job.id == parameter("job_id", Uuid)).where(in_scope(_job.organization_id)),
)
_PAGES = [page_of(source, *selected(_JOB), from_=jobs, job_id=_job.id) for _, source in SOURCES]
LIST_JOBS = Statement("list_jobs", _PAGES[0])
LIST_JOBS_OF_TYPE = Statement("list_jobs_of_type", _PAGES[1])
LIST_JOBS_OF_ORGANIZATION = Statement("list_jobs_of_organization", _PAGES[2])
LIST_WAITING_JOBS = Statement("list_jobs_waiting", _PAGES[3])
LIST_LEASED_JOBS = Statement("list_jobs_leased", _PAGES[4])
LIST_DEAD_LETTERED_JOBS = Statement("list_jobs_dead_lettered", _PAGES[5])
LIST_CANCELED_JOBS = Statement("list_jobs_canceled", _PAGES[6])
_LIST_OF = {
    "": LIST_JOBS,
    "_of_type": LIST_JOBS_OF_TYPE,
    "_of_organization": LIST_JOBS_OF_ORGANIZATION,
    "_waiting": LIST_WAITING_JOBS,
    "_leased": LIST_LEASED_JOBS,
    "_dead_lettered": LIST_DEAD_LETTERED_JOBS,
    "_canceled": LIST_CANCELED_JOBS,
}

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
    .where(_attempt.lease_token > parameter("after", BigInteger))
    .where(in_scope(job_queue.c.organization_id))
    .order_by(_attempt.lease_token)
    .limit(parameter("limit", Integer)),
)

LAST_TRACEBACK = Statement(
    "last_traceback",
    select(*selected(_ATTEMPT))
    .select_from(job_attempts.join(job_queue, job_queue.c.id == _attempt.job_id))
    .where(_attempt.job_id == parameter("job_id", Uuid))
    .where(_attempt.traceback.is_not(None))
    .where(in_scope(job_queue.c.organization_id))
    .order_by(_attempt.lease_token.desc())
    .limit(ONE),
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
    (_event.position, same),
)
LIST_EVENTS = Statement(
    "list_job_events",
    select(*selected(_EVENT))
    .select_from(job_timeline.join(job_queue, job_queue.c.id == _event.job_id))
    .where(_event.job_id == parameter("job_id", Uuid))
    .where(
        or_(
            parameter("after", tables.Timestamp).is_(None),
            tuple_(_event.occurred_at, _event.position)
            > tuple_(parameter("after", tables.Timestamp), parameter("after_position", BigInteger)),
        )
    )
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
    (select(as_text(jobs.c.status)).where(jobs.c.id == _dead.job_id).scalar_subquery(), JobStatus),
)
LIST_DEAD_LETTERS = Statement(
    "list_dead_letters",
    select(*selected(_DEAD_LETTER))
    .where(in_scope(_dead.organization_id))
    .where(or_(parameter("job_type", Text).is_(None), _dead.job_type == parameter("job_type", Text)))
    .where(or_(parameter("error_code", Text).is_(None), _dead.error_code == parameter("error_code", Text)))
    .where(or_(parameter("since", tables.Timestamp).is_(None), _dead.failed_at >= parameter("since", tables.Timestamp)))
    .where(or_(parameter("until", tables.Timestamp).is_(None), _dead.failed_at < parameter("until", tables.Timestamp)))
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
    status: JobStatus | str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    error_code: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> JobPage:
    """Jobs for which everything given is true, as ``JobFilter`` says, the newest first. ``next_before`` of the page is
    what to pass as ``before`` to get the next one, and None at the end.

    A page looks at 10,000 rows at most: where a filter matches few, it may be short, or even empty, and not the last.
    """
    wanted = JobFilter(job_type, status, queue, tag, error_code, created_after, created_before)
    after = None if before is None else UUID(job_identity(before))
    parameters = walk_parameters(wanted, scope, before=after, limit=check_page(limit))
    rows = borrow(connection).fetch(_LIST_OF[source_of(wanted, scope)], parameters)
    found = [Job(*decoded(_JOB, row[1:])) for row in rows if row[1] is not None]
    if len(found) == limit:
        return JobPage(found, found[-1].job_id)
    return JobPage(found, decoded_uuid(rows[0][0]))


def list_job_attempts(
    connection: AnyConnection, job_id: UUID | str, *, scope: Scope, after: int = 0, limit: int = LARGEST_PAGE
) -> list[Attempt]:
    """The ended attempts of a job in order; an open one is its lease, shown by ``get_job``. Pass the last
    ``lease_token`` of a page as ``after`` to get the next one."""
    rows = borrow(connection).fetch(LIST_ATTEMPTS, _of_job(job_id, scope, limit) | {"after": after})
    return [Attempt(*decoded(_ATTEMPT, row)) for row in rows]


def last_failed_attempt(connection: AnyConnection, job_id: UUID | str, *, scope: Scope) -> Attempt | None:
    """The latest attempt that ended with a traceback, if there is one."""
    rows = borrow(connection).fetch(LAST_TRACEBACK, scoped(scope) | {"job_id": job_identity(job_id)})
    return Attempt(*decoded(_ATTEMPT, rows[0])) if rows else None


def list_job_events(
    connection: AnyConnection,
    job_id: UUID | str,
    *,
    scope: Scope,
    after: JobEvent | None = None,
    limit: int = LARGEST_PAGE,
) -> list[JobEvent]:
    """The timeline of a job: what its record and attempts say and what was stored beside them, in order. Pass the last
    event of a page as ``after`` to get the next one."""
    cursor = {"after": after and after.occurred_at, "after_position": after and after.position}
    rows = borrow(connection).fetch(LIST_EVENTS, _of_job(job_id, scope, limit) | cursor)
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
    error_code: str | None = None,
    failed_after: datetime | None = None,
    failed_before: datetime | None = None,
    before: DeadLetter | None = None,
    limit: int = 100,
) -> list[DeadLetter]:
    """Dead letters, the latest first, also of jobs that were requeued since; pass the last one of a page as ``before``
    to get the next one. ``failed_after`` is inclusive, ``failed_before`` exclusive."""
    parameters = scoped(scope) | {
        "job_type": job_type,
        "error_code": error_code,
        "since": None if failed_after is None else check_time(failed_after, field="failed_after"),
        "until": None if failed_before is None else check_time(failed_before, field="failed_before"),
        "before": before and before.failed_at,
        "before_job_id": before and str(before.job_id),
        "before_run_number": before and before.run_number,
        "limit": check_page(limit),
    }
    rows = borrow(connection).fetch(LIST_DEAD_LETTERS, parameters)
    return [DeadLetter(*decoded(_DEAD_LETTER, row)) for row in rows]


def _of_job(job_id: UUID | str, scope: Scope, limit: int) -> Parameters:
    return scoped(scope) | {"job_id": job_identity(job_id), "limit": check_page(limit)}


def check_page(limit: int) -> int:
    """The size of a page, 1 to 1,000 rows. Raises InvalidPagination."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise errors.InvalidPagination(f"limit must be from 1 to {LARGEST_PAGE}")
    return limit


def job_identity(job_id: UUID | str) -> str:
    """The id as text. Raises JobNotFound for what is no UUID."""
    try:
        return str(UUID(str(job_id)))
    except ValueError:
        raise errors.JobNotFound("no such job: the id is not a UUID") from None
