"""What a requeue does to records, of one job or of many: a run that starts afresh, its place, and the timeline."""

from typing import Any

from sqlalchemy import CTE, ColumnElement, Text, func, insert, null, or_, select, update

from runledger.core.states import JOB_TRANSITIONS, JobEventType
from runledger.postgres import tables
from runledger.postgres.expressions import CLOCK, ONE, ZERO, as_text, constant, literal, parameter
from runledger.postgres.tables import job_events, job_queue, job_ready

_record = job_queue.c
IS_REQUEUEABLE = (
    _record.final_status.in_(
        tuple(literal(status, tables.job_status) for status in JOB_TRANSITIONS["requeue"].sources)
    ),
    _record.workflow_run_id.is_(None),
    or_(_record.quiesces_at.is_(None), _record.quiesces_at <= CLOCK),
)
"""Dead-lettered or cancelled, of no workflow run, and no cancelled attempt may still run."""


def requeued(*chosen: ColumnElement[bool]) -> Any:
    """The chosen jobs that are requeueable wait for their next run, with the id and the run number of each."""
    revived = _revived(*chosen)
    return select(as_text(revived.c.id), revived.c.run_number).add_cte(_readied(revived), _told(revived))


def _revived(*chosen: ColumnElement[bool]) -> CTE:
    return (
        update(job_queue)
        .where(*chosen, *IS_REQUEUEABLE)
        .values(
            final_status=null(),
            finished_at=null(),
            quiesces_at=null(),
            run_number=_record.run_number + ONE,
            attempt=ZERO,
            status_reason=null(),
            last_error_code=null(),
            last_error_message=null(),
            output=null(),
            checkpoint=null(),
            progress_done=null(),
            progress_total=null(),
            expires_at=null(),
        )
        .returning(_record.id, _record.run_number, _record.priority, _record.job_type)
        .cte("revived")
    )


def _readied(revived: CTE) -> CTE:
    return (
        insert(job_ready)
        .from_select(
            ["job_id", "next_run_at", "priority", "run_number", "attempt", "job_type"],
            select(revived.c.id, CLOCK, revived.c.priority, revived.c.run_number, ZERO, revived.c.job_type),
        )
        .cte("readied")
    )


def _told(revived: CTE) -> CTE:
    return (
        insert(job_events)
        .from_select(
            ["job_id", "run_number", "event_type", "actor", "reason", "detail"],
            select(
                revived.c.id,
                revived.c.run_number - ONE,
                literal(JobEventType.REQUEUED, tables.job_event_type),
                parameter("actor", Text),
                parameter("reason", Text),
                func.jsonb_build_object(constant("next_run_number"), revived.c.run_number),
            ),
        )
        .cte("told")
    )
