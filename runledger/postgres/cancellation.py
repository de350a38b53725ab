"""What a cancellation leaves behind, of one job or of all live jobs of a run: ended attempts, records, timeline."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, BigInteger, Text, Uuid, func, insert, null, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from runledger.core.states import JobEventType, JobStatus, Outcome
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, ONE, ZERO, as_text, constant, ids_of, literal, parameter
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_attempts, job_events, job_leases, job_queue

_record = job_queue.c
_last_token = (
    select(job_attempts.c.lease_token)
    .where(job_attempts.c.job_id == _record.id)
    .order_by(job_attempts.c.lease_token.desc())
    .limit(ONE)
    .scalar_subquery()
)
_unquiet = (
    select(_record.id)
    .where(_record.id == func.any(parameter("job_ids", ARRAY(Uuid))))
    .where(_record.quiesces_at > CLOCK)
    .where(_last_token == func.any(parameter("lease_tokens", ARRAY(BigInteger))))
    .order_by(_record.id)
    .with_for_update(skip_locked=True)
    .cte("unquiet")
    .prefix_with("MATERIALIZED")
)
QUIESCE_CANCELED = Statement(
    "quiesce_canceled",
    update(job_queue)
    .where(_record.id == func.any(func.array(select(_unquiet.c.id).scalar_subquery())))
    .values(quiesces_at=null())
    .returning(as_text(_record.id)),
)

_reason = parameter("reason", Text)
_actor = parameter("actor", Text)
_of_lease = (
    job_leases.c.lease_token,
    job_leases.c.lease_expires_at,
    job_leases.c.checkpoint,
    job_leases.c.progress_done,
    job_leases.c.progress_total,
)


def _waiting(place: Any) -> Any:
    nothing = (null().cast(column.type).label(column.name) for column in _of_lease)
    return select(place.c.job_id, place.c.run_number, place.c.attempt, *nothing)


def canceled(ready: Any, scheduled: Any, leased: Any) -> Any:
    """The jobs whose rows were deleted from their places are CANCELED, with the id and the lease token of each; a
    running attempt has ended with its lease."""
    taken = _taken(ready, scheduled, leased)
    return select(as_text(taken.c.job_id), taken.c.lease_token).add_cte(
        _attempted(leased), _completed(taken), _told(taken)
    )


def _taken(ready: Any, scheduled: Any, leased: Any) -> Any:
    """Where each job was, in one shape."""
    return (
        _waiting(ready)
        .union_all(
            _waiting(scheduled),
            select(
                leased.c.job_id,
                leased.c.run_number,
                leased.c.attempt,
                *(leased.c[column.name] for column in _of_lease),
            ),
        )
        .cte("taken")
    )


def _attempted(leased: Any) -> CTE:
    return (
        insert(job_attempts)
        .from_select(
            [
                "job_id",
                "lease_token",
                "run_number",
                "attempt",
                "leased_at",
                "next_run_at",
                "finished_at",
                "outcome",
                "worker_id",
                "error_code",
                "error_message",
            ],
            select(
                leased.c.job_id,
                leased.c.lease_token,
                leased.c.run_number,
                leased.c.attempt,
                leased.c.leased_at,
                leased.c.next_run_at,
                CLOCK,
                literal(Outcome.CANCELED, tables.job_outcome),
                leased.c.worker_id,
                constant("job.canceled"),
                _reason,
            ),
        )
        .cte("attempted")
    )


def _completed(taken: CTE) -> CTE:
    return (
        update(job_queue)
        .where(_record.id == ids_of(taken), _record.id == taken.c.job_id)
        .values(
            final_status=literal(JobStatus.CANCELED, tables.job_status),
            finished_at=CLOCK,
            quiesces_at=taken.c.lease_expires_at,
            run_number=taken.c.run_number,
            attempt=taken.c.attempt,
            status_reason=func.coalesce(_reason, constant("CANCELED")),
            checkpoint=func.coalesce(taken.c.checkpoint, _record.checkpoint),
            progress_done=func.coalesce(taken.c.progress_done, _record.progress_done),
            progress_total=func.coalesce(taken.c.progress_total, _record.progress_total),
        )
        .cte("completed")
    )


def _told(taken: CTE) -> CTE:
    return (
        insert(job_events)
        .from_select(
            ["job_id", "run_number", "attempt", "event_type", "actor", "reason", "detail"],
            select(
                taken.c.job_id,
                taken.c.run_number,
                func.nullif(taken.c.attempt, ZERO),
                literal(JobEventType.CANCELED, tables.job_event_type),
                _actor,
                _reason,
                func.jsonb_strip_nulls(
                    func.jsonb_build_object(
                        constant("lease_token"), taken.c.lease_token, constant("quiesces_at"), taken.c.lease_expires_at
                    )
                ),
            ),
        )
        .cte("told")
    )


def quiesce_canceled(connection: AnyConnection, job_ids: Sequence[str], lease_tokens: Sequence[int]) -> list[str]:
    """The attempts under these tokens have ended, whatever was to become of them: where a cancellation waited for the
    end of a lease, its job may be requeued and its run be run again now. Answers with the jobs for which that is news.
    Waits for nobody: a record that is locked is left as it is, and the end of the lease decides.
    """
    parameters = {"job_ids": list(job_ids), "lease_tokens": list(lease_tokens)}
    return [row[0] for row in borrow(connection).fetch(QUIESCE_CANCELED, parameters)]
