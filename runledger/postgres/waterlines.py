"""Waterlines: for each job type, a due time before which no ready job was seen a moment ago.

While some transaction stays open for long, rows that were claimed cannot be removed, and a claim that starts at the
head of the line steps over all of them: 50 ms behind 120,000. One that starts at the waterline steps over those of the
last second. What becomes visible below it, because its transaction was long or because it went back to an old place in
line, is found by the next look at the whole line.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sqlalchemy import DateTime, Integer, Text, case, func, literal_column, select

from runledger.postgres.arrays import text_array
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import NOW, ONE, TRUE, as_text, parameter, rows_of, seconds
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_ready

Waterlines: TypeAlias = Mapping[str, str]
"""Job type → due time, as the server wrote it; a type that is missing is looked at from the head of its line."""

NO_WATERLINES: Waterlines = {}

SLACK_SECONDS = 0.5
"""Jobs are due when their transaction began, and seen when it commits: so much is left for that."""

MOST_PRIORITIES = 64
"""Priorities of one type that are looked at; a type with more of them has no waterline."""

CLAIM_ORDER = (job_ready.c.priority.desc(), job_ready.c.next_run_at, job_ready.c.job_id)
FOREVER_AGO = literal_column("'-infinity'::timestamptz", DateTime(timezone=True))

_types = rows_of("wanted_types", job_type=Text, waterline=DateTime(timezone=True))
_asked = select(_types.c.job_type, func.coalesce(_types.c.waterline, FOREVER_AGO).label("waterline")).cte("asked")
_first = (
    select(job_ready.c.priority, job_ready.c.next_run_at)
    .where(job_ready.c.job_type == _asked.c.job_type)
    .where(job_ready.c.next_run_at >= _asked.c.waterline)
    .order_by(*CLAIM_ORDER)
    .limit(ONE)
    .lateral("first")
)
_heads = (
    select(_asked.c.job_type, _asked.c.waterline, _first.c.priority, _first.c.next_run_at, ONE.label("depth"))
    .select_from(_asked.join(_first, TRUE))
    .cte("heads", recursive=True)
)
_next = (
    select(job_ready.c.priority, job_ready.c.next_run_at)
    .where(job_ready.c.job_type == _heads.c.job_type)
    .where(job_ready.c.priority < _heads.c.priority)
    .where(job_ready.c.next_run_at >= _heads.c.waterline)
    .order_by(*CLAIM_ORDER)
    .limit(ONE)
    .lateral("next")
)
_heads = _heads.union_all(
    select(_heads.c.job_type, _heads.c.waterline, _next.c.priority, _next.c.next_run_at, _heads.c.depth + ONE)
    .select_from(_heads.join(_next, TRUE))
    .where(_heads.c.depth < parameter("most_priorities", Integer))
)
_seen_all = func.coalesce(func.max(_heads.c.depth), ONE) < parameter("most_priorities", Integer)
_due = func.coalesce(func.min(_heads.c.next_run_at), NOW)
FIND_WATERLINES = Statement(
    "find_waterlines",
    select(_asked.c.job_type, case((_seen_all, as_text(func.least(_due, NOW) - seconds("slack_seconds")))))
    .select_from(_asked.outerjoin(_heads, _heads.c.job_type == _asked.c.job_type))
    .group_by(_asked.c.job_type),
)


def find_waterlines(
    connection: AnyConnection, job_types: Sequence[str], *, start: Waterlines = NO_WATERLINES
) -> dict[str, str]:
    """The waterlines of these types: half a second before the earliest ready job, or before now where there is none.

    With ``start``, what lies below it is not looked at, so the answer is quick and never lower.
    """
    wanted = list(dict.fromkeys(job_types))
    rows = borrow(connection).fetch(
        FIND_WATERLINES,
        {
            "job_types": wanted,
            "waterlines": text_array([start.get(job_type) for job_type in wanted]),
            "most_priorities": MOST_PRIORITIES,
            "slack_seconds": SLACK_SECONDS,
        },
    )
    return {job_type: waterline for job_type, waterline in rows if waterline is not None}
