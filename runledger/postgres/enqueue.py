"""Enqueue: one statement that writes the record and puts the job in its place, inside the caller's transaction.

A keyed retry is resolved by a second statement, because the row that made the first one give way may have been
committed while it waited, and only a new statement's snapshot sees it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    DateTime,
    Double,
    FromClause,
    Integer,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core import errors
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import EncodedRequest, JobRequest, encode_request
from runledger.core.snapshots import differences
from runledger.core.states import JobStatus
from runledger.postgres import copying
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import (
    CLOCK,
    FALSE,
    HAS_IDLE_LISTENER,
    NOW,
    ONE,
    ONE_SECOND,
    WAKE_CHANNEL,
    ZERO,
    as_text,
    constant,
    new_id,
    parameter,
    rows_of,
)
from runledger.postgres.statements import Parameters, Row, Statement
from runledger.postgres.tables import job_definitions, job_queue, job_ready, job_scheduled, jobs

KEYED_TRIES = 5
"""How often a keyed enqueue starts over when the key is released between its two statements."""

CHUNK = 5_000
"""Rows that one statement carries; longer batches take several statements in the caller's transaction."""

_REQUEST_COLUMNS: dict[str, Any] = {
    "job_type": Text,
    "payload": Text,
    "organization_id": Uuid,
    "priority": Integer,
    "max_attempts": Integer,
    "timeout_seconds": Integer,
    "next_run_at": DateTime(timezone=True),
    "delay_seconds": Double,
    "idempotency_key": Text,
    "idempotency_ttl_seconds": Double,
    "snapshot": Text,
    "expires_at": DateTime(timezone=True),
    "tags": Text,
}

IS_READ_COMMITTED = func.current_setting(constant("transaction_isolation")).in_(
    (constant("read committed"), constant("read uncommitted"))
)
WOKEN = case((HAS_IDLE_LISTENER, as_text(func.pg_notify(constant(WAKE_CHANNEL), parameter("schema", Text)))))
"""One notification, and only while some host has said that it is idle: a busy system sends nothing."""


def _enqueue(requested: FromClause) -> Any:
    """Record and place for every requested row whose definition is enabled and whose key is free."""
    wanted = requested.c
    definitions = job_definitions.c
    identified = (
        select(
            new_id().label("id"),
            wanted.ordinal,
            wanted.job_type,
            cast(wanted.payload, JSONB).label("payload"),
            wanted.organization_id,
            func.coalesce(wanted.priority, definitions.default_priority).label("priority"),
            func.coalesce(wanted.max_attempts, definitions.max_attempts).label("max_attempts"),
            func.coalesce(wanted.timeout_seconds, definitions.default_timeout_seconds).label("timeout_seconds"),
            func.coalesce(wanted.next_run_at, NOW + wanted.delay_seconds * ONE_SECOND, NOW).label("next_run_at"),
            wanted.idempotency_key,
            (NOW + wanted.idempotency_ttl_seconds * ONE_SECOND).label("idempotency_expires_at"),
            cast(wanted.snapshot, JSONB).label("enqueue_request"),
            wanted.expires_at,
            cast(wanted.tags, ARRAY(Text)).label("tags"),
        )
        .select_from(requested.join(job_definitions, definitions.job_type == wanted.job_type))
        .where(definitions.is_enabled)
        .where(or_(wanted.idempotency_key.is_(None), IS_READ_COMMITTED))
        .order_by(wanted.ordinal)
        .cte("identified")
        .prefix_with("MATERIALIZED")
    )
    recorded = _recorded(identified)
    return (
        select(identified.c.ordinal, as_text(recorded.c.id), WOKEN)
        .select_from(identified.join(recorded, recorded.c.id == identified.c.id))
        .order_by(identified.c.ordinal)
        .add_cte(_placed("readied", job_ready, identified, recorded, identified.c.next_run_at <= NOW))
        .add_cte(_placed("scheduled", job_scheduled, identified, recorded, identified.c.next_run_at > NOW))
    )


