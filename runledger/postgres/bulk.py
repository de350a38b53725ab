"""What people and programs do to many jobs at once: cancel, requeue, reprioritise all that match a filter.

A batch is two statements: one page of a walk along the ids, and one change of the jobs on it. Rows that somebody else
holds are skipped, so a batch waits for no worker and none waits long for it; the caller's commit ends the batch.
Jobs of a workflow run are cancelled and requeued by their run alone, and left out here.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Text, delete, func, select, true

from runledger.core.bulk import CANCELABLE, REPRIORITISABLE, REQUEUEABLE, ChangedJobs, filters_by_status
from runledger.core.errors import InvalidRequest
from runledger.core.filters import JobFilter
from runledger.core.jobs import Scope
from runledger.core.operations import words_of
from runledger.core.states import JobStatus
from runledger.postgres.arrays import plain_array
from runledger.postgres.cancellation import canceled
from runledger.postgres.columns import decoded_uuid
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import as_text, ids_of, parameter
from runledger.postgres.job_walks import CANCELED, DEAD_LETTERED, LEASED, WAITING, source_of, walk_parameters, walked
from runledger.postgres.priorities import JOB_IDS, REPRIORITISE_JOBS, check_priority, locked_rows
from runledger.postgres.reads import LARGEST_PAGE, check_page
from runledger.postgres.requeueing import IS_REQUEUEABLE, requeued
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_leases, job_queue, job_ready, job_scheduled

COUNTED = 10_000
"""Jobs that a count goes up to, unless told otherwise."""

_record = job_queue.c


def _found(source: Any) -> Any:
    """Where the walk stopped, and the jobs of a page with whether each is of a workflow run; looked up one by one, by
    key, because a join may read all records instead."""
    chosen, stopped_at = walked(source)
    stop = select(stopped_at.label("stopped_at")).subquery("stop")
    run = select(_record.workflow_run_id).where(_record.id == chosen.c.id).scalar_subquery()
    return (
        select(stop.c.stopped_at, as_text(chosen.c.id), run.is_not(None))
        .select_from(stop.outerjoin(chosen, true()))
        .order_by(chosen.c.id.desc())
    )


FIND_WAITING_JOBS = Statement("find_jobs_waiting", _found(WAITING[1]))
FIND_LEASED_JOBS = Statement("find_jobs_leased", _found(LEASED[1]))
FIND_DEAD_LETTERED_JOBS = Statement("find_jobs_dead_lettered", _found(DEAD_LETTERED[1]))
FIND_CANCELED_JOBS = Statement("find_jobs_canceled", _found(CANCELED[1]))
_FIND_OF = {
    WAITING[0]: FIND_WAITING_JOBS,
    LEASED[0]: FIND_LEASED_JOBS,
    DEAD_LETTERED[0]: FIND_DEAD_LETTERED_JOBS,
    CANCELED[0]: FIND_CANCELED_JOBS,
}


def _cancel_jobs() -> Any:
    """A job that has moved on to another status than the wanted one is left alone."""
    runs = parameter("is_leased", Boolean)
    conditions = ((job_ready, ~runs), (job_scheduled, ~runs), (job_leases, runs))
    places = [
        delete(place)
        .where(place.c.job_id == ids_of(locked_rows(place, condition, place.c.workflow_run_id.is_(None))))
        .returning(*place.c)
        .cte(f"left_{place.name}")
        for place, condition in conditions
    ]
    return canceled(*places)


def _requeue_jobs() -> Any:
    wanted = as_text(_record.final_status) == parameter("status", Text)
    locked = (
        select(_record.id)
        .where(_record.id == func.any(JOB_IDS), wanted, *IS_REQUEUEABLE)
        .order_by(_record.id)
        .with_for_update(skip_locked=True)
        .cte("locked")
        .prefix_with("MATERIALIZED")
    )
    return requeued(_record.id == ids_of(locked))


CANCEL_JOBS = Statement("cancel_jobs", _cancel_jobs())
REQUEUE_JOBS = Statement("requeue_jobs", _requeue_jobs())


def count_jobs(connection: AnyConnection, wanted: JobFilter, *, scope: Scope, most: int = COUNTED) -> int:
    """How many jobs match; ``most + 1`` when there are more than ``most``.

    Like the batches it wants a status that can be changed, PENDING, LEASED, DEAD_LETTERED or CANCELED, and may look at
    every job of that status.
    """
    ledger = borrow(connection)
    counted, before = 0, None
    while counted <= most:
        found, before = _page(ledger, wanted, scope, before, min(LARGEST_PAGE, most + 1 - counted))
        counted += len(found)
        if before is None:
            break
    return counted


def cancel_jobs(
    connection: AnyConnection,
    wanted: JobFilter,
    *,
    scope: Scope,
    reason: str | None = None,
    actor: str | None = None,
    before: UUID | None = None,
    limit: int = LARGEST_PAGE,
) -> ChangedJobs:
    """One batch: of the jobs that match, the newest ``limit`` before ``before`` are CANCELED as by ``cancel_job``.

    ``wanted.status`` is PENDING or LEASED; a job that has left it meanwhile is skipped. Jobs of workflow runs are left
    out. Locks the rows that say where the jobs are, by job id, then their records; waits for none of the former.
    Raises InvalidRequest and what ``check_filter`` raises.
    """
    status = _status(wanted, CANCELABLE)
    words = words_of(reason, actor) | {"is_leased": status is JobStatus.LEASED}
    return _changed(connection, CANCEL_JOBS, words, wanted, scope, before, limit, has_workflows=False)


def requeue_jobs(
    connection: AnyConnection,
    wanted: JobFilter,
    *,
    scope: Scope,
    reason: str | None = None,
    actor: str | None = None,
    before: UUID | None = None,
    limit: int = LARGEST_PAGE,
) -> ChangedJobs:
    """The same for jobs that are DEAD_LETTERED or CANCELED: they wait for their next run as after ``requeue_job``.

    Skips what may still run after its cancellation. Locks the records, and waits for none.
    """
    words = words_of(reason, actor) | {"status": _status(wanted, REQUEUEABLE).value}
    return _changed(connection, REQUEUE_JOBS, words, wanted, scope, before, limit, has_workflows=False)


def reprioritise_jobs(
    connection: AnyConnection,
    wanted: JobFilter,
    priority: int,
    *,
    scope: Scope,
    reason: str | None = None,
    actor: str | None = None,
    before: UUID | None = None,
    limit: int = LARGEST_PAGE,
) -> ChangedJobs:
    """The same for jobs that are PENDING, those of workflow runs too: they have this priority, also in later attempts
    and runs. Jobs that have it already count as skipped."""
    _status(wanted, REPRIORITISABLE)
    words = words_of(reason, actor) | {"priority": check_priority(priority)}
    return _changed(connection, REPRIORITISE_JOBS, words, wanted, scope, before, limit, has_workflows=True)


def _status(wanted: JobFilter, possible: tuple[JobStatus, ...]) -> JobStatus:
    if wanted.status is None:
        raise InvalidRequest("a batch is about the jobs of one status; name it")
    [only] = filters_by_status(wanted, possible)
    return JobStatus(only.status or "")


def _changed(
    connection: AnyConnection,
    change: Statement,
    words: Parameters,
    wanted: JobFilter,
    scope: Scope,
    before: UUID | None,
    limit: int,
    *,
    has_workflows: bool,
) -> ChangedJobs:
    ledger = borrow(connection)
    found, next_before = _page(ledger, wanted, scope, before, check_page(limit))
    chosen = [job_id for job_id, is_of_workflow in found if has_workflows or not is_of_workflow]
    changed = ledger.fetch(change, words | {"job_ids": plain_array(chosen)}) if chosen else []
    return ChangedJobs(len(found), len(changed), len(found) - len(chosen), next_before)


def _page(
    ledger: LedgerConnection, wanted: JobFilter, scope: Scope, before: UUID | None, limit: int
) -> tuple[Sequence[tuple[str, bool]], UUID | None]:
    """Ids, with whether each is of a workflow run; and where the next page begins."""
    parameters = walk_parameters(wanted, scope, before=before, limit=limit)
    rows = ledger.fetch(_FIND_OF[source_of(wanted, scope)], parameters)
    found = [(row[1], row[2]) for row in rows if row[1] is not None]
    return found, UUID(found[-1][0]) if len(found) == limit else decoded_uuid(rows[0][0])
