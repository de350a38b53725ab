"""Another priority for jobs that wait, one or many; the places of the claim and the record change together."""

from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Integer, Text, Uuid, func, insert, select, union_all, update

from runledger.core.errors import InvalidStateTransition, StateChangedConcurrently
from runledger.core.jobs import Scope
from runledger.core.limits import MAX_INT32, MIN_INT32, check_integer
from runledger.core.operations import words_of
from runledger.core.states import JobEventType, JobStatus
from runledger.postgres import tables
from runledger.postgres.arrays import plain_array
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ZERO, as_text, constant, ids_of, literal, parameter
from runledger.postgres.reads import get_job
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_events, job_queue, job_ready, job_scheduled

TRIES = 10
"""How often a job is looked for again when it moved from one place to another meanwhile."""

JOB_IDS = parameter("job_ids", ARRAY(Uuid))
_priority = parameter("priority", Integer)


def locked_rows(place: Any, *conditions: ColumnElement[bool], skip_locked: bool = True) -> Any:
    """The rows of the chosen jobs in this place, in the order of their ids; without those that somebody else holds
    unless they are waited for."""
    return (
        select(*place.c)
        .where(place.c.job_id == func.any(JOB_IDS), *conditions)
        .order_by(place.c.job_id)
        .with_for_update(skip_locked=skip_locked)
        .cte(f"locked_{place.name}")
        .prefix_with("MATERIALIZED")
    )


def _reprioritised(*, skip_locked: bool) -> Any:
    """The record too, so that a requeue keeps the new priority."""
    places = (job_ready, job_scheduled)
    locked = [locked_rows(place, place.c.priority != _priority, skip_locked=skip_locked) for place in places]
    moved = [
        update(place).where(place.c.job_id == ids_of(rows)).values(priority=_priority).cte(f"moved_{place.name}")
        for place, rows in zip(places, locked, strict=True)
    ]
    taken = union_all(*(select(one.c.job_id, one.c.run_number, one.c.attempt, one.c.priority) for one in locked)).cte(
        "taken"
    )
    recorded = update(job_queue).where(job_queue.c.id == ids_of(taken)).values(priority=_priority).cte("recorded")
    told = (
        insert(job_events)
        .from_select(
            ["job_id", "run_number", "attempt", "event_type", "actor", "reason", "detail"],
            select(
                taken.c.job_id,
                taken.c.run_number,
                func.nullif(taken.c.attempt, ZERO),
                literal(JobEventType.PRIORITY_CHANGED, tables.job_event_type),
                parameter("actor", Text),
                parameter("reason", Text),
                func.jsonb_build_object(constant("from"), taken.c.priority, constant("to"), _priority),
            ),
        )
        .cte("told")
    )
    return select(as_text(taken.c.job_id)).add_cte(*moved, recorded, told)


REPRIORITISE_JOB = Statement("reprioritise_job", _reprioritised(skip_locked=False))
REPRIORITISE_JOBS = Statement("reprioritise_jobs", _reprioritised(skip_locked=True))


def check_priority(priority: int) -> int:
    """The priority itself, a 32-bit integer. Raises InvalidRequest."""
    return check_integer(priority, field="priority", low=MIN_INT32, high=MAX_INT32)


def reprioritise_job(
    connection: AnyConnection,
    job_id: UUID | str,
    priority: int,
    *,
    scope: Scope,
    reason: str | None = None,
    actor: str | None = None,
) -> None:
    """A waiting job has this priority, also in later attempts and runs.

    Locks the row that says where the job waits, then its record. Raises InvalidRequest, JobNotFound, or
    InvalidStateTransition unless the job is PENDING.
    """
    ledger = borrow(connection)
    words = words_of(reason, actor) | {"priority": check_priority(priority)}
    for _ in range(TRIES):
        job = get_job(ledger, job_id, scope=scope)
        if job.status is not JobStatus.PENDING:
            raise InvalidStateTransition(f"the priority of a job that is {job.status} cannot be changed")
        if job.priority == priority:
            return
        if ledger.fetch(REPRIORITISE_JOB, words | {"job_ids": plain_array([job.job_id])}):
            return
    raise StateChangedConcurrently("the job moved during every try; try again")
