"""Time passes in a test database: everything stored lies further in the past, so what was to come is due.

The database's clock decides what is due, and no test can move that. Moving every stored time by the same amount keeps
their order, so retries, delays, schedules, leases and expiries behave as if the hours had passed.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Double, literal_column, update

from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ONE_SECOND, parameter
from runledger.postgres.statements import Statement
from runledger.postgres.tables import Timestamp, job_queue, metadata, runledger_migration_history

_FAR: ColumnElement[Any] = literal_column("interval '8766000 hours'")
"""A thousand years. The slots of a schedule are unique, and moved by one slot they would meet each other halfway: so
they all go far away first."""

LEAVE_SLOTS = Statement(
    "leave_slots",
    update(job_queue)
    .where(job_queue.c.scheduled_for.is_not(None))
    .values(scheduled_for=job_queue.c.scheduled_for - _FAR),
)
REJOIN_SLOTS = Statement(
    "rejoin_slots",
    update(job_queue)
    .where(job_queue.c.scheduled_for.is_not(None))
    .values(scheduled_for=job_queue.c.scheduled_for + _FAR),
)
SHIFT_TIMES = tuple(
    Statement(
        f"shift_{table.name}",
        update(table).values({column: column - parameter("seconds", Double) * ONE_SECOND for column in columns}),
    )
    for table in metadata.sorted_tables
    if not table.info.get("is_view")
    and table is not runledger_migration_history
    and (columns := [column for column in table.columns if column.type is Timestamp])
)


def travel(
    connection: AnyConnection, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> None:
    """This much time has passed for every job, lease, schedule and run of the database, once the transaction commits.

    Only for tests: it rewrites every row. Python's own clock does not move. The moment at which a schedule fires after
    it is the shifted one, not one that its cron names. Raises ValueError unless the time is above zero.
    """
    passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    if passed <= 0:
        raise ValueError("travel goes forward: the time that passes must be above zero")
    ledger = borrow(connection)
    ledger.fetch(LEAVE_SLOTS)
    for statement in SHIFT_TIMES:
        ledger.fetch(statement, {"seconds": passed})
    ledger.fetch(REJOIN_SLOTS)
