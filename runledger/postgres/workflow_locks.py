"""The lock that orders everything that happens to a run: its row, taken before any job, lease or step.

Several runs are locked in the order of their ids, in one statement, so two batches that touch the same runs wait for
each other and never in a circle. Inserting steps is not held up by it (FOR NO KEY UPDATE).
"""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Interval, Uuid, case, cast, func, literal_column, or_, select

from runledger.core.errors import LockNotAvailable, TransactionRequired
from runledger.core.workflow_errors import WorkflowReleaseConflict, WorkflowUnsupportedIsolation
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.expressions import TRUE, any_of_few, as_text, constant
from runledger.postgres.keys import IS_READ_COMMITTED
from runledger.postgres.statements import Call, Row, Statement
from runledger.postgres.tables import workflow_runs

LONGEST_WAIT = "5s"
"""How long one run is waited for. A shorter ``lock_timeout`` of the connection stays as it is."""

_run = workflow_runs.c
_NOT_AT_ALL: ColumnElement[Any] = literal_column("interval '0'")
_LONGEST: ColumnElement[Any] = literal_column(f"interval '{LONGEST_WAIT}'")
_before = (
    select(func.current_setting(constant("lock_timeout")).label("value")).cte("before").prefix_with("MATERIALIZED")
)
_is_longer = or_(cast(_before.c.value, Interval) == _NOT_AT_ALL, cast(_before.c.value, Interval) > _LONGEST)
_patience = case((_is_longer, constant(LONGEST_WAIT)), else_=_before.c.value)
_bounded = (
    select(func.set_config(constant("lock_timeout"), _patience, TRUE).label("value"))
    .cte("bounded")
    .prefix_with("MATERIALIZED")
)
_locked = (
    select(_run.id)
    .where(_run.id == any_of_few("run_ids", Uuid))
    .where(IS_READ_COMMITTED)
    .where(select(_bounded.c.value).scalar_subquery().is_not(None))
    .order_by(_run.id)
    .with_for_update(key_share=True)
    .cte("locked")
    .prefix_with("MATERIALIZED")
)
LOCK_RUNS = Statement(
    "lock_workflow_runs",
    select(
        IS_READ_COMMITTED,
        func.string_agg(as_text(_locked.c.id), constant(",")),
        func.set_config(constant("lock_timeout"), select(_before.c.value).scalar_subquery(), TRUE),
    ).select_from(_locked),
)
"""The bound on the wait is set before the first row is locked and taken back after the last one, in one statement, so
a borrowed connection keeps its own setting."""

TRY_LOCK_RUNS = Statement(
    "try_lock_workflow_runs",
    select(as_text(_run.id))
    .where(_run.id == any_of_few("run_ids", Uuid))
    .order_by(_run.id)
    .with_for_update(key_share=True, skip_locked=True),
)


def lock_runs(
    ledger: LedgerConnection, run_ids: Collection[str], *, unsupported: type[WorkflowUnsupportedIsolation]
) -> list[str]:
    """The rows of these runs are locked until the end of the transaction, in the order of their ids; answers with those
    that exist.

    Raises TransactionRequired in autocommit, ``unsupported`` when the transaction is not READ COMMITTED, before any
    lock, and WorkflowReleaseConflict when somebody held a run for longer than five seconds.
    """
    return locked_runs(ledger.fetch_each([lock_call(ledger, run_ids)]), unsupported=unsupported)


def lock_call(ledger: LedgerConnection, run_ids: Collection[str]) -> Call:
    """The call of ``lock_runs``, to be made together with others; its answer goes to ``locked_runs``."""
    if ledger.is_autocommit:
        raise TransactionRequired("open a transaction: what happens to a workflow run commits together")
    return LOCK_RUNS, {"run_ids": sorted(set(run_ids))}


def locked_runs(answers: Iterator[list[Row]], *, unsupported: type[WorkflowUnsupportedIsolation]) -> list[str]:
    """What ``lock_runs`` says, from the next of ``answers``."""
    try:
        is_read_committed, locked, _ = next(answers)[0]
    except LockNotAvailable as error:
        message = "another transaction held the workflow run for too long; try again"
        raise WorkflowReleaseConflict(message, error.internal_message) from None
    if not is_read_committed:
        raise unsupported("this operation on a workflow run needs READ COMMITTED")
    return locked.split(",") if locked else []


def try_lock_runs(ledger: LedgerConnection, run_ids: Collection[str]) -> list[str]:
    """The same without waiting: answers with the runs that are locked now; those that somebody else holds are left
    out."""
    return [row[0] for row in ledger.fetch(TRY_LOCK_RUNS, {"run_ids": sorted(set(run_ids))})] if run_ids else []
