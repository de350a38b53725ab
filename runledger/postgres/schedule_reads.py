"""Schedules as people and programs read them."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Integer, Text, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from runledger.core.errors import ScheduleNotFound
from runledger.core.jobs import Scope
from runledger.core.schedules import JobSchedule
from runledger.core.states import MissedPolicy, OverlapPolicy
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import as_microseconds, as_text, from_microseconds, parameter
from runledger.postgres.reads import check_page, in_scope, scoped
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_schedules

_stored = job_schedules.c
_shown = select(
    as_text(_stored.id),
    _stored.name,
    _stored.job_type,
    as_text(_stored.organization_id),
    as_text(_stored.payload_template),
    _stored.cron_expr,
    _stored.timezone,
    as_text(_stored.missed),
    as_text(_stored.overlap),
    _stored.max_jitter_seconds,
    _stored.is_active,
    as_microseconds(_stored.next_slot_at),
    as_microseconds(_stored.next_fire_at),
    as_microseconds(_stored.last_fired_at),
    as_text(_stored.last_job_id),
    _stored.last_error_code,
    _stored.last_error_message,
    as_microseconds(_stored.created_at),
    as_microseconds(_stored.updated_at),
)
SELECT_SCHEDULE = Statement("select_schedule", _shown.where(_stored.name == parameter("name", Text)))
LIST_SCHEDULES = Statement(
    "list_schedules",
    _shown.where(in_scope(_stored.organization_id))
    .where(or_(parameter("job_type", Text).is_(None), _stored.job_type == parameter("job_type", Text)))
    .where(or_(parameter("after", Text).is_(None), _stored.name > parameter("after", Text)))
    .order_by(_stored.name)
    .limit(parameter("limit", Integer)),
)
NAMES_OF_TYPES = Statement(
    "select_schedule_names",
    select(_stored.name).where(_stored.job_type == func.any(parameter("job_types", ARRAY(Text)))),
)


def get_job_schedule(connection: AnyConnection, name: str) -> JobSchedule:
    """The schedule as it is now. Raises ScheduleNotFound."""
    rows = borrow(connection).fetch(SELECT_SCHEDULE, {"name": name})
    if not rows:
        raise ScheduleNotFound(f"no schedule {name!r} is stored")
    return _read(rows[0])


def list_job_schedules(
    connection: AnyConnection,
    *,
    scope: Scope,
    job_type: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[JobSchedule]:
    """Schedules by name; pass the last name of a page as ``after`` to get the next one."""
    parameters = scoped(scope) | {"job_type": job_type, "after": after, "limit": check_page(limit)}
    return [_read(row) for row in borrow(connection).fetch(LIST_SCHEDULES, parameters)]


def schedule_names_of(connection: AnyConnection, job_types: Sequence[str]) -> tuple[str, ...]:
    """The stored schedules of these job types, sorted: the scope of an application that owns its job types."""
    return tuple(sorted(row[0] for row in borrow(connection).fetch(NAMES_OF_TYPES, {"job_types": list(job_types)})))


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def _read(row: Row) -> JobSchedule:
    next_slot_at, next_fire_at, last_fired_at = row[11:14]
    return JobSchedule(
        schedule_id=UUID(row[0]),
        name=row[1],
        job_type=row[2],
        organization_id=None if row[3] is None else UUID(row[3]),
        payload=json.loads(row[4]),
        cron=row[5],
        timezone=row[6],
        missed=MissedPolicy(row[7]),
        overlap=OverlapPolicy(row[8]),
        jitter_seconds=row[9],
        is_active=row[10],
        next_slot_at=from_microseconds(next_slot_at),
        next_fire_at=from_microseconds(next_fire_at),
        last_fired_at=_moment(last_fired_at),
        last_job_id=None if row[14] is None else UUID(row[14]),
        last_error_code=row[15],
        last_error_message=row[16],
        created_at=from_microseconds(row[17]),
        updated_at=from_microseconds(row[18]),
    )
