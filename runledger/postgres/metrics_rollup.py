"""The roll-up of ended attempts: counted in steps along the time they finished, each exactly once.

A step is one transaction: rows and watermark move together, so a crash repeats it or finds it done. The watermark
passes a moment only when no transaction can still write an attempt that finished before it: a settle takes its
transaction id with the lock of the lease, before it looks at the clock, so whatever is not visible once all ids below
``seen_xid``, an id taken after ``seen_at``, have ended was settled after ``seen_at``. ``REPORT_LAG_SECONDS`` are left
for the way from the end of a handler to its settle.
"""

from dataclasses import dataclass
from datetime import timedelta
from math import log
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Integer,
    SmallInteger,
    Text,
    and_,
    case,
    cast,
    column,
    delete,
    func,
    literal_column,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import array, insert

from runledger.core.metrics import BUCKETS_PER_DOUBLING, DURATION, WAIT
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import (
    NOW,
    ONE,
    ZERO,
    as_microseconds,
    as_text,
    constant,
    from_microseconds,
    parameter,
)
from runledger.postgres.metadata import Timestamp
from runledger.postgres.operator_tables import job_metrics_progress, job_metrics_rollup
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_attempts, job_queue

REPORT_LAG_SECONDS = 60
"""An attempt that is settled longer than this after its handler ended may be missing from the roll-up."""

METRICS_KEPT_DAYS = 31
ANY_SERIES, GLOBAL_SERIES, WORKER_SERIES = "any", "global", "worker"
_SLOT_ORIGIN: ColumnElement[Any] = literal_column("timestamptz '1970-01-01 00:00:00+00'")
_SLOT_WIDTH: ColumnElement[Any] = literal_column("interval '1 hour'")
_LAG: ColumnElement[Any] = literal_column(f"interval '{REPORT_LAG_SECONDS} seconds'")
_OLDEST = NOW - literal_column(f"interval '{METRICS_KEPT_DAYS} days'")
_BUCKETS_PER_E: ColumnElement[Any] = literal_column(f"{BUCKETS_PER_DOUBLING / log(2)!r}::float8", Double)

_attempt, _progress, _rollup = job_attempts.c, job_metrics_progress.c, job_metrics_rollup.c


def moment(name: str) -> ColumnElement[Any]:
    """A parameter as a point in time."""
    return parameter(name, Timestamp)


def bucket_of(duration: ColumnElement[Any]) -> ColumnElement[Any]:
    """The bucket of an interval; NULL of NULL. ``core/metrics.py`` has the scale."""
    milliseconds = cast(func.extract("epoch", duration) * literal_column("1000"), Double)
    number = cast(func.floor(func.ln(milliseconds) * _BUCKETS_PER_E), Integer) + ONE
    return case((milliseconds < ONE, cast(ZERO, Integer)), (milliseconds >= ONE, number))


def counted_attempts(condition: Any, *keys: Any) -> Any:
    """How many attempts for each combination of keys, measure and bucket: how each ended, how long it waited from due
    to leased, and how long its handler ran. What is not known of an attempt is not counted."""
    waited = func.greatest(_attempt.leased_at - _attempt.next_run_at, literal_column("interval '0'"))
    known_wait = case((_attempt.next_run_at.is_not(None), waited))
    outcome, unscaled = as_text(_attempt.outcome), cast(ZERO, Integer)
    measures = (
        func.unnest(
            array([outcome, constant(WAIT), constant(DURATION)]),
            array([unscaled, bucket_of(known_wait), bucket_of(_attempt.finished_at - _attempt.started_at)]),
        )
        .table_valued(column("measure", Text), column("bucket", Integer))
        .render_derived(name="measures")
    )
    groups = (*keys, measures.c.measure, measures.c.bucket)
    return (
        select(*groups, func.count().label("attempts"))
        .select_from(job_attempts.join(job_queue, job_queue.c.id == _attempt.job_id).join(measures, true()))
        .where(condition)
        .where(measures.c.bucket.is_not(None))
        .group_by(*groups)
    )


