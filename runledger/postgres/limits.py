"""Limits of the fleet: of some types at most ``max_running`` jobs have a lease at a time, or at most so many start in a
span of time.

A claim of such jobs has three statements in one transaction. The first locks the types whose jobs wait while the limit
lets some of them start; the second, the claim, sees everything that was committed before, counts, and takes what is
left; the third notes what started. The locks end with the transaction. What runs is counted by its leases, so a place
is free when a lease is gone, whichever way an attempt ends.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    DateTime,
    Double,
    Text,
    case,
    cast,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.postgres.arrays import text_array
from runledger.postgres.expressions import (
    ASKED_AT,
    CLOCK,
    ONE,
    ONE_SECOND,
    TRUE,
    ZERO,
    as_text,
    constant,
    ids_of,
    parameter,
    row_address,
    rows_of,
)
from runledger.postgres.keys import IS_READ_COMMITTED
from runledger.postgres.locks import try_lock_type
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_definitions, job_leases, job_ready, job_starts
from runledger.postgres.waterlines import FOREVER_AGO, NO_WATERLINES, Waterlines

_SETTING = constant("runledger.locked_types")
"""Where the first statement tells the second what it has locked; gone at the end of the transaction."""

_NOTHING = constant("{}")
_TWO: ColumnElement[Any] = literal_column("2")
_definition = job_definitions.c


def is_locked(job_type: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether this transaction has locked the type."""
    told = func.nullif(func.current_setting(_SETTING, TRUE), constant(""))
    locked = select(cast(func.coalesce(told, _NOTHING), ARRAY(Text))).scalar_subquery()
    return job_type == func.any(cast(locked, ARRAY(Text)))


def _half_of(places: ColumnElement[Any]) -> ColumnElement[Any]:
    """Rounded up; none of fewer than none."""
    return (func.greatest(ZERO, places) + ONE).self_group().op("/")(_TWO)


_running = (
    select(func.count())
    .where(job_leases.c.job_type == _definition.job_type)
    .where(job_leases.c.is_limited)
    .correlate(job_definitions)
    .scalar_subquery()
)
HAS_PLACE = or_(_definition.max_running.is_(None), _definition.max_running > _running)
"""Of a row of ``job_definitions``: whether one more of its jobs may run at once."""

_span = _definition.rate_seconds * ONE_SECOND
_counted = (job_starts.c.job_type == _definition.job_type) & (job_starts.c.started_at > ASKED_AT - _span)
_started = select(func.count()).where(_counted).correlate(job_definitions).scalar_subquery()

IS_LIMITED = func.coalesce(_definition.max_running, _definition.rate_starts).is_not(None)
"""Whether a row of ``job_definitions`` has a limit of either kind."""

SHARE = func.least(
    case((_definition.max_running.is_(None), null()), else_=(_half_of(_definition.max_running - _running))),
    case((_definition.rate_starts.is_(None), null()), else_=func.greatest(ZERO, _definition.rate_starts - _started)),
)
"""How many jobs of the type a claim may take; null without a limit. Half of the free places: a worker runs its jobs one
after the other, while another one could run the rest."""

_wanted_types = rows_of("wanted_types", job_type=Text, waterline=DateTime(timezone=True))
_queues = parameter("queues", ARRAY(Text))
_waits = (
    select(TRUE)
    .where(job_ready.c.job_type == _definition.job_type)
    .where(job_ready.c.next_run_at >= func.coalesce(_wanted_types.c.waterline, FOREVER_AGO))
    .limit(ONE)
    .correlate(job_definitions, _wanted_types)
    .scalar_subquery()
)
"""No EXISTS, which becomes a join: with statistics of an empty table its plan reads the whole index."""

_free_in = (
    select(func.extract("epoch", func.min(job_starts.c.started_at) + _span - CLOCK).cast(Double))
    .where(_counted)
    .having(func.count() >= _definition.rate_starts)
    .correlate(job_definitions)
    .scalar_subquery()
)
_waiting = (
    select(_definition.job_type)
    .select_from(_wanted_types.join(job_definitions, _definition.job_type == _wanted_types.c.job_type))
    .where(IS_LIMITED)
    .where(~_definition.is_paused)
    .where(or_(_queues.is_(None), _definition.queue == func.any(_queues)))
    .where(_waits)
    .cte("waiting")
    .prefix_with("MATERIALIZED")
)
_open = (
    select(_definition.job_type, case((_definition.rate_starts.is_not(None), _free_in)).label("free_in"))
    .select_from(_waiting.join(job_definitions, _definition.job_type == _waiting.c.job_type))
    .where(HAS_PLACE)
    .cte("open")
    .prefix_with("MATERIALIZED")
)
"""What runs is counted only of types whose jobs wait."""

