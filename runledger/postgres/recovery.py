"""Recover what a dead process left behind: the leases of a worker that is gone, and leases that lapsed.

Both ask the same ``decide()`` as a failure reported by a worker, and write through the same settle. They lock the
leases first; nobody else can end them between the decision and the write.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ARRAY, Integer, Text, Uuid, func, or_, select

from runledger.core.definitions import JobDefinition
from runledger.core.failures import Failure, Retry, decide
from runledger.core.results import Ended, LeaseCheck, failed_end
from runledger.core.states import Outcome
from runledger.core.workflow_errors import TerminalCompletionUnsupportedIsolation
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.definitions import get_definitions
from runledger.postgres.expressions import CLOCK, as_text, literal, parameter
from runledger.postgres.settle import settle_jobs
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_attempts, job_leases, job_outcome, job_queue
from runledger.postgres.workflow_locks import lock_runs, try_lock_runs

LARGEST_REAP = 1_000
_lease = job_leases.c


@dataclass(frozen=True, slots=True)
class LostLease:
    """A lease that its holder will not settle any more, with all that a decision needs."""

    job_id: str
    lease_token: int
    job_type: str
    run_number: int
    attempt: int
    max_attempts: int
    worker_id: str
    crashes: int
    workflow_run_id: str | None = None


_crashes = (
    select(func.count())
    .select_from(job_attempts)
    .where(job_attempts.c.job_id == _lease.job_id)
    .where(job_attempts.c.run_number == _lease.run_number)
    .where(job_attempts.c.outcome == literal(Outcome.PANICKED, job_outcome))
    .scalar_subquery()
)
_lost = (
    select(
        as_text(_lease.job_id),
        _lease.lease_token,
        _lease.job_type,
        _lease.run_number,
        _lease.attempt,
        job_queue.c.max_attempts,
        _lease.worker_id,
        _crashes,
        as_text(_lease.workflow_run_id),
    )
    .select_from(job_leases.join(job_queue, job_queue.c.id == _lease.job_id))
    .order_by(_lease.job_id)
)
_runs = select(as_text(_lease.workflow_run_id)).distinct().where(_lease.workflow_run_id.is_not(None))
LAPSED_RUNS = Statement(
    "select_runs_of_lapsed_leases",
    _runs.where(_lease.lease_expires_at <= CLOCK).limit(parameter("limit", Integer)),
)
WORKERS_RUNS = Statement("select_runs_of_worker", _runs.where(_lease.worker_id == parameter("worker_id", Text)))
LOCK_LAPSED = Statement(
    "lock_lapsed_leases",
    _lost.where(_lease.lease_expires_at <= CLOCK)
    .where(
        or_(
            _lease.workflow_run_id.is_(None),
            _lease.workflow_run_id == func.any(parameter("run_ids", ARRAY(Uuid))),
        )
    )
    .limit(parameter("limit", Integer))
    .with_for_update(skip_locked=True, of=(job_leases, job_queue)),
)
LOCK_WORKERS = Statement(
    "lock_leases_of_worker",
    _lost.where(_lease.worker_id == parameter("worker_id", Text)).with_for_update(of=job_leases),
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery did, by job id; and each end that it wrote, with the job type."""

    retried: tuple[str, ...] = ()
    dead_lettered: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    ends: tuple[tuple[str, Ended], ...] = field(default=(), repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.retried) + len(self.dead_lettered) + len(self.released)


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """How a worker process ended, as its supervisor saw it. ``running`` is the token whose handler was running;
    ``ran_unsettled`` are those whose handlers had returned without their outcomes being known to be stored. Without a
    ``failure`` the process was ended for a shutdown, and the running attempt is given back, refunded."""

    worker_id: str
    failure: Failure | None
    running: int | None = None
    ran_unsettled: Sequence[int] = ()
    started_ago: float | None = None
    cpu_ms: int | None = None
    max_rss_kb: int | None = None