def _recorded(identified: CTE) -> CTE:
    columns = [
        "id",
        "job_type",
        "organization_id",
        "payload",
        "priority",
        "max_attempts",
        "timeout_seconds",
        "idempotency_key",
        "idempotency_expires_at",
        "enqueue_request",
        "expires_at",
        "tags",
    ]
    return (
        upsert(job_queue)
        .from_select(columns, select(*(identified.c[column] for column in columns)).order_by(identified.c.ordinal))
        .on_conflict_do_nothing()
        .returning(job_queue.c.id)
        .cte("recorded")
    )


def _placed(name: str, place: Any, identified: CTE, recorded: CTE, condition: Any) -> CTE:
    source = identified.c
    return (
        insert(place)
        .from_select(
            ["job_id", "next_run_at", "priority", "run_number", "attempt", "job_type"],
            select(
                source.id,
                source.next_run_at,
                source.priority,
                ONE,
                ZERO,
                source.job_type,
            )
            .select_from(identified.join(recorded, recorded.c.id == source.id))
            .where(condition)
            .order_by(source.ordinal),
        )
        .cte(name)
    )


def _one_row() -> CTE:
    columns = [parameter(name, type_).label(name) for name, type_ in _REQUEST_COLUMNS.items()]
    return select(ONE.label("ordinal"), *columns).cte("requested")


ENQUEUE_ONE = Statement("enqueue_one", _enqueue(_one_row()))
ENQUEUE_MANY = Statement("enqueue_many", _enqueue(rows_of("requested", **_REQUEST_COLUMNS)))