_tried = (
    select(_open.c.job_type, try_lock_type(_open.c.job_type).label("is_locked"))
    .where(_open.c.free_in.is_(None))
    .where(IS_READ_COMMITTED)
    .cte("tried")
    .prefix_with("MATERIALIZED")
)
LOCK_LIMITED_TYPES = Statement(
    "lock_limited_types",
    select(
        func.set_config(
            _SETTING,
            cast(func.coalesce(func.array_agg(_tried.c.job_type).filter(_tried.c.is_locked), _NOTHING), Text),
            TRUE,
        ),
        func.count().filter(~_tried.c.is_locked),
        select(func.min(_open.c.free_in)).scalar_subquery(),
    ).select_from(_tried),
)
"""The types that were locked, as an array of PostgreSQL; how many others hold, whose next jobs go to somebody else; and
the seconds until a rate lets the next job start, of types that have to wait for it.

Under another isolation than READ COMMITTED none is locked: the claim would not see the leases of a moment ago."""

_rated = (
    select(_definition.job_type, _span.label("span"))
    .where(_definition.rate_starts.is_not(None))
    .where(is_locked(_definition.job_type))
    .cte("rated")
)
_outdated = (
    select(row_address("job_starts").label("address"))
    .select_from(job_starts.join(_rated, _rated.c.job_type == job_starts.c.job_type))
    .where(job_starts.c.started_at <= ASKED_AT - _rated.c.span)
    .with_for_update(of=job_starts, skip_locked=True)
    .cte("outdated")
    .prefix_with("MATERIALIZED")
)
_forgotten = (
    delete(job_starts)
    .where(row_address("job_starts") == func.any(func.array(select(_outdated.c.address).scalar_subquery())))
    .cte("forgotten")
)
NOTE_STARTS = Statement(
    "note_starts",
    upsert(job_starts)
    .from_select(
        ["job_type", "started_at", "lease_token"],
        select(job_leases.c.job_type, job_leases.c.leased_at, job_leases.c.lease_token)
        .select_from(job_leases.join(_rated, _rated.c.job_type == job_leases.c.job_type))
        .where(job_leases.c.is_limited)
        .where(job_leases.c.worker_id == parameter("worker_id", Text))
        .where(job_leases.c.leased_at > ASKED_AT - _rated.c.span),
    )
    .on_conflict_do_nothing()
    .returning(job_starts.c.lease_token)
    .add_cte(_forgotten),
)
"""What this worker has claimed of types with a rate is noted, once; starts that count no more are forgotten."""


def unspent_starts(live: CTE) -> CTE:
    """Of leases that end: what has not begun was no start."""
    row = live.c
    return (
        delete(job_starts)
        .where(job_starts.c.job_type == row.job_type)
        .where(job_starts.c.started_at == row.leased_at)
        .where(job_starts.c.lease_token == row.lease_token)
        .where(row.is_unstarted)
        .where(row.is_limited)
        .cte("unspent")
    )


def lock_parameters(
    schema: str, job_types: Sequence[str], queues: Sequence[str] | None, waterlines: Waterlines = NO_WATERLINES
) -> Parameters:
    """The parameters of ``LOCK_LIMITED_TYPES``; the last two are those of the claim that follows."""
    return {
        "schema": schema,
        "job_types": list(job_types),
        "waterlines": text_array([waterlines.get(job_type) for job_type in job_types]),
        "queues": None if queues is None else list(queues),
    }


_uncounted = (
    select(job_leases.c.job_id)
    .where(job_leases.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .where(~job_leases.c.is_limited)
    .with_for_update(skip_locked=True)
    .cte("uncounted")
    .prefix_with("MATERIALIZED")
)
COUNT_WHAT_RUNS = Statement(
    "count_what_runs",
    update(job_leases)
    .where(job_leases.c.job_id == ids_of(_uncounted))
    .values(is_limited=TRUE)
    .returning(as_text(job_leases.c.job_id)),
)
"""For types that have just got a limit: what was claimed before counts, too. A lease that is about to end does not."""

SELECT_LIMITED_TYPES = Statement(
    "select_limited_types",
    select(_definition.job_type)
    .where(_definition.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .where(IS_LIMITED),
)
