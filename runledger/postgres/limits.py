"""Limits of the fleet: of some types at most ``max_running`` jobs have a lease at a time.

A claim of such jobs has two statements. The first locks the types whose jobs wait while places are free; the second
sees every lease that was committed before, counts them, and takes what is left. The locks end with the transaction.
Nothing is counted up or down: a place is free when a lease is gone, whichever way an attempt ends.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
)

from runledger.postgres.arrays import text_array
from runledger.postgres.expressions import ONE, TRUE, ZERO, constant, parameter, rows_of
from runledger.postgres.keys import IS_READ_COMMITTED
from runledger.postgres.locks import try_lock_type
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_definitions, job_leases, job_ready
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


_running = (
    select(func.count())
    .where(job_leases.c.job_type == _definition.job_type)
    .where(job_leases.c.is_limited)
    .correlate(job_definitions)
    .scalar_subquery()
)
_free = func.greatest(ZERO, _definition.max_running - _running)

SHARE = case((_definition.max_running.is_(None), null()), else_=cast(_free + ONE, Integer).op("/")(_TWO))
"""How many jobs of a row of ``job_definitions`` a claim may take; null without a limit. Half of what is free: a worker
runs them one after the other, while another one could run the rest."""

_wanted_types = rows_of("wanted_types", job_type=Text, waterline=DateTime(timezone=True))
_queues = parameter("queues", ARRAY(Text))
_waits = exists(
    select(ONE)
    .where(job_ready.c.job_type == _definition.job_type)
    .where(job_ready.c.next_run_at >= func.coalesce(_wanted_types.c.waterline, FOREVER_AGO))
)
_claimable = (
    select(_definition.job_type)
    .select_from(_wanted_types.join(job_definitions, _definition.job_type == _wanted_types.c.job_type))
    .where(~_definition.is_paused)
    .where(or_(_queues.is_(None), _definition.queue == func.any(_queues)))
    .where(_definition.max_running > _running)
    .where(_waits)
    .cte("claimable")
    .prefix_with("MATERIALIZED")
)
_tried = (
    select(_claimable.c.job_type, try_lock_type(_claimable.c.job_type).label("is_locked"))
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
    ).select_from(_tried),
)
"""The types that were locked, as an array of PostgreSQL, and how many others hold: their next jobs go to somebody else.
Under another isolation than READ COMMITTED none is: the claim would not see the leases of a moment ago."""


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


SELECT_LIMITED_TYPES = Statement(
    "select_limited_types",
    select(_definition.job_type)
    .where(_definition.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .where(_definition.max_running.is_not(None)),
)