_asked = rows_of("asked", job_type=Text, organization_id=Uuid, idempotency_key=Text, snapshot=Text)
_holder = job_queue.alias("holder")
_SAME_ORGANIZATION = or_(
    and_(_asked.c.organization_id.is_(None), _holder.c.organization_id.is_(None)),
    _holder.c.organization_id == _asked.c.organization_id,
)
RESOLVE_KEYS = Statement(
    "resolve_keys",
    select(
        _asked.c.ordinal,
        as_text(_holder.c.id),
        as_text(jobs.c.status),
        jobs.c.run_number,
        case(
            (_holder.c.enqueue_request.is_(None), null()),
            else_=_holder.c.enqueue_request == cast(_asked.c.snapshot, JSONB),
        ).label("is_same"),
        as_text(_holder.c.enqueue_request),
        func.coalesce(job_definitions.c.is_enabled, FALSE).label("is_enabled"),
        IS_READ_COMMITTED.label("is_read_committed"),
        func.coalesce(_holder.c.idempotency_expires_at <= CLOCK, FALSE).label("is_released"),
    )
    .select_from(
        _asked.outerjoin(
            _holder,
            and_(
                _holder.c.job_type == _asked.c.job_type,
                _holder.c.idempotency_key == _asked.c.idempotency_key,
                _SAME_ORGANIZATION,
            ),
        )
        .outerjoin(jobs, jobs.c.id == _holder.c.id)
        .outerjoin(job_definitions, job_definitions.c.job_type == _asked.c.job_type)
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


def enqueue_job(connection: AnyConnection, request: JobRequest) -> EnqueuedJob:
    """The job is stored, due at its time, as soon as the caller's transaction commits; on rollback it never was.

    With an idempotency key, the same request answers with the job that already has it, whatever its status, even
    when its definition was disabled since. Locks nothing that exists. Works in autocommit: it is one statement.

    Raises DefinitionNotFoundOrDisabled, IdempotencyConflict (with the differences), UnsupportedIsolation, and what
    ``encode_request`` raises, before anything is written.
    """
    return _enqueue_all(borrow(connection), [encode_request(request)])[0]


def enqueue_jobs(connection: AnyConnection, requests: Sequence[JobRequest]) -> list[EnqueuedJob]:
    """All jobs are stored, or none; answers stand in the order of ``requests``.

    Up to 5,000 requests travel in one round trip; from 1,000 unkeyed ones on, COPY carries them. Equal keys inside
    the batch behave as in separate calls: the first is new, the rest are the same job or a conflict.

    Raises what ``enqueue_job`` raises, with ``requests[i]`` of the first bad one in the message; TransactionRequired
    when several statements are needed on a connection in autocommit.
    """
    if not requests:
        return []
    encoded = [_encode_at(index, request) for index, request in enumerate(requests)]
    ledger = borrow(connection)
    if len(encoded) > 1 and ledger.is_autocommit:
        raise errors.TransactionRequired("open a transaction around enqueue_jobs: all jobs are stored, or none")
    if copying.is_worth_copying(ledger, encoded):
        return copying.copy_jobs(ledger, encoded)
    return [
        job for start in range(0, len(encoded), CHUNK) for job in _enqueue_all(ledger, encoded[start : start + CHUNK])
    ]


def _encode_at(index: int, request: JobRequest) -> EncodedRequest:
    try:
        return encode_request(request)
    except errors.ValidationError as error:
        raise type(error)(f"requests[{index}]: {error}", error.internal_message, error.hint) from None


def _enqueue_all(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[EnqueuedJob]:
    answers: dict[int, EnqueuedJob] = {}
    missing = list(range(len(requests)))
    for _ in range(KEYED_TRIES):
        for ordinal, job_id, _woken in _run_enqueue(ledger, [requests[index] for index in missing]):
            answers[missing[ordinal - 1]] = EnqueuedJob(UUID(job_id), True, JobStatus.PENDING, 1)
        missing = [index for index in missing if index not in answers]
        if not missing:
            return [answers[index] for index in range(len(requests))]
        missing = _resolve(ledger, requests, missing, answers)
        if not missing:
            return [answers[index] for index in range(len(requests))]
    raise errors.IdempotencyRowMissing("the idempotency key came and went during every try; try again")


def _run_enqueue(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[Row]:
    if len(requests) == 1:
        one = requests[0]
        parameters: Parameters = {name: getattr(one, name) for name in _REQUEST_COLUMNS}
        parameters["tags"] = text_array(one.tags)
        statement = ENQUEUE_ONE
    else:
        parameters = {f"{name}s": [getattr(one, name) for one in requests] for name in _REQUEST_COLUMNS}
        parameters["tagss"] = [text_array(one.tags) for one in requests]
        statement = ENQUEUE_MANY
    parameters["schema"] = ledger.schema
    return ledger.fetch(statement, parameters)


def text_array(values: Sequence[str] | None) -> str | None:
    """A PostgreSQL array literal of ``values``; a two-dimensional parameter would be flattened by unnest."""
    if not values:
        return None
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"


def _resolve(
    ledger: LedgerConnection, requests: list[EncodedRequest], missing: list[int], answers: dict[int, EnqueuedJob]
) -> list[int]:
    """Answers every request whose key somebody holds; returns those that must start over because it was released."""
    asked = [requests[index] for index in missing]
    columns = ("job_type", "organization_id", "idempotency_key", "snapshot")
    rows = ledger.fetch(RESOLVE_KEYS, {f"{name}s": [getattr(one, name) for one in asked] for name in columns})
    again: list[int] = []
    expired: list[str] = []
    for index, row in zip(missing, rows, strict=True):
        _, job_id, status, run_number, is_same, stored, is_enabled, is_read_committed, is_released = row
        where = f"requests[{index}]: " if len(requests) > 1 else ""
        if requests[index].idempotency_key is not None and not is_read_committed:
            raise errors.UnsupportedIsolation(f"{where}a keyed enqueue needs READ COMMITTED")
        if job_id is None:
            if requests[index].idempotency_key is None or not is_enabled:
                raise _definition_missing(where, requests[index].job_type)
            again.append(index)
        elif is_released:
            expired.append(job_id)
            again.append(index)
        else:
            _check_same(where, requests[index], is_same, stored)
            answers[index] = EnqueuedJob(UUID(job_id), False, JobStatus(status), run_number)
    if expired:
        ledger.fetch(RELEASE_EXPIRED_KEYS, {"job_ids": expired})
    return again


def _definition_missing(where: str, job_type: str) -> errors.DefinitionNotFoundOrDisabled:
    return errors.DefinitionNotFoundOrDisabled(
        f"{where}job type {job_type!r} has no enabled definition",
        hint="start a worker with this job type in its catalog, or run `runledger definition sync`",
    )


def _check_same(where: str, request: EncodedRequest, is_same: bool | None, stored: str | None) -> None:
    if is_same is None or stored is None:
        raise errors.RequestSnapshotMissing(f"{where}the job that holds this key carries no snapshot of its request")
    if not is_same:
        raise errors.IdempotencyConflict(
            f"{where}the idempotency key belongs to a different request",
            differences(stored, request.snapshot or "{}"),
        )
