"""Who holds a key, idempotent or active, and what a request that found it taken is told.

Asked in a statement of its own, because the row that made the insert give way may have been committed while it
waited, and only a new statement's snapshot sees it.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    Uuid,
    case,
    cast,
    func,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runledger.core import errors
from runledger.core.definitions import DEFINITION_MISSING_HINT
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import EncodedRequest
from runledger.core.snapshots import differences
from runledger.core.states import JobStatus
from runledger.postgres import tables
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.expressions import (
    CLOCK,
    FALSE,
    IN_THE_LOG,
    TRUE,
    as_text,
    constant,
    literal,
    parameter,
    rows_of,
)
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_definitions, job_leases, job_queue

IS_READ_COMMITTED = func.current_setting(constant("transaction_isolation")).in_(
    (constant("read committed"), constant("read uncommitted"))
)

_COLUMNS: dict[str, Any] = {
    "job_type": Text,
    "organization_id": Uuid,
    "idempotency_key": Text,
    "active_key": Text,
    "snapshot": Text,
}
_asked = rows_of("asked", **_COLUMNS)
_HAS_LEASE = select(job_leases.c.job_id).where(job_leases.c.job_id == job_queue.c.id).exists()


def _arms(key: str, is_released: ColumnElement[bool]) -> tuple[Select[Any], Select[Any]]:
    """The jobs with the key that was asked for, of an organization and of none."""
    with_key = (
        select(
            job_queue.c.id,
            func.coalesce(
                job_queue.c.final_status,
                case(
                    (_HAS_LEASE, literal(JobStatus.LEASED, tables.job_status)),
                    else_=literal(JobStatus.PENDING, tables.job_status),
                ),
            ).label("status"),
            job_queue.c.run_number,
            job_queue.c.enqueue_request,
            is_released.label("is_released"),
        )
        .where(job_queue.c.job_type == _asked.c.job_type)
        .where(job_queue.c[key] == _asked.c[key])
    )
    return (
        with_key.where(job_queue.c.organization_id == _asked.c.organization_id),
        with_key.where(job_queue.c.organization_id.is_(None)).where(_asked.c.organization_id.is_(None)),
    )


_holder = union_all(
    *_arms("idempotency_key", job_queue.c.idempotency_expires_at <= CLOCK),
    *_arms("active_key", job_queue.c.final_status.is_not(None)),
).lateral("holder")
"""One arm for each of the four unique indexes. Asked of the view ``jobs`` with one condition for both scopes, a plan
made with old statistics joined whole tables first: minutes for one key among 5,000 jobs."""

RESOLVE_KEYS = Statement(
    "resolve_keys",
    select(
        _asked.c.ordinal,
        as_text(_holder.c.id),
        as_text(_holder.c.status),
        _holder.c.run_number,
        case(
            (_holder.c.enqueue_request.is_(None), null()),
            else_=_holder.c.enqueue_request == cast(_asked.c.snapshot, JSONB),
        ).label("is_same"),
        as_text(_holder.c.enqueue_request),
        func.coalesce(job_definitions.c.is_enabled, FALSE).label("is_enabled"),
        IS_READ_COMMITTED.label("is_read_committed"),
        func.coalesce(_holder.c.is_released, FALSE).label("is_released"),
        case((_holder.c.id.is_not(None), IN_THE_LOG)),
    )
    .select_from(
        _asked.outerjoin(_holder, TRUE).outerjoin(job_definitions, job_definitions.c.job_type == _asked.c.job_type)
    )
    .order_by(_asked.c.ordinal),
)

RELEASE_EXPIRED_KEYS = Statement(
    "release_expired_keys",
    update(job_queue)
    .where(job_queue.c.id == func.any(parameter("job_ids", ARRAY(Uuid))))
    .where(job_queue.c.idempotency_expires_at <= CLOCK)
    .values(idempotency_key=null(), idempotency_expires_at=null()),
)
RELEASE_ENDED_KEYS = Statement(
    "release_ended_keys",
    update(job_queue)
    .where(job_queue.c.id == func.any(parameter("job_ids", ARRAY(Uuid))))
    .where(job_queue.c.final_status.is_not(None))
    .values(active_key=null()),
)


class Holder(NamedTuple):
    """The job that has the key of one request, if any, and what decides about a request without one."""

    job_id: str | None
    status: str | None
    run_number: int | None
    is_same: bool | None
    request: str | None
    is_enabled: bool
    is_read_committed: bool
    is_released: bool
    log_position: str | None
    """The answer's commit waits until this is safe, and with it the row that was found."""


class Refused(Exception):
    """One request cannot be met; ``error`` is what its caller gets, once the rest of the batch is taken back."""

    def __init__(self, error: errors.RunledgerError) -> None:
        super().__init__(str(error))
        self.error = error


def find_holders(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[Holder]:
    """One answer for each request, in order."""
    rows = ledger.fetch(RESOLVE_KEYS, {f"{name}s": [getattr(one, name) for one in requests] for name in _COLUMNS})
    return [Holder(*row[1:]) for row in rows]


def answer_from_holders(
    ledger: LedgerConnection,
    requests: list[EncodedRequest],
    holders: dict[int, Holder],
    answers: dict[int, EnqueuedJob],
) -> list[int]:
    """Every request whose key somebody holds has its answer; returns those that must start over, because their key
    was free again. Raises Refused for the first request, in order, that cannot be met, before anything is written.
    """
    again: list[int] = []
    released: dict[Statement, list[str]] = {RELEASE_EXPIRED_KEYS: [], RELEASE_ENDED_KEYS: []}
    for index, holder in holders.items():
        request, where = requests[index], f"requests[{index}]: " if len(requests) > 1 else ""
        _check_possible(where, request, holder)
        if holder.job_id is None:
            again.append(index)
        elif holder.is_released:
            released[RELEASE_EXPIRED_KEYS if request.active_key is None else RELEASE_ENDED_KEYS].append(holder.job_id)
            again.append(index)
        else:
            if request.active_key is None:
                _check_same(where, request, holder)
            answers[index] = EnqueuedJob(
                UUID(holder.job_id), False, JobStatus(str(holder.status)), holder.run_number or 1
            )
    for statement, job_ids in released.items():
        if job_ids:
            ledger.fetch(statement, {"job_ids": sorted(set(job_ids))})
    return again


def definition_missing(where: str, job_type: str) -> errors.DefinitionNotFoundOrDisabled:
    """The error for a request whose type has no enabled definition."""
    return errors.DefinitionNotFoundOrDisabled(
        f"{where}job type {job_type!r} has no enabled definition",
        hint=DEFINITION_MISSING_HINT,
    )


def _check_possible(where: str, request: EncodedRequest, holder: Holder) -> None:
    if request.is_keyed and not holder.is_read_committed:
        raise Refused(errors.UnsupportedIsolation(f"{where}a keyed enqueue needs READ COMMITTED"))
    is_free = holder.job_id is None or holder.is_released
    if is_free and not (request.is_keyed and holder.is_enabled):
        raise Refused(definition_missing(where, request.job_type))


def _check_same(where: str, request: EncodedRequest, holder: Holder) -> None:
    if holder.is_same is None or holder.request is None:
        message = f"{where}the job that holds this key carries no snapshot of its request"
        raise Refused(errors.RequestSnapshotMissing(message))
    if not holder.is_same:
        message = f"{where}the idempotency key belongs to a different request"
        raise Refused(errors.IdempotencyConflict(message, differences(holder.request, request.snapshot or "{}")))
