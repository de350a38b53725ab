"""Walks along the ids of jobs, the newest first: what every list and every bulk operation finds its jobs by.

A walk follows one index and looks at 10,000 rows at most, so no filter makes it slow; where it stopped short
of a full page, it says where the next one begins. Waiting, running, dead-lettered and cancelled jobs are walked in
their own small tables, and the jobs of one organization or type along an index of these.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Text, Uuid, func, null, or_, select, true, tuple_
from sqlalchemy.sql.selectable import CTE

from runledger.core.filters import FIRST_ID, LAST_ID, JobFilter, check_filter, first_id_of
from runledger.core.jobs import Scope, ScopeKind
from runledger.core.states import JobEventType, JobStatus
from runledger.postgres import tables
from runledger.postgres.expressions import ONE, as_text, literal, parameter
from runledger.postgres.scopes import in_scope, scoped
from runledger.postgres.statements import Parameters
from runledger.postgres.tables import (
    job_dead_letters,
    job_definitions,
    job_events,
    job_leases,
    job_queue,
    job_ready,
    job_scheduled,
)

LONGEST_WALK = 10_000
LONGEST_WALK_OF_PLACES = 2_000
"""Rows of a small table that are looked at; each costs a look at its record as well."""

_record = job_queue.c
_RECORD = (_record.job_type, _record.organization_id, _record.tags, _record.final_status, _record.last_error_code)
_job_type = parameter("job_type", Text)
_final_status = parameter("final_status", Text)
_walk = parameter("walk", Integer)
_before = parameter("before", Uuid)
_since = parameter("since", Uuid)


def _records() -> Any:
    return (
        _found(_record.id, null().cast(Integer), *_RECORD)
        .where(_record.id < _before, _record.id >= _since)
        .order_by(_record.id.desc())
    )


def _records_with(column: ColumnElement[Any], value: ColumnElement[Any]) -> Any:
    """Bounds and order name both columns, although one is constant: so only the index over both fits, and the planner
    cannot walk along the ids alone through everything that is not wanted."""
    both = tuple_(column, _record.id)
    return (
        _found(_record.id, null().cast(Integer), *_RECORD)
        .where(column.is_not(None), both < tuple_(value, _before), both >= tuple_(value, _since))
        .order_by(column.desc(), _record.id.desc())
    )


def _placed(place: Any, *conditions: ColumnElement[bool]) -> Any:
    row = place.c
    return (
        _found(row.job_id, row.run_number)
        .where(row.job_id < _before, row.job_id >= _since, *conditions)
        .order_by(row.job_id.desc())
    )


def _waiting() -> Any:
    """Each half stops by itself, so that the planner follows the two keys and merges them."""
    halves = [select(_placed(place).limit(_walk).subquery(place.name)) for place in (job_ready, job_scheduled)]
    both = halves[0].union_all(halves[1]).subquery("both_places")
    return select(both.c.id, both.c.run_number).order_by(both.c.id.desc())


def _found(job_id: ColumnElement[Any], run_number: ColumnElement[Any], *columns: Any) -> Any:
    return select(job_id.label("id"), run_number.label("run_number"), *columns)


_is_canceled = job_events.c.event_type == literal(JobEventType.CANCELED, tables.job_event_type)

RECORDS, OF_TYPE, OF_ORGANIZATION, WAITING, LEASED, DEAD_LETTERED, CANCELED = SOURCES = (
    ("", _records()),
    ("_of_type", _records_with(_record.job_type, _job_type)),
    ("_of_organization", _records_with(_record.organization_id, parameter("scope_organization_id", Uuid))),
    ("_waiting", _waiting()),
    ("_leased", _placed(job_leases)),
    ("_dead_lettered", _placed(job_dead_letters)),
    ("_canceled", _placed(job_events, _is_canceled)),
)


_WALKS_RECORDS = (RECORDS[0], OF_TYPE[0], OF_ORGANIZATION[0])


def walked(source: Any) -> tuple[CTE, Any]:
    """The ids of a page, ``chosen``, at most ``limit`` of them; and the id where the walk stopped, when it looked at
    all the rows it may and the page is not full."""
    rows = source.limit(_walk).subquery("rows")
    if "job_type" in rows.c:
        found, row = rows, rows.c
        conditions = [or_(_final_status.is_(None), as_text(row.final_status) == _final_status)]
    else:
        one = select(*_RECORD, _record.run_number).where(_record.id == rows.c.id).limit(ONE).lateral("record")
        found, row = rows.join(one, true()), one.c
        conditions = [
            or_(
                _final_status.is_(None),
                (as_text(row.final_status) == _final_status) & (row.run_number == rows.c.run_number),
            )
        ]
    chosen = (
        select(rows.c.id)
        .select_from(found)
        .where(*conditions, *_matching(row))
        .order_by(rows.c.id.desc())
        .limit(parameter("limit", Integer))
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    is_full = select(func.count()).select_from(chosen).scalar_subquery() >= parameter("limit", Integer)
    last = source.order_by(source.selected_columns[0].desc()).offset(_walk - ONE).limit(ONE).subquery("last")
    stopped_at = select(as_text(last.c.id)).where(~is_full).scalar_subquery()
    return chosen, stopped_at


def _matching(row: Any) -> list[ColumnElement[bool]]:
    of_queue = select(job_definitions.c.job_type).where(job_definitions.c.queue == parameter("queue", Text))
    return [
        in_scope(row.organization_id),
        or_(_job_type.is_(None), row.job_type == _job_type),
        or_(parameter("queue", Text).is_(None), row.job_type.in_(of_queue)),
        or_(parameter("tag", Text).is_(None), parameter("tag", Text) == func.any(row.tags)),
        or_(parameter("error_code", Text).is_(None), row.last_error_code == parameter("error_code", Text)),
    ]


def page_of(source: Any, *columns: ColumnElement[Any], from_: Any, job_id: ColumnElement[Any]) -> Any:
    """A statement whose rows are where the walk stopped, then ``columns`` of a chosen job; one row without a job when
    none was chosen."""
    chosen, stopped_at = walked(source)
    stop = select(stopped_at.label("stopped_at")).subquery("stop")
    joined = stop.outerjoin(chosen, true()).outerjoin(from_, job_id == chosen.c.id)
    return select(stop.c.stopped_at, *columns).select_from(joined).order_by(chosen.c.id.desc())


def source_of(wanted: JobFilter, scope: Scope) -> str:
    """The name of the source that has the fewest rows besides those that are wanted."""
    status = None if wanted.status is None else JobStatus(wanted.status)
    by_status = {
        JobStatus.PENDING: WAITING,
        JobStatus.LEASED: LEASED,
        JobStatus.DEAD_LETTERED: DEAD_LETTERED,
        JobStatus.CANCELED: CANCELED,
    }
    if status in by_status:
        return by_status[status][0]
    if scope.kind is ScopeKind.ORGANIZATION:
        return OF_ORGANIZATION[0]
    return RECORDS[0] if wanted.job_type is None else OF_TYPE[0]


def walk_parameters(wanted: JobFilter, scope: Scope, *, before: UUID | None, limit: int) -> Parameters:
    """Raises what ``check_filter`` raises."""
    check_filter(wanted)
    until = first_id_of(wanted.created_before, field="created_before") or LAST_ID
    status = None if wanted.status is None else JobStatus(wanted.status)
    return scoped(scope) | {
        "job_type": wanted.job_type,
        "final_status": status.value if status is not None and status.is_final else None,
        "queue": wanted.queue,
        "tag": wanted.tag,
        "error_code": wanted.error_code,
        "before": str(min(until, before or LAST_ID)),
        "since": str(first_id_of(wanted.created_after, field="created_after") or FIRST_ID),
        "walk": LONGEST_WALK if source_of(wanted, scope) in _WALKS_RECORDS else LONGEST_WALK_OF_PLACES,
        "limit": limit,
    }
