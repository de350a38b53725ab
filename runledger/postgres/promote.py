"""Promote: move jobs whose time has come from ``job_scheduled`` to ``job_ready``."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, delete, func, insert, literal_column, select

from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ASKED_AT, CLOCK, first_id_since, parameter, row_address, seconds
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_ready, job_scheduled

LARGEST_PROMOTION = 5_000

_NO_ID: ColumnElement[Any] = literal_column("'00000000-0000-0000-0000-000000000000'::uuid")


@dataclass(frozen=True, slots=True)
class Promotion:
    """How many jobs were promoted, the seconds until the next one is due, and whether any job is ready now, of those
    that were looked at."""

    promoted: int
    next_due_seconds: float | None
    has_ready: bool


_due = (
    select(row_address("job_scheduled").label("address"))
    .select_from(job_scheduled)
    .where(job_scheduled.c.next_run_at <= ASKED_AT)
    .order_by(job_scheduled.c.next_run_at)
    .limit(parameter("limit", Integer))
    .with_for_update(skip_locked=True)
    .cte("due")
    .prefix_with("MATERIALIZED")
)
_columns = [column.name for column in job_scheduled.c]
_taken = (
    delete(job_scheduled)
    .where(row_address("job_scheduled") == func.any(func.array(select(_due.c.address).scalar_subquery())))
    .returning(*job_scheduled.c)
    .cte("taken")
)
_promoted = insert(job_ready).from_select(_columns, select(_taken)).returning(job_ready.c.job_id).cte("promoted")
_first_id = first_id_since(ASKED_AT - seconds("enqueued_within"))
_is_looked_at = job_ready.c.job_id >= func.coalesce(_first_id, _NO_ID)
"""While dead rows cannot be removed, looking for any row steps over all of them."""

PROMOTE_DUE = Statement(
    "promote_due",
    select(
        select(func.count()).select_from(_promoted).scalar_subquery(),
        select(func.extract("epoch", func.min(job_scheduled.c.next_run_at) - CLOCK))
        .where(job_scheduled.c.next_run_at > ASKED_AT)
        .scalar_subquery(),
        select(job_ready.c.job_id).where(_is_looked_at).exists(),
    ),
)


def promote_due_jobs(
    connection: AnyConnection, *, limit: int = LARGEST_PROMOTION, enqueued_within: float | None = None
) -> Promotion:
    """At most ``limit`` due jobs are ready. Whether others are is looked up among all jobs, or only among those that
    were enqueued within so many seconds.

    Jobs that another host is promoting are skipped, never waited for.
    """
    parameters = {"limit": min(limit, LARGEST_PROMOTION), "enqueued_within": enqueued_within}
    [(promoted, wait, has_ready)] = borrow(connection).fetch(PROMOTE_DUE, parameters)
    return Promotion(int(promoted), None if wait is None else max(0.0, float(wait)), promoted > 0 or has_ready)
