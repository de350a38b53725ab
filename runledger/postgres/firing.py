"""Fire: decide which schedules fire which slots, have their jobs recorded, and move each schedule on, inside the
caller's transaction.

What cannot fire is put off for half a minute with its slot kept, and says why on its row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Integer, Text, Uuid, and_, case, func, select, update

from runledger.core.errors import ScheduleDefinitionNotFoundOrDisabled, ScheduleNotFound, ValidationError
from runledger.core.jobs import EnqueuedJob
from runledger.core.schedules import Timing, origin_of, plan_firing
from runledger.core.states import JobStatus, MissedPolicy, OverlapPolicy
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import FALSE, NOW, as_microseconds, as_text, from_microseconds, parameter, rows_of
from runledger.postgres.fired_jobs import record_firings
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_definitions, job_queue, job_schedules

LARGEST_FIRING = 100
"""Schedules that one transaction fires."""

DEFERRAL = timedelta(seconds=30)
OVERLAP_SKIPPED = "job_schedule.overlap_skipped"

_schedule = job_schedules.c
_is_due = and_(_schedule.is_active, _schedule.next_fire_at <= NOW)
_is_last_job_live = func.coalesce(job_queue.c.id.is_not(None) & job_queue.c.final_status.is_(None), FALSE)
LOCK_DUE = Statement(
    "lock_due_schedules",
    select(
        as_text(_schedule.id),
        _schedule.name,
        _schedule.cron_expr,
        _schedule.timezone,
        _schedule.max_jitter_seconds,
        as_text(_schedule.missed),
        as_text(_schedule.overlap),
        as_microseconds(_schedule.next_slot_at),
        as_microseconds(_schedule.next_fire_at),
        as_microseconds(NOW),
        job_definitions.c.is_enabled,
        _is_last_job_live,
    )
    .select_from(
        job_schedules.join(job_definitions, job_definitions.c.job_type == _schedule.job_type).outerjoin(
            job_queue, job_queue.c.id == _schedule.last_job_id
        )
    )
    .where(_is_due)
    .order_by(_schedule.next_fire_at, _schedule.id)
    .limit(parameter("limit", Integer))
    .with_for_update(skip_locked=True, of=job_schedules),
)
SECONDS_UNTIL_DUE = Statement(
    "seconds_until_schedule_is_due",
    select(func.extract("epoch", func.min(_schedule.next_fire_at) - NOW)).where(_schedule.is_active),
)

_moved = rows_of(
    "moved",
    schedule_id=Uuid,
    next_slot_at=tables.Timestamp,
    next_fire_at=tables.Timestamp,
    job_id=Uuid,
    error_code=Text,
    error_message=Text,
)
ADVANCE_SCHEDULES = Statement(
    "advance_schedules",
    update(job_schedules)
    .where(_schedule.id == _moved.c.schedule_id)
    .values(
        next_slot_at=_moved.c.next_slot_at,
        next_fire_at=_moved.c.next_fire_at,
        last_fired_at=case((_moved.c.job_id.is_not(None), NOW), else_=_schedule.last_fired_at),
        last_job_id=func.coalesce(_moved.c.job_id, _schedule.last_job_id),
        last_error_code=_moved.c.error_code,
        last_error_message=_moved.c.error_message,
    ),
)

_live_job = (
    select(job_queue.c.id)
    .where(job_queue.c.id == _schedule.last_job_id)
    .where(job_queue.c.final_status.is_(None))
    .scalar_subquery()
)
LOCK_SCHEDULE = Statement(
    "lock_schedule",
    select(as_text(_schedule.id), as_microseconds(NOW), job_definitions.c.is_enabled)
    .select_from(job_schedules.join(job_definitions, job_definitions.c.job_type == _schedule.job_type))
    .where(_schedule.name == parameter("name", Text))
    .with_for_update(of=job_schedules),
)
NOTE_TRIGGERED = Statement(
    "note_triggered_schedule",
    update(job_schedules)
    .where(_schedule.id == parameter("schedule_id", Uuid))
    .values(last_fired_at=NOW, last_job_id=func.coalesce(_live_job, parameter("job_id", Uuid))),
)


@dataclass(frozen=True, slots=True)
class Firing:
    """One slot that became a job."""

    name: str
    slot: datetime
    job_id: UUID


@dataclass(frozen=True, slots=True)
class Unfired:
    """A schedule that was due and did not fire, and why."""

    name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FiredSchedules:
    """What one call did. ``skipped`` were overlapped and moved on; ``deferred`` are tried again for the same slot."""

    fired: tuple[Firing, ...] = ()
    skipped: tuple[Unfired, ...] = ()
    deferred: tuple[Unfired, ...] = ()
    due: int = 0


@dataclass(frozen=True, slots=True)
class _Due:
    """A schedule that is due and locked."""

    schedule_id: str
    timing: Timing
    missed: MissedPolicy
    overlap: OverlapPolicy
    slot: datetime
    fires_at: datetime
    now: datetime
    is_enabled: bool
    is_last_job_live: bool


@dataclass(frozen=True, slots=True)
class _Decision:
    """The slots that a schedule fires now and where it waits next; ``unfired`` says why it does not fire."""

    schedule_id: str
    name: str
    slots: tuple[datetime, ...]
    next_slot_at: datetime
    next_fire_at: datetime
    unfired: Unfired | None = None
    is_deferred: bool = False


def fire_due_schedules(connection: AnyConnection, *, limit: int = LARGEST_FIRING) -> FiredSchedules:
    """At most ``limit`` schedules whose time has come on the database's clock have fired as their policies say, and
    wait for their next slot.

    One that cannot fire (its definition is disabled, its cron or zone is broken) keeps its slot, is tried again after
    30 seconds, and stops no other. Run it in a transaction. Locks the schedules, skipping those that somebody else is
    firing or changing.
    """
    ledger = borrow(connection)
    rows = ledger.fetch(LOCK_DUE, {"limit": min(limit, LARGEST_FIRING)})
    decisions = [_decide(_due(row)) for row in rows]
    if not decisions:
        return FiredSchedules()
    fired = _fire(ledger, decisions)
    _advance(ledger, decisions, {firing.name: str(firing.job_id) for firing in fired})
    return FiredSchedules(
        fired,
        tuple(one.unfired for one in decisions if one.unfired and not one.is_deferred),
        tuple(one.unfired for one in decisions if one.unfired and one.is_deferred),
        len(decisions),
    )


def seconds_until_due(connection: AnyConnection) -> float | None:
    """How long the first active schedule has to wait, at least zero; None without one."""
    [(wait,)] = borrow(connection).fetch(SECONDS_UNTIL_DUE)
    return None if wait is None else max(0.0, float(wait))


def trigger_job_schedule(connection: AnyConnection, name: str) -> EnqueuedJob:
    """A job like those that the schedule fires is enqueued now, whether it is paused, and whatever its last job does;
    its next slot stays where it is, and its payload says ``is_manual``.

    Locks the schedule. Raises ScheduleNotFound or ScheduleDefinitionNotFoundOrDisabled.
    """
    ledger = borrow(connection)
    rows = ledger.fetch(LOCK_SCHEDULE, {"name": name})
    if not rows:
        raise ScheduleNotFound(f"no schedule {name!r} is stored")
    schedule_id, now, is_enabled = rows[0]
    if not is_enabled:
        raise ScheduleDefinitionNotFoundOrDisabled(f"the job type of schedule {name!r} is disabled")
    origin = origin_of(schedule_id, name, from_microseconds(now), is_manual=True)
    [job_id] = record_firings(ledger, [(schedule_id, None, origin)]).values()
    ledger.fetch(NOTE_TRIGGERED, {"schedule_id": schedule_id, "job_id": job_id})
    return EnqueuedJob(UUID(job_id), True, JobStatus.PENDING, 1)


def _due(row: Row) -> _Due:
    schedule_id, *timing = row[:5]
    slot, fires_at, now = (from_microseconds(value) for value in row[7:10])
    return _Due(
        schedule_id, Timing(*timing), MissedPolicy(row[5]), OverlapPolicy(row[6]), slot, fires_at, now, *row[10:]
    )


def _decide(due: _Due) -> _Decision:
    name = due.timing.name
    try:
        if not due.is_enabled:
            raise ScheduleDefinitionNotFoundOrDisabled("the definition of the job type is disabled")
        fires_at = min(due.fires_at, due.timing.fire_time(due.slot))  # it may have been put off
        plan = plan_firing(due.timing, due.missed, slot=due.slot, fires_at=fires_at, now=due.now)
    except ValidationError as error:
        unfired = Unfired(name, error.code, str(error))
        return _Decision(due.schedule_id, name, (), due.slot, due.now + DEFERRAL, unfired, is_deferred=True)
    slots, unfired_slot = plan.slots, None
    if slots and due.overlap is OverlapPolicy.SKIP:
        if due.is_last_job_live:
            unfired_slot = Unfired(name, OVERLAP_SKIPPED, "the job of the last firing has not ended")
        slots = () if due.is_last_job_live else slots[:1]
    return _Decision(due.schedule_id, name, slots, plan.next_slot_at, plan.next_fire_at, unfired_slot)


def _fire(ledger: LedgerConnection, decisions: Sequence[_Decision]) -> tuple[Firing, ...]:
    """A job for every slot that had none."""
    slots = [(one, slot) for one in decisions for slot in one.slots]
    wanted = [(one.schedule_id, slot, origin_of(one.schedule_id, one.name, slot)) for one, slot in slots]
    job_ids = record_firings(ledger, wanted) if wanted else {}
    return tuple(Firing(slots[index][0].name, slots[index][1], UUID(job_id)) for index, job_id in job_ids.items())


def _advance(ledger: LedgerConnection, decisions: Sequence[_Decision], job_ids: dict[str, str]) -> None:
    parameters = {
        "schedule_ids": [one.schedule_id for one in decisions],
        "next_slot_ats": [one.next_slot_at for one in decisions],
        "next_fire_ats": [one.next_fire_at for one in decisions],
        "job_ids": [job_ids.get(one.name) for one in decisions],
        "error_codes": [one.unfired and one.unfired.code for one in decisions],
        "error_messages": [one.unfired and one.unfired.message for one in decisions],
    }
    ledger.fetch(ADVANCE_SCHEDULES, parameters)
