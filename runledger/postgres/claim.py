"""Claim: take due jobs of the registered types out of ``job_ready`` and lease them, in one statement.

Each type is probed by itself (LATERAL), so a worker never walks the jobs of other types, and a paused type costs
nothing. A first, lockless look decides how many to take of each type, so that a claim locks what it takes and no more.
It may start at the types' waterlines instead of at the head of the line (see ``waterlines``). Types of which only so
many jobs may run at once are left out, but for those that this transaction has locked (see ``limits``).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Text,
    cast,
    delete,
    func,
    insert,
    null,
    or_,
    select,
)

from runledger.core.errors import InvalidLeaseDuration
from runledger.core.jobs import ClaimedJob
from runledger.postgres.arrays import text_array
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, FALSE, ONE, TRUE, as_text, parameter, row_address, rows_of, seconds
from runledger.postgres.limits import IS_LIMITED, LOCK_LIMITED_TYPES, NOTE_STARTS, SHARE, is_locked, lock_parameters
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import job_definitions, job_leases, job_queue, job_ready, lease_token
from runledger.postgres.waterlines import CLAIM_ORDER, FOREVER_AGO, NO_WATERLINES, Waterlines
from runledger.postgres.workflow_inputs import inputs_of, step_key_of

LARGEST_CLAIM = 1_000

_wanted_types = rows_of("wanted_types", job_type=Text, waterline=DateTime(timezone=True))
_queues = parameter("queues", ARRAY(Text))
_runnable = (
    select(
        job_definitions.c.job_type,
        func.coalesce(_wanted_types.c.waterline, FOREVER_AGO).label("waterline"),
        SHARE.label("most"),
    )
    .select_from(_wanted_types.join(job_definitions, job_definitions.c.job_type == _wanted_types.c.job_type))
    .where(~job_definitions.c.is_paused)
    .where(or_(_queues.is_(None), job_definitions.c.queue == func.any(_queues)))
    .where(or_(~IS_LIMITED, is_locked(job_definitions.c.job_type)))
    .cte("runnable")
)
_LIMIT_UNKNOWN_TO_THE_PLANNER = select(parameter("limit", Integer)).scalar_subquery()
"""A known limit beside stale statistics ("this type has no more than that") leads to a bitmap scan and a sort of the
whole backlog, 9 ms instead of 2 behind 20,000 jobs; an unknown one always leads along the index."""
_head = (
    select(job_ready.c.priority, job_ready.c.next_run_at, job_ready.c.job_id)
    .where(job_ready.c.job_type == _runnable.c.job_type)
    .where(job_ready.c.next_run_at >= _runnable.c.waterline)
    .order_by(*CLAIM_ORDER)
    .limit(func.least(_LIMIT_UNKNOWN_TO_THE_PLANNER, _runnable.c.most))
    .lateral("head")
)
_seen = (
    select(_runnable.c.job_type, _runnable.c.waterline)
    .select_from(_runnable.join(_head, TRUE))
    .order_by(_head.c.priority.desc(), _head.c.next_run_at, _head.c.job_id)
    .limit(parameter("limit", Integer))
    .subquery("seen")
)
_shares = (
    select(_seen.c.job_type, _seen.c.waterline, func.count().label("share"))
    .group_by(_seen.c.job_type, _seen.c.waterline)
    .cte("shares")
)
_lockable = (
    select(row_address("job_ready").label("address"))
    .select_from(job_ready)
    .where(job_ready.c.job_type == _shares.c.job_type)
    .where(job_ready.c.next_run_at >= _shares.c.waterline)
    .order_by(*CLAIM_ORDER)
    .limit(_shares.c.share)
    .with_for_update(skip_locked=True)
    .lateral("lockable")
)
_locked = (
    select(_lockable.c.address).select_from(_shares.join(_lockable, TRUE)).cte("locked").prefix_with("MATERIALIZED")
)
_claimed = (
    delete(job_ready)
    .where(row_address("job_ready") == func.any(func.array(select(_locked.c.address).scalar_subquery())))
    .returning(*job_ready.c)
    .cte("claimed")
)
_leased = (
    insert(job_leases)
    .from_select(
        [
            "job_id",
            "lease_token",
            "leased_at",
            "lease_expires_at",
            "next_run_at",
            "workflow_run_id",
            "priority",
            "run_number",
            "attempt",
            "job_type",
            "worker_id",
            "is_limited",
        ],
        select(
            _claimed.c.job_id,
            lease_token.next_value(),
            CLOCK,
            CLOCK + seconds("lease_ttl_seconds"),
            _claimed.c.next_run_at,
            _claimed.c.workflow_run_id,
            _claimed.c.priority,
            _claimed.c.run_number,
            _claimed.c.attempt + ONE,
            _claimed.c.job_type,
            parameter("worker_id", Text),
            is_locked(_claimed.c.job_type),
        ),
    )
    .returning(*job_leases.c)
    .cte("leased")
)


def _claim(step_key: ColumnElement[Any], *more: ColumnElement[Any]) -> Any:
    return (
        select(
            as_text(_leased.c.job_id),
            _leased.c.lease_token,
            _leased.c.job_type,
            _leased.c.run_number,
            _leased.c.attempt,
            job_queue.c.max_attempts,
            job_queue.c.timeout_seconds,
            as_text(job_queue.c.payload),
            as_text(job_queue.c.checkpoint),
            as_text(job_queue.c.organization_id),
            as_text(_leased.c.workflow_run_id),
            step_key,
            func.coalesce(job_queue.c.expires_at <= CLOCK, FALSE),
            as_text(job_queue.c.headers),
            func.extract("epoch", _leased.c.leased_at - _leased.c.next_run_at).cast(Double),
            *more,
        )
        .select_from(_leased.join(job_queue, job_queue.c.id == _leased.c.job_id))
        .order_by(_leased.c.priority.desc(), _leased.c.next_run_at, _leased.c.job_id)
    )


CLAIM_JOBS = Statement("claim_jobs", _claim(cast(null(), Text)))
CLAIM_STEPS = Statement(
    "claim_steps", _claim(step_key_of(job_queue.c.workflow_step_id), inputs_of(job_queue.c.workflow_step_id))
)
"""The same, which also asks for what jobs of workflow runs need; for a worker whose last batch had some."""


def claim_parameters(
    *,
    worker_id: str,
    job_types: Sequence[str],
    limit: int,
    lease_ttl_seconds: float,
    queues: Sequence[str] | None,
    waterlines: Waterlines = NO_WATERLINES,
) -> Parameters:
    """The parameters of ``CLAIM_JOBS``. Raises InvalidLeaseDuration unless the lease lasts longer than zero."""
    if not lease_ttl_seconds > 0:
        raise InvalidLeaseDuration("a lease must last longer than zero seconds")
    wanted = list(dict.fromkeys(job_types))
    return {
        "worker_id": worker_id,
        "job_types": wanted,
        "waterlines": text_array([waterlines.get(job_type) for job_type in wanted]),
        "limit": max(0, min(limit, LARGEST_CLAIM)),
        "lease_ttl_seconds": lease_ttl_seconds,
        "queues": None if queues is None else list(queues),
    }


def claim_jobs(
    connection: AnyConnection,
    *,
    worker_id: str,
    job_types: Sequence[str],
    limit: int,
    lease_ttl_seconds: float,
    queues: Sequence[str] | None = None,
) -> list[ClaimedJob]:
    """Up to ``limit`` (at most 1,000) due jobs are leased to ``worker_id``: highest priority first, then by due time.

    Their attempt counts from here. Jobs that another claim is taking are skipped, never waited for. Without job types
    nothing is asked. The lease lasts ``lease_ttl_seconds`` from now on the database's clock.

    Jobs of a type with a limit are claimed in a transaction only: at most half of the free places, rounded up, and none
    while another transaction claims jobs of the type.
    """
    parameters = claim_parameters(
        worker_id=worker_id, job_types=job_types, limit=limit, lease_ttl_seconds=lease_ttl_seconds, queues=queues
    )
    if not job_types or parameters["limit"] == 0:
        return []
    ledger = borrow(connection)
    if ledger.is_autocommit:
        return [ClaimedJob(*row) for row in ledger.fetch(CLAIM_JOBS, parameters)]
    ledger.fetch(LOCK_LIMITED_TYPES, lock_parameters(ledger.schema, job_types, queues))
    claimed = ledger.fetch(CLAIM_JOBS, parameters)
    ledger.fetch(NOTE_STARTS, {"worker_id": worker_id})
    return [ClaimedJob(*row) for row in claimed]