def _look() -> Any:
    """How far the roll-up is and may go; the first look makes the row."""
    horizon, own_xid = _as_number("pg_snapshot_xmin(pg_current_snapshot())"), _as_number("pg_current_xact_id()")
    has_ended = horizon >= _progress.seen_xid
    made = insert(job_metrics_progress).values(
        id=ONE, counted_until=_OLDEST, safe_until=_OLDEST, seen_at=NOW, seen_xid=own_xid
    )
    return made.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "safe_until": case((has_ended, _progress.seen_at - _LAG), else_=_progress.safe_until),
            "seen_at": case((has_ended, NOW), else_=_progress.seen_at),
            "seen_xid": case((has_ended, own_xid), else_=_progress.seen_xid),
        },
    ).returning(as_microseconds(_progress.counted_until), as_microseconds(_progress.safe_until))


def _as_number(xid: str) -> ColumnElement[Any]:
    return literal_column(f"{xid}::text::bigint", BigInteger)


def _roll_up() -> Any:
    slot = func.date_bin(_SLOT_WIDTH, _attempt.finished_at, _SLOT_ORIGIN).label("slot")
    owner = func.coalesce(as_text(job_queue.c.organization_id), constant(GLOBAL_SERIES)).label("owner")
    step = and_(_attempt.finished_at >= moment("after"), _attempt.finished_at < moment("until"))
    counted = (
        counted_attempts(step, slot, job_queue.c.job_type, owner, _attempt.worker_id)
        .cte("counted")
        .prefix_with("MATERIALIZED")
    )
    one = counted.c
    series = union_all(
        *(
            select(of.label("series"), one.slot, name.label("name"), one.measure, one.bucket, one.attempts)
            for of, name in (
                (constant(ANY_SERIES), one.job_type),
                (one.owner, one.job_type),
                (constant(WORKER_SERIES), one.worker_id),
            )
        )
    ).subquery("series")
    keys = (series.c.series, series.c.slot, series.c.name, series.c.measure, cast(series.c.bucket, SmallInteger))
    total = cast(func.sum(series.c.attempts), BigInteger)
    added = insert(job_metrics_rollup).from_select(
        [name.name for name in _rollup], select(*keys, total).group_by(*keys)
    )
    merged = added.on_conflict_do_update(
        constraint="pk_job_metrics_rollup", set_={"attempts": _rollup.attempts + added.excluded.attempts}
    )
    moved = update(job_metrics_progress).where(_progress.id == ONE).values(counted_until=moment("until")).cte("moved")
    is_outcome = one.measure.not_in([constant(WAIT), constant(DURATION)])
    return select(func.coalesce(func.sum(one.attempts).filter(is_outcome), ZERO)).add_cte(merged.cte("merged"), moved)


ALLOW_BRIN = Statement(
    "allow_brin", select(func.set_config(constant("enable_bitmapscan"), constant("on"), literal_column("true")))
)
"""Until the end of the transaction. The index over ``finished_at`` can be read in no other way, and on the connections
of the processes it is off: the whole history would be read for the attempts of a few seconds."""

LOOK_AT_METRICS = Statement("look_at_metrics", _look())
ROLL_UP_METRICS = Statement("roll_up_metrics", _roll_up())
PRUNE_METRICS = Statement(
    "prune_metrics", delete(job_metrics_rollup).where(_rollup.slot < _OLDEST).returning(_rollup.slot)
)


@dataclass(frozen=True, slots=True)
class RolledUp:
    """What one step did: how many attempts it counted, and whether more may be counted at once."""

    attempts: int
    is_behind: bool


def roll_up_metrics(connection: AnyConnection, *, step: timedelta) -> RolledUp:
    """The attempts that finished within ``step`` after the watermark are counted, and the watermark moves.

    For one transaction at a time, with the lock of the reaper; commit afterwards. Touches attempts and records only by
    reading, and locks the row of the progress.
    """
    ledger = borrow(connection)
    ledger.fetch(ALLOW_BRIN)
    [row] = ledger.fetch(LOOK_AT_METRICS)
    after, safe_until = from_microseconds(row[0]), from_microseconds(row[1])
    if after >= safe_until:
        return RolledUp(0, is_behind=False)
    until = min(after + step, safe_until)
    [counted] = ledger.fetch(ROLL_UP_METRICS, {"after": after.isoformat(), "until": until.isoformat()})
    return RolledUp(int(counted[0]), is_behind=until < safe_until)


def prune_metrics(connection: AnyConnection) -> int:
    """Figures older than 31 days leave; how many rows."""
    return len(borrow(connection).fetch(PRUNE_METRICS))
