"""Settle: write how attempts ended, many at once, each fenced by its lease.

The lease rows are locked first, in the order of their ids, and only then judged by the wall clock: a lease that ends
while its settle waits for the row is refused. Everything else follows from the locked rows, in the same statement.
Ids that do not come back were not settled: their lease was lost, and nothing was written for them.

Successes, which are most of all settles, have a lean statement of their own; every other end shares the full one,
whoever reports it: the worker itself, the keeper for a dead worker, or the reaper for a lapsed lease.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import (
    CTE,
    Integer,
    Text,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core.results import Ended, LeaseCheck, Succeeded, ends_a_step, runs_to_lock
from runledger.core.states import JobEventType, JobStatus, Outcome
from runledger.core.workflow_errors import TerminalCompletionUnsupportedIsolation
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.dead_letters import dead_lettered, hooks_of
from runledger.postgres.expressions import (
    CLOCK,
    ONE,
    ONE_SECOND,
    TRUE,
    ZERO,
    as_text,
    constant,
    keyed,
    literal,
    parameter,
    rows_of,
)
from runledger.postgres.limits import unspent_starts
from runledger.postgres.outcomes import ENDED_COLUMNS, SUCCEEDED_COLUMNS, ended_parameters, succeeded_parameters
from runledger.postgres.statements import Call, Row, Statement
from runledger.postgres.tables import (
    job_attempts,
    job_events,
    job_leases,
    job_queue,
    job_ready,
    job_scheduled,
)
from runledger.postgres.workflow_locks import lock_call, locked_runs
from runledger.postgres.workflow_steps import advance_call, propagate

_LEASE = job_leases.c


def _held(reported: Any) -> CTE:
    """The reported leases that exist under their token, locked in the order of their ids.

    Each is looked up by itself. A join has two directions, and statistics of a moment at which nobody held a lease make
    the planner begin with the leases: with all that have ended, while their rows cannot be removed. What the look-up
    has compared is compared again for the planner, which expects few rows then and looks up their records, too.
    """
    columns = [column.name for column in reported.c if column.name not in ("job_id", "lease_token", "ordinal")]
    ordered = select(reported).order_by(reported.c.job_id).subquery("ordered")
    lease = (
        select(*_LEASE)
        .where(_LEASE.job_id == ordered.c.job_id)
        .where(_LEASE.lease_token == ordered.c.lease_token)
        .limit(ONE)
        .with_for_update()
        .lateral("lease")
    )
    return (
        select(*lease.c, *(ordered.c[name] for name in columns))
        .select_from(
            ordered.join(lease, (lease.c.job_id == ordered.c.job_id) & (lease.c.lease_token == ordered.c.lease_token))
        )
        .cte("held")
        .prefix_with("MATERIALIZED")
    )


def _judged(held: CTE, condition: Any) -> CTE:
    return select(held, CLOCK.label("settled_at")).where(condition).cte("live").prefix_with("MATERIALIZED")


def _ended(live: CTE) -> CTE:
    """By id and not by address: a renewal that committed while we waited for the lock has moved the row."""
    return (
        delete(job_leases)
        .where(_LEASE.job_id == func.any(func.array(select(live.c.job_id).scalar_subquery())))
        .cte("ended")
    )


def _attempted(live: CTE, extra: dict[str, Any], condition: Any = None) -> CTE:
    """One attempt row for each ended lease; times come from the database's clock less what the worker measured.

    The last to end comes first, so that the BRIN index over that time grows once for a batch and not with every row.
    """
    row = live.c
    values = {
        "job_id": row.job_id,
        "lease_token": row.lease_token,
        "run_number": row.run_number,
        "attempt": row.attempt,
        "leased_at": row.leased_at,
        "next_run_at": row.next_run_at,
        "started_at": case(
            (row.started_ago.is_not(None), func.greatest(row.settled_at - row.started_ago * ONE_SECOND, row.leased_at))
        ),
        "finished_at": func.greatest(row.settled_at - row.finished_ago * ONE_SECOND, row.leased_at),
        "cpu_ms": row.cpu_ms,
        "max_rss_kb": row.max_rss_kb,
        "worker_id": row.worker_id,
    } | extra
    rows = select(*(value.label(name) for name, value in values.items())).order_by(values["finished_at"].desc())
    return (
        insert(job_attempts)
        .from_select(list(values), rows if condition is None else rows.where(condition))
        .cte("attempted")
    )


def _settle_succeeded() -> Any:
    live = _judged(held := _held(rows_of("reported", **SUCCEEDED_COLUMNS)), held.c.lease_expires_at > CLOCK)
    completed = (
        update(job_queue)
        .where(job_queue.c.id == live.c.job_id)
        .values(
            final_status=literal(JobStatus.SUCCEEDED, tables.job_status),
            finished_at=live.c.settled_at,
            run_number=live.c.run_number,
            attempt=live.c.attempt,
            output=cast(live.c.output, JSONB),
            progress_done=func.coalesce(live.c.progress_done, job_queue.c.progress_done),
            progress_total=func.coalesce(live.c.progress_total, job_queue.c.progress_total),
            checkpoint=func.coalesce(live.c.checkpoint, job_queue.c.checkpoint),
        )
        .cte("completed")
    )
    return select(as_text(live.c.job_id)).add_cte(
        _ended(live),
        _attempted(live, {"outcome": literal(Outcome.SUCCEEDED, tables.job_outcome)}),
        completed,
    )


def _kept(row: Any) -> tuple[Any, ...]:
    """What the next attempt finds of this one."""
    return row.checkpoint, row.progress_done, row.progress_total


def _completed(live: CTE) -> CTE:
    """The record learns the end of the job, or keeps what the next attempt needs."""
    row = live.c
    is_final = row.final_status.is_not(None)
    return (
        update(job_queue)
        .where(job_queue.c.id == row.job_id)
        .where(or_(is_final, row.is_continued, func.num_nonnulls(*_kept(row)) > ZERO))
        .values(
            final_status=cast(row.final_status, tables.job_status),
            finished_at=case((is_final, row.settled_at)),
            status_reason=case((is_final, row.status_reason)),
            run_number=row.run_number + cast(row.is_continued, Integer),
            attempt=case((row.is_continued, ZERO), else_=row.attempt - cast(row.is_refunded, Integer)),
            output=cast(row.output, JSONB),
            last_error_code=case((is_final, row.error_code)),
            last_error_message=case((is_final, row.error_message)),
            checkpoint=func.coalesce(row.checkpoint, job_queue.c.checkpoint),
            progress_done=func.coalesce(row.progress_done, job_queue.c.progress_done),
            progress_total=func.coalesce(row.progress_total, job_queue.c.progress_total),
        )
        .cte("completed")
    )


def _waiting(live: CTE, name: str, place: Any, condition: Any, next_run_at: Any) -> CTE:
    row = live.c
    return (
        insert(place)
        .from_select(
            ["job_id", "next_run_at", "workflow_run_id", "priority", "run_number", "attempt", "job_type"],
            select(
                row.job_id,
                next_run_at,
                row.workflow_run_id,
                row.priority,
                row.run_number + cast(row.is_continued, Integer),
                case((row.is_continued, ZERO), else_=row.attempt - cast(row.is_refunded, Integer)),
                row.job_type,
            )
            .where(row.final_status.is_(None))
            .where(condition),
        )
        .cte(name)
    )


def _told(live: CTE) -> CTE:
    """Ends that no attempt row tells of: given back unstarted, expired before the start, continued in a next run."""
    row = live.c
    event_type = case(
        (row.is_continued, literal(JobEventType.REQUEUED, tables.job_event_type)),
        (row.final_status.is_not(None), literal(JobEventType.CANCELED, tables.job_event_type)),
        else_=literal(JobEventType.RELEASED, tables.job_event_type),
    )
    return (
        insert(job_events)
        .from_select(
            ["job_id", "run_number", "attempt", "event_type", "actor", "reason", "detail"],
            select(
                row.job_id,
                row.run_number,
                row.attempt,
                event_type,
                row.worker_id,
                row.status_reason,
                func.jsonb_build_object(*keyed(lease_token=row.lease_token, leased_at=row.leased_at)),
            ).where(or_(row.is_unstarted, row.is_continued)),
        )
        .cte("told")
    )


def _settle_ended() -> Any:
    held = _held(rows_of("reported", **ENDED_COLUMNS))
    lease_check = parameter("lease_check", Text)
    live = _judged(
        held,
        case(
            (lease_check == constant("LIVE"), held.c.lease_expires_at > CLOCK),
            (lease_check == constant("LAPSED"), held.c.lease_expires_at <= CLOCK),
            else_=TRUE,
        ),
    )
    row = live.c
    retry_at = row.settled_at + row.retry_seconds * ONE_SECOND
    attempted = _attempted(
        live,
        {
            "outcome": cast(row.outcome, tables.job_outcome),
            "error_code": row.error_code,
            "error_message": row.error_message,
            "traceback": row.traceback,
            "exit_signal": row.exit_signal,
            "retry_at": case((row.final_status.is_(None), func.coalesce(retry_at, row.settled_at))),
        },
        ~row.is_unstarted,
    )
    is_later = func.coalesce(row.retry_seconds, ZERO) > ZERO
    place_in_line = case((row.is_refunded, row.next_run_at), else_=row.settled_at)
    return select(as_text(row.job_id)).add_cte(
        _ended(live),
        attempted,
        unspent_starts(live),
        _completed(live),
        _waiting(live, "readied", job_ready, ~is_later, place_in_line),
        _waiting(live, "scheduled", job_scheduled, is_later, retry_at),
        dead_lettered(live),
        *hooks_of(live),
        _told(live),
    )


SETTLE_SUCCEEDED = Statement("settle_succeeded", _settle_succeeded())
SETTLE_ENDED = Statement("settle_ended", _settle_ended())


def settle_calls(results: Sequence[Succeeded | Ended], lease_check: LeaseCheck = LeaseCheck.LIVE) -> list[Call]:
    """The calls that write these results, at most two; each answers with the ids that were settled."""
    successes = [one for one in results if isinstance(one, Succeeded)]
    ends = [one for one in results if isinstance(one, Ended)]
    calls: list[Call] = []
    if successes:
        calls.append((SETTLE_SUCCEEDED, succeeded_parameters(successes)))
    if ends:
        calls.append((SETTLE_ENDED, ended_parameters(ends, lease_check)))
    return calls


def settle_jobs(
    connection: AnyConnection,
    results: Sequence[Succeeded | Ended],
    *,
    lease_check: LeaseCheck = LeaseCheck.LIVE,
) -> set[str]:
    """Every result whose lease passes is written: attempt, end or next place of the job, dead letter, hook.

    Answers with the ids that were settled. An id that is missing had lost its lease, and nothing was written for it.
    Locks the lease rows in the order of their ids. At most two statements, whatever the number of results; when jobs of
    workflow runs end, the rows of the runs are locked before, by id, and the runs advance afterwards.

    Raises TransactionRequired, TerminalCompletionUnsupportedIsolation and WorkflowReleaseConflict for workflow jobs.
    """
    ledger = borrow(connection)
    calls = settle_calls(results, lease_check)
    runs = runs_to_lock(results)
    if not runs:
        return _ids(ledger.fetch_each(calls))
    of_runs = [one.job_id for one in results if ends_a_step(one)]
    answers = ledger.fetch_each([lock_call(ledger, runs), *calls, advance_call(ledger, of_runs)])
    locked_runs(answers, unsupported=TerminalCompletionUnsupportedIsolation)
    settled = _ids(islice(answers, len(calls)))
    propagate(ledger, next(answers))
    return settled


def _ids(answers: Iterable[list[Row]]) -> set[str]:
    return {row[0] for answer in answers for row in answer}
