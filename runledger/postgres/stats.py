"""The figures of a queue at a glance: counted on the narrow tables, never on the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Double, Integer, Text, func, select

from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, constant, parameter
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_leases, job_ready, job_scheduled


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Where the jobs of one type are now. ``oldest_ready_seconds`` is how long the first in line has been due."""

    job_type: str
    queue: str
    is_enabled: bool
    is_paused: bool
    ready: int
    scheduled: int
    leased: int
    oldest_ready_seconds: float | None


def _counted(place: Any, name: str, oldest: ColumnElement[Any]) -> Any:
    return (
        select(place.c.job_type, func.count().label("jobs"), oldest.label("oldest"))
        .group_by(place.c.job_type)
        .subquery(name)
    )


_readied = _counted(job_ready, "readied", func.extract("epoch", CLOCK - func.min(job_ready.c.next_run_at)).cast(Double))
_waiting = _counted(
    job_scheduled, "waiting", func.extract("epoch", func.min(job_scheduled.c.next_run_at) - CLOCK).cast(Double)
)
_leased = _counted(job_leases, "leased", func.extract("epoch", CLOCK - func.min(job_leases.c.leased_at)).cast(Double))
_zero = constant("0").cast(BigInteger)
QUEUE_STATS = Statement(
    "queue_stats",
    select(
        tables.job_definitions.c.job_type,
        tables.job_definitions.c.queue,
        tables.job_definitions.c.is_enabled,
        tables.job_definitions.c.is_paused,
        func.coalesce(_readied.c.jobs, _zero),
        func.coalesce(_waiting.c.jobs, _zero),
        func.coalesce(_leased.c.jobs, _zero),
        _readied.c.oldest,
    )
    .select_from(
        tables.job_definitions.outerjoin(_readied, _readied.c.job_type == tables.job_definitions.c.job_type)
        .outerjoin(_waiting, _waiting.c.job_type == tables.job_definitions.c.job_type)
        .outerjoin(_leased, _leased.c.job_type == tables.job_definitions.c.job_type)
    )
    .order_by(tables.job_definitions.c.job_type),
)
UNFINISHED_WORK = Statement(
    "unfinished_work",
    select(
        select(job_ready.c.job_id)
        .where(job_ready.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
        .exists()
        .label("has_ready"),
        select(job_leases.c.job_id)
        .where(job_leases.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
        .exists()
        .label("has_leased"),
        select(job_scheduled.c.job_id)
        .where(job_scheduled.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
        .where(job_scheduled.c.attempt > constant("0").cast(Integer))
        .exists()
        .label("has_retries"),
    ),
)


def get_queue_stats(connection: AnyConnection) -> list[QueueStats]:
    """One line for each defined job type. Reads the narrow tables, never the records."""
    return [QueueStats(*row) for row in borrow(connection).fetch(QUEUE_STATS)]


def has_unfinished_work(connection: AnyConnection, job_types: Sequence[str]) -> bool:
    """Whether any job of these types is due, running, or waiting for a retry; a first run in the future is not work."""
    [row] = borrow(connection).fetch(UNFINISHED_WORK, {"job_types": list(job_types)})
    return any(row)
