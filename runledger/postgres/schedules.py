"""Schedules as they are stored: written by catalogs, moved by operators, read by people. ``firing.py`` fires them.

A schedule is known by its name. Who writes it again replaces its settings and leaves its switch to the operators; its
next firing stays where it is unless its cron text or its zone changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Integer, Text, Uuid, case, cast, delete, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.definitions import DEFINITION_MISSING_HINT
from runledger.core.errors import InvalidRequest, ScheduleDefinitionNotFoundOrDisabled
from runledger.core.limits import check_time
from runledger.core.schedules import (
    EncodedSchedule,
    JobSchedule,
    ScheduleRequest,
    ScheduleSync,
    Timing,
    encode_schedule,
)
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import (
    CLOCK,
    FALSE,
    NOW,
    as_microseconds,
    constant,
    from_microseconds,
    parameter,
    rows_of,
)
from runledger.postgres.schedule_reads import SELECT_SCHEDULE, get_job_schedule
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_definitions, job_schedules

_stored = job_schedules.c
_by_name = _stored.name == parameter("name", Text)

_wanted = rows_of("wanted", name=Text, job_type=Text)
LOOK_UP_SCHEDULES = Statement(
    "look_up_schedules",
    select(
        as_microseconds(CLOCK), job_definitions.c.job_type.is_not(None), job_definitions.c.is_enabled, _stored.is_active
    )
    .select_from(
        _wanted.outerjoin(job_definitions, job_definitions.c.job_type == _wanted.c.job_type).outerjoin(
            job_schedules, _stored.name == _wanted.c.name
        )
    )
    .order_by(_wanted.c.ordinal),
)

HOLD_DEFINITIONS = Statement(
    "hold_definitions",
    select(job_definitions.c.job_type)
    .where(job_definitions.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .order_by(job_definitions.c.job_type)
    .with_for_update(read=True),
)
"""Whoever disables a job type waits until these schedules are stored, and then sees them."""

_COLUMNS: dict[str, Any] = {
    "name": Text,
    "job_type": Text,
    "organization_id": Uuid,
    "payload_template": Text,
    "cron_expr": Text,
    "timezone": Text,
    "missed": Text,
    "overlap": Text,
    "max_jitter_seconds": Integer,
    "is_active": Boolean,
    "next_slot_at": tables.Timestamp,
    "next_fire_at": tables.Timestamp,
}
_CASTS = {
    "payload_template": JSONB(),
    "missed": tables.schedule_missed_policy,
    "overlap": tables.schedule_overlap_policy,
}
_SETTINGS = ("job_type", "payload_template", "cron_expr", "timezone", "missed", "overlap", "max_jitter_seconds")
_given = rows_of("given", **_COLUMNS)
_insert = upsert(job_schedules).from_select(
    list(_COLUMNS),
    select(*(cast(_given.c[name], _CASTS[name]) if name in _CASTS else _given.c[name] for name in _COLUMNS)).order_by(
        _given.c.name
    ),
)
_new = _insert.excluded
_is_retimed = _stored.cron_expr.is_distinct_from(_new.cron_expr) | _stored.timezone.is_distinct_from(_new.timezone)
_switch = case(
    (parameter("switch", Text) == constant("given"), _new.is_active),
    (parameter("switch", Text) == constant("both"), _stored.is_active & _new.is_active),
    else_=_stored.is_active,
)
UPSERT_SCHEDULES = Statement(
    "upsert_schedules",
    _insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: _new[name] for name in _SETTINGS}
        | {name: case((_is_retimed, _new[name]), else_=_stored[name]) for name in ("next_slot_at", "next_fire_at")}
        | {"is_active": _switch, "last_error_code": null(), "last_error_message": null(), "updated_at": NOW},
        where=or_(*(_stored[name].is_distinct_from(_new[name]) for name in _SETTINGS), _stored.is_active != _switch),
    ).returning(_stored.name),
)

DEACTIVATE_ABSENT = Statement(
    "deactivate_absent_schedules",
    update(job_schedules)
    .where(_stored.name == func.any(parameter("scope", ARRAY(Text))))
    .where(_stored.name != func.all(parameter("names", ARRAY(Text))))
    .where(_stored.is_active)
    .values(is_active=FALSE, updated_at=NOW)
    .returning(_stored.name),
)

_definition = (
    select(job_definitions.c.job_type, job_definitions.c.is_enabled)
    .where(
        job_definitions.c.job_type == select(job_schedules.c.job_type).where(_by_name).scalar_subquery(),
    )
    .with_for_update(read=True)
    .cte("definition")
    .prefix_with("MATERIALIZED")
)
SET_ACTIVE = Statement(
    "set_schedule_active",
    update(job_schedules)
    .where(_by_name)
    .where(_stored.job_type == _definition.c.job_type)
    .where(or_(~parameter("is_active", Boolean), _definition.c.is_enabled))
    .values(is_active=parameter("is_active", Boolean), updated_at=NOW)
    .returning(_stored.name),
)
SET_NEXT_FIRE_AT = Statement(
    "set_schedule_next_fire_at",
    update(job_schedules)
    .where(_by_name)
    .values(
        next_slot_at=parameter("moment", tables.Timestamp),
        next_fire_at=parameter("moment", tables.Timestamp),
        updated_at=NOW,
    )
    .returning(_stored.name),
)
DELETE_SCHEDULE = Statement("delete_schedule", delete(job_schedules).where(_by_name).returning(_stored.name))


def upsert_job_schedule(connection: AnyConnection, request: ScheduleRequest) -> JobSchedule:
    """The schedule is stored as asked, and returned as it is now. Where the name is taken, its settings are replaced;
    ``is_active`` and ``organization_id`` stay as stored, and its next firing moves only when cron or zone changed.

    Locks the row. Raises what ``encode_schedule`` raises, and ScheduleDefinitionNotFoundOrDisabled when an active
    schedule could not fire.
    """
    ledger = borrow(connection)
    schedule = encode_schedule(request)
    _write(ledger, [schedule], switch="stored", needs_enabled=True)
    return get_job_schedule(ledger, schedule.name)


def sync_schedules(connection: AnyConnection, requests: Iterable[ScheduleRequest]) -> tuple[str, ...]:
    """Every schedule is stored; the answer names those that are new or changed, sorted.

    Additive: schedules that are absent stay, and one that an operator paused stays so; ``is_active=False`` pauses.
    Locks the rows by name. Raises ScheduleDefinitionNotFoundOrDisabled for a job type without a definition.
    """
    return _write(borrow(connection), _encoded(requests), switch="both", needs_enabled=False)


def sync_schedules_exact(
    connection: AnyConnection, requests: Iterable[ScheduleRequest], *, scope: Sequence[str]
) -> ScheduleSync:
    """As ``sync_schedules``, but ``is_active`` is restored too, and schedules named in ``scope`` that are not given
    are paused; never deleted. Raises InvalidRequest for an empty scope, or a schedule outside of it."""
    schedules = _encoded(requests)
    outside = sorted({one.name for one in schedules} - set(scope))
    if not scope or outside:
        raise InvalidRequest(f"outside the scope: {', '.join(outside)}" if outside else "the scope is empty")
    ledger = borrow(connection)
    changed = _write(ledger, schedules, switch="given", needs_enabled=False)
    absent = ledger.fetch(DEACTIVATE_ABSENT, {"scope": list(scope), "names": [one.name for one in schedules]})
    return ScheduleSync(changed, tuple(sorted(row[0] for row in absent)))


def set_job_schedule_active(connection: AnyConnection, name: str, *, is_active: bool) -> bool:
    """The schedule fires from now on, or not; false when there is none. Its next firing stays where it is: after a
    long pause, its missed slots are treated as its policy says.

    Raises ScheduleDefinitionNotFoundOrDisabled when it is switched on and could not fire.
    """
    ledger = borrow(connection)
    if ledger.fetch(SET_ACTIVE, {"name": name, "is_active": is_active}):
        return True
    if ledger.fetch(SELECT_SCHEDULE, {"name": name}):
        raise ScheduleDefinitionNotFoundOrDisabled(f"the job type of schedule {name!r} is disabled")
    return False


def set_job_schedule_next_fire_at(connection: AnyConnection, name: str, moment: datetime) -> bool:
    """``moment`` is the next slot; false when there is no such schedule. A slot that has fired does not fire again."""
    parameters = {"name": name, "moment": check_time(moment, field="next_fire_at")}
    return bool(borrow(connection).fetch(SET_NEXT_FIRE_AT, parameters))


def delete_job_schedule(connection: AnyConnection, name: str) -> bool:
    """The schedule is gone, its jobs stay; false when there was none. Waits for a scheduler that is firing it."""
    return bool(borrow(connection).fetch(DELETE_SCHEDULE, {"name": name}))


def _encoded(requests: Iterable[ScheduleRequest]) -> list[EncodedSchedule]:
    return sorted((encode_schedule(request) for request in requests), key=lambda one: one.name)


def _write(
    ledger: LedgerConnection, schedules: Sequence[EncodedSchedule], *, switch: str, needs_enabled: bool
) -> tuple[str, ...]:
    if not schedules:
        return ()
    ledger.fetch(HOLD_DEFINITIONS, {"job_types": sorted({one.job_type for one in schedules})})
    known = ledger.fetch(
        LOOK_UP_SCHEDULES,
        {"names": [one.name for one in schedules], "job_types": [one.job_type for one in schedules]},
    )
    rows = []
    for schedule, (now, is_defined, is_enabled, was_active) in zip(schedules, known, strict=True):
        will_be_active = schedule.is_active if was_active is None else was_active
        if not is_defined or (needs_enabled and will_be_active and not is_enabled):
            message = f"job type {schedule.job_type!r} has no enabled definition"
            raise ScheduleDefinitionNotFoundOrDisabled(message, hint=DEFINITION_MISSING_HINT)
        rows.append(_row(schedule, from_microseconds(now)))
    parameters = {f"{name}s": [row[name] for row in rows] for name in _COLUMNS}
    return tuple(sorted(row[0] for row in ledger.fetch(UPSERT_SCHEDULES, parameters | {"switch": switch})))


def _row(schedule: EncodedSchedule, now: datetime) -> dict[str, Any]:
    timing = Timing(schedule.name, schedule.cron, schedule.timezone, schedule.jitter_seconds)
    slot = timing.next_slot(now)
    return asdict(schedule) | {
        "payload_template": schedule.payload,
        "cron_expr": schedule.cron,
        "max_jitter_seconds": schedule.jitter_seconds,
        "next_slot_at": slot,
        "next_fire_at": timing.fire_time(slot),
    }