def reap_lapsed_leases(
    connection: AnyConnection, *, limit: int = LARGEST_REAP, retry_after_seconds: float = 0.0
) -> Recovered:
    """At most ``limit`` leases that have ended are settled as LEASE_EXPIRED: dead-lettered when attempts are spent,
    else retried, not before ``retry_after_seconds``.

    Leases that somebody else is settling are skipped, and so are those whose record or workflow run somebody else
    holds. Run it in a transaction; the locks last until its end: run rows by id, then leases and records by job id.
    """
    ledger = borrow(connection)
    size = {"limit": min(limit, LARGEST_REAP)}
    runs = try_lock_runs(ledger, [row[0] for row in ledger.fetch(LAPSED_RUNS, size)])
    lost = [LostLease(*row) for row in ledger.fetch(LOCK_LAPSED, size | {"run_ids": runs})]
    failure = Failure(
        Outcome.LEASE_EXPIRED,
        "job.lease_expired",
        "the lease ended before its attempt was settled",
        None,
        retry_after_seconds,
    )
    definitions = _definitions(ledger, lost)
    return _settle(ledger, lost, [_decided(one, failure, definitions) for one in lost], LeaseCheck.LAPSED)


def settle_dead_worker(connection: AnyConnection, death: WorkerDeath) -> Recovered:
    """Every lease of a worker that is provably gone is settled: the running attempt by how the worker died, attempts
    that had ended without being stored as lost outcomes, and jobs that never began go back with the attempt refunded.

    Run it in a transaction. Locks the runs of its workflow jobs by id, then its leases by job id.
    """
    ledger = borrow(connection)
    runs = [row[0] for row in ledger.fetch(WORKERS_RUNS, {"worker_id": death.worker_id})]
    if runs:
        lock_runs(ledger, runs, unsupported=TerminalCompletionUnsupportedIsolation)
    lost = [LostLease(*row) for row in ledger.fetch(LOCK_WORKERS, {"worker_id": death.worker_id})]
    definitions = _definitions(ledger, lost)
    return _settle(ledger, lost, [_verdict(one, death, definitions) for one in lost], LeaseCheck.ANY)


def _verdict(lost: LostLease, death: WorkerDeath, definitions: dict[str, JobDefinition]) -> Ended:
    if lost.lease_token == death.running:
        if death.failure is None:
            return Ended(lost.job_id, lost.lease_token, Outcome.RELEASED, status_reason="SHUTDOWN", is_refunded=True)
        ended = _decided(lost, death.failure, definitions)
        ended.started_ago = death.started_ago
        ended.cpu_ms = death.cpu_ms
        ended.max_rss_kb = death.max_rss_kb
        return ended
    if lost.lease_token in death.ran_unsettled:
        return _decided(lost, _OUTCOME_LOST, definitions)
    return Ended(
        lost.job_id,
        lost.lease_token,
        Outcome.RELEASED,
        status_reason="its worker died before the job began",
        is_refunded=True,
        is_unstarted=True,
    )


_OUTCOME_LOST = Failure(
    Outcome.RETRYABLE, "job.outcome_lost", "the worker died before the outcome of this attempt was stored", None, None
)


def _definitions(ledger: LedgerConnection, lost: list[LostLease]) -> dict[str, JobDefinition]:
    job_types = sorted({one.job_type for one in lost})
    return {name: definition for name, (definition, _) in get_definitions(ledger, job_types).items()} if lost else {}


def _decided(lost: LostLease, failure: Failure, definitions: dict[str, JobDefinition]) -> Ended:
    definition = definitions.get(lost.job_type) or JobDefinition(lost.job_type)
    decision = decide(
        failure,
        attempt=lost.attempt,
        max_attempts=lost.max_attempts,
        crashes=lost.crashes + (failure.outcome is Outcome.PANICKED),
        crash_budget=definition.crash_budget,
        policy=definition.retry,
        chance=random.random(),  # noqa: S311 - spreads retries; protects nothing
    )
    if failure is _OUTCOME_LOST and isinstance(decision, Retry):
        decision = Retry(0.0)  # nothing went wrong with the job itself
    return failed_end(lost.job_id, lost.lease_token, failure, decision, workflow_run_id=lost.workflow_run_id)


def _settle(ledger: LedgerConnection, lost: list[LostLease], ends: list[Ended], lease_check: LeaseCheck) -> Recovered:
    settled = settle_jobs(ledger, ends, lease_check=lease_check)
    done = [one for one in ends if one.job_id in settled]
    job_types = {one.job_id: one.job_type for one in lost}
    return Recovered(
        retried=tuple(one.job_id for one in done if one.final_status is None and not one.is_refunded),
        dead_lettered=tuple(one.job_id for one in done if one.final_status is not None),
        released=tuple(one.job_id for one in done if one.is_refunded),
        ends=tuple((job_types[one.job_id], one) for one in done),
    )
