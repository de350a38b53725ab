"""What happens to a lease while its attempt runs: renewal, progress, checkpoint."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Text, Uuid, case, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runledger.core.errors import InvalidLeaseDuration, InvalidProgress, LeaseLost
from runledger.core.states import LogLevel, Outcome
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, TRUE, ZERO, as_text, parameter, rows_of, seconds
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_attempts, job_leases, job_logs, job_queue

_lease = job_leases.c

_renewable = (
    select(_lease.job_id)
    .select_from(job_leases)
    .where(_lease.worker_id == func.any(parameter("worker_ids", ARRAY(Text))))
    .where(_lease.lease_token != func.all(parameter("overdue_tokens", ARRAY(BigInteger))))
    .where(_lease.lease_expires_at > CLOCK)
    .with_for_update(skip_locked=True)
    .cte("renewable")
    .prefix_with("MATERIALIZED")
)
RENEW_LEASES = Statement(
    "renew_leases",
    update(job_leases)
    .where(_lease.job_id == func.any(func.array(select(_renewable.c.job_id).scalar_subquery())))
    .values(lease_expires_at=CLOCK + seconds("lease_ttl_seconds"), renewed_at=CLOCK)
    .returning(as_text(_lease.job_id), _lease.lease_token),
)

_held = (
    select(
        _lease.job_id,
        _lease.lease_expires_at,
        _lease.checkpoint,
        func.coalesce(_lease.progress_done, job_queue.c.progress_done).label("progress_done"),
        func.coalesce(_lease.progress_total, job_queue.c.progress_total).label("progress_total"),
    )
    .select_from(job_leases.join(job_queue, job_queue.c.id == _lease.job_id))
    .where(_lease.job_id == parameter("job_id", Uuid))
    .where(_lease.lease_token == parameter("lease_token", BigInteger))
    .with_for_update(of=job_leases)
    .cte("held")
    .prefix_with("MATERIALIZED")
)
_is_live = _held.c.lease_expires_at > CLOCK
_done = func.coalesce(parameter("done", BigInteger), _held.c.progress_done)
_total = func.coalesce(parameter("total", BigInteger), _held.c.progress_total)
_is_valid = (
    func.coalesce(_done >= ZERO, TRUE) & func.coalesce(_total >= ZERO, TRUE) & func.coalesce(_done <= _total, TRUE)
)
_saved = (
    update(job_leases)
    .where(_lease.job_id == parameter("job_id", Uuid))
    .where(_lease.job_id == _held.c.job_id)
    .where(_is_live)
    .where(_is_valid)
    .values(
        progress_done=_done,
        progress_total=_total,
        checkpoint=func.coalesce(parameter("checkpoint", JSONB), _held.c.checkpoint),
    )
    .returning(_lease.job_id)
    .cte("saved")
)
SAVE_PROGRESS = Statement(
    "save_progress",
    select(
        _is_live.label("is_live"), _is_valid.label("is_valid"), case((_saved.c.job_id.is_not(None), TRUE))
    ).select_from(_held.outerjoin(_saved, _saved.c.job_id == _held.c.job_id)),
)

HELD_LEASES = Statement(
    "held_leases",
    select(_lease.lease_token, as_text(_lease.job_id))
    .where(_lease.lease_token == func.any(parameter("lease_tokens", ARRAY(BigInteger))))
    .where(_lease.lease_expires_at > CLOCK),
)

STORED_ATTEMPTS = Statement(
    "stored_attempts",
    select(job_attempts.c.lease_token, as_text(job_attempts.c.outcome))
    .where(job_attempts.c.job_id == func.any(parameter("job_ids", ARRAY(Uuid))))
    .where(job_attempts.c.lease_token == func.any(parameter("lease_tokens", ARRAY(BigInteger)))),
)

_entries = rows_of("entries", level=Text, message=Text, fields=Text)
WRITE_LOGS = Statement(
    "write_job_logs",
    insert(job_logs).from_select(
        ["job_id", "run_number", "attempt", "level", "message", "fields"],
        select(
            _lease.job_id,
            _lease.run_number,
            _lease.attempt,
            _entries.c.level.cast(tables.job_log_level),
            _entries.c.message,
            _entries.c.fields.cast(JSONB),
        )
        .select_from(job_leases.join(_entries, TRUE))
        .where(_lease.job_id == parameter("job_id", Uuid))
        .where(_lease.lease_token == parameter("lease_token", BigInteger))
        .order_by(_entries.c.ordinal),
    ),
)


def renew_leases(
    connection: AnyConnection,
    *,
    worker_ids: Sequence[str],
    lease_ttl_seconds: float,
    overdue_tokens: Sequence[int] = (),
) -> dict[str, int]:
    """Every live lease of these workers ends ``lease_ttl_seconds`` from now; the answer maps job id to token.

    Leases in ``overdue_tokens`` are left to end: their attempts are past their deadline. A lease that somebody is
    settling at this moment is skipped, not waited for, so a renewal can take part in no deadlock.
    """
    if not lease_ttl_seconds > 0:
        raise InvalidLeaseDuration("a lease must last longer than zero seconds")
    if not worker_ids:
        return {}
    rows = borrow(connection).fetch(
        RENEW_LEASES,
        {
            "worker_ids": list(worker_ids),
            "overdue_tokens": list(overdue_tokens),
            "lease_ttl_seconds": lease_ttl_seconds,
        },
    )
    return {row[0]: row[1] for row in rows}


def held_leases(connection: AnyConnection, lease_tokens: Sequence[int]) -> dict[int, str]:
    """Which of these tokens still are live leases, with the job of each. Locks nothing."""
    if not lease_tokens:
        return {}
    return {row[0]: row[1] for row in borrow(connection).fetch(HELD_LEASES, {"lease_tokens": list(lease_tokens)})}


def stored_attempts(
    connection: AnyConnection, lease_tokens: Sequence[int], job_ids: Sequence[str]
) -> dict[int, Outcome]:
    """How the attempts under these tokens ended, where an attempt row exists: settled, by whoever it was."""
    parameters = {"lease_tokens": list(lease_tokens), "job_ids": list(job_ids)}
    return {row[0]: Outcome(row[1]) for row in borrow(connection).fetch(STORED_ATTEMPTS, parameters)}


def save_progress(
    connection: AnyConnection,
    job_id: str,
    lease_token: int,
    *,
    done: int | None = None,
    total: int | None = None,
    checkpoint: str | None = None,
) -> None:
    """Progress and checkpoint (JSON text) are stored; what is None keeps its stored value. Locks the lease row.

    Raises LeaseLost when the lease is not live after the lock, InvalidProgress when the values contradict each other
    after merging with the stored ones; then nothing is written and the lease is as it was.
    """
    rows = borrow(connection).fetch(
        SAVE_PROGRESS,
        {"job_id": job_id, "lease_token": lease_token, "done": done, "total": total, "checkpoint": checkpoint},
    )
    is_live, is_valid, is_saved = rows[0] if rows else (False, True, False)
    if not is_saved and is_live and not is_valid:
        raise InvalidProgress("progress must be 0 <= done <= total, also together with what is stored")
    if not is_saved:
        raise LeaseLost("the lease is not held any more; nothing was written")


def write_logs(
    connection: AnyConnection, job_id: str, lease_token: int, entries: Sequence[tuple[LogLevel, str, str]]
) -> None:
    """The entries (level, message, JSON text of fields) are appended in order, while the lease exists."""
    if entries:
        borrow(connection).fetch(
            WRITE_LOGS,
            {
                "job_id": job_id,
                "lease_token": lease_token,
                "levels": [level.value for level, _, _ in entries],
                "messages": [message for _, message, _ in entries],
                "fieldss": [fields for _, _, fields in entries],
            },
        )
