"""Enqueue: one statement that writes the record and puts the job in its place, inside the caller's transaction.

A keyed retry is resolved by a second statement, because the row that made the first one give way may have been
committed while it waited, and only a new statement's snapshot sees it.
"""

import contextlib
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Integer,
    Text,
    Uuid,
    case,
    cast,
    delete,
    func,
    insert,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core import errors
from runledger.core.jobs import EnqueuedJob
from runledger.core.middleware import announced
from runledger.core.requests import EncodedRequest, JobRequest, encode_request, encode_requests
from runledger.core.states import JobStatus
from runledger.postgres import copying
from runledger.postgres.arrays import plain_array, text_array
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import (
    HAS_IDLE_LISTENER,
    NOW,
    ONE,
    ONE_SECOND,
    TRUE,
    WAKE_CHANNEL,
    ZERO,
    as_text,
    constant,
    new_id,
    parameter,
    rows_of,
)
from runledger.postgres.keys import IS_READ_COMMITTED, Refused, answer_from_holders, find_holders
from runledger.postgres.statements import Parameters, Row, Statement
from runledger.postgres.tables import job_definitions, job_queue, job_ready, job_scheduled

KEYED_TRIES = 20
"""How often a keyed enqueue starts over when the key is released between its two statements. Jobs that end as soon as
they have begun and callers that ask for one active key in a loop make four of it likely."""

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
    "active_key": Text,
    "snapshot": Text,
    "expires_at": DateTime(timezone=True),
    "tags": Text,
    "headers": Text,
}

WOKEN = case((HAS_IDLE_LISTENER, as_text(func.pg_notify(constant(WAKE_CHANNEL), parameter("schema", Text)))))
"""One notification, and only while some host has said that it is idle: a busy system sends nothing."""


def _enqueue(requested: FromClause, *, with_keys: bool, with_times: bool = True) -> Any:
    """Record and place for every requested row whose definition is enabled and whose key is free.

    Without keys nothing can be in the way, so nothing is asked about it: 48 B of WAL and a tenth of the cost less.
    Without times every job is due now.
    """
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
            wanted.active_key,
            cast(wanted.snapshot, JSONB).label("enqueue_request"),
            wanted.expires_at,
            cast(wanted.tags, ARRAY(Text)).label("tags"),
            cast(wanted.headers, JSONB).label("headers"),
        )
        .select_from(requested.join(job_definitions, definitions.job_type == wanted.job_type))
        .where(definitions.is_enabled)
        .where(or_(wanted.idempotency_key.is_(None) & wanted.active_key.is_(None), IS_READ_COMMITTED))
        .order_by(wanted.ordinal)
        .cte("identified")
        .prefix_with("MATERIALIZED")
    )
    recorded = _recorded(identified, with_keys=with_keys)
    got_in = _was_recorded(identified, recorded) if with_keys else TRUE
    answer = (
        select(identified.c.ordinal, as_text(identified.c.id), WOKEN)
        .where(got_in)
        .order_by(identified.c.ordinal)
        .add_cte(recorded)
    )
    if not with_times:
        return answer.add_cte(_placed("readied", job_ready, identified, got_in))
    return answer.add_cte(
        _placed("readied", job_ready, identified, got_in & (identified.c.next_run_at <= NOW)),
        _placed("scheduled", job_scheduled, identified, got_in & (identified.c.next_run_at > NOW)),
    )


def _recorded(identified: CTE, *, with_keys: bool) -> CTE:
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
        "active_key",
        "enqueue_request",
        "expires_at",
        "tags",
        "headers",
    ]
    by_key = (identified.c.active_key, identified.c.idempotency_key) if with_keys else ()  # so nobody waits in a circle
    rows = select(*(identified.c[column] for column in columns)).order_by(*by_key, identified.c.ordinal)
    recorded = upsert(job_queue).from_select(columns, rows)
    if with_keys:
        recorded = recorded.on_conflict_do_nothing()
    return recorded.returning(job_queue.c.id).cte("recorded")


def _was_recorded(identified: CTE, recorded: CTE) -> ColumnElement[bool]:
    """Whether the row got in. ``IN`` below ``IS TRUE`` is always a hashed look-up; as a join, wrong statistics made
    it a nested loop over both sets: 189 µs a job instead of 32 in batches of 1,000."""
    return identified.c.id.in_(select(recorded.c.id)).is_(TRUE)


def _placed(name: str, place: Any, identified: CTE, condition: Any) -> CTE:
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
            .where(condition)
            .order_by(source.ordinal),
        )
        .cte(name)
    )


def _one_row(given: Collection[str] = _REQUEST_COLUMNS) -> CTE:
    """What is not given is NULL, which the planner knows."""
    columns = [
        (parameter(name, type_) if name in given else cast(null(), type_)).label(name)
        for name, type_ in _REQUEST_COLUMNS.items()
    ]
    return select(ONE.label("ordinal"), *columns).cte("requested")


_PLAIN = ("job_type", "payload")
_OPTIONS = attrgetter(*(name for name in _REQUEST_COLUMNS if name not in _PLAIN))
_NO_OPTIONS = (None,) * (len(_REQUEST_COLUMNS) - len(_PLAIN))


_MANY_ROWS = rows_of("requested", **_REQUEST_COLUMNS)
ENQUEUE_PLAIN = Statement(
    "enqueue_plain", _enqueue(_one_row(_PLAIN), with_keys=False, with_times=False), is_prepared=True
)
"""One job without any option, as most are."""

ENQUEUE_ONE = Statement("enqueue_one", _enqueue(_one_row(), with_keys=False), is_prepared=True)
ENQUEUE_MANY = Statement("enqueue_many", _enqueue(_MANY_ROWS, with_keys=False))
ENQUEUE_ONE_KEYED = Statement("enqueue_one_keyed", _enqueue(_one_row(), with_keys=True), is_prepared=True)
ENQUEUE_MANY_KEYED = Statement("enqueue_many_keyed", _enqueue(_MANY_ROWS, with_keys=True))

_ids = parameter("job_ids", ARRAY(Uuid))
TAKE_BACK = Statement(
    "take_back_enqueued",
    delete(job_queue)
    .where(job_queue.c.id == func.any(_ids))
    .add_cte(
        delete(job_ready).where(job_ready.c.job_id == func.any(_ids)).cte("unreadied"),
        delete(job_scheduled).where(job_scheduled.c.job_id == func.any(_ids)).cte("unscheduled"),
    ),
)


def enqueue_job(connection: AnyConnection, request: JobRequest) -> EnqueuedJob:
    """The job is stored, due at its time, as soon as the caller's transaction commits; on rollback it never was.

    With an idempotency key, the same request answers with the job that already has it, whatever its status, even
    when its definition was disabled since. With an active key, the job that has it and has not ended is the answer,
    whatever its payload. Locks nothing that exists, but the record of a job whose key is free again. Works in
    autocommit, where each of its statements stands for itself.

    Raises DefinitionNotFoundOrDisabled, IdempotencyConflict (with the differences), UnsupportedIsolation, and what
    middleware and ``encode_request`` raise, before anything is written.
    """
    [request] = announced((request,))
    return _enqueue_all(borrow(connection), [encode_request(request)])[0]


def enqueue_jobs(connection: AnyConnection, requests: Sequence[JobRequest]) -> list[EnqueuedJob]:
    """All jobs are stored, or none; answers stand in the order of ``requests``.

    Up to 5,000 requests travel in one round trip; from 1,000 unkeyed ones on, COPY carries them. Equal keys inside
    the batch behave as in separate calls: the first is new, the rest are the same job or a conflict.

    Raises what ``enqueue_job`` raises, with ``requests[i]`` of the first bad one in the message, and leaves nothing of
    the batch in the transaction; TransactionRequired for several requests on a connection in autocommit.
    """
    if not requests:
        return []
    encoded = list(encode_requests(announced(list(requests))))
    ledger = borrow(connection)
    if len(encoded) > 1 and ledger.is_autocommit:
        raise errors.TransactionRequired("open a transaction around enqueue_jobs: all jobs are stored, or none")
    if copying.is_worth_copying(ledger, encoded):
        return copying.copy_jobs(ledger, encoded)
    return _enqueue_all(ledger, encoded)


def _enqueue_all(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[EnqueuedJob]:
    answers: dict[int, EnqueuedJob] = {}
    missing = list(range(len(requests)))
    try:
        for _ in range(KEYED_TRIES):
            for start in range(0, len(missing), CHUNK):
                _insert(ledger, requests, missing[start : start + CHUNK], answers)
            missing = [index for index in missing if index not in answers]
            if missing:
                holders = find_holders(ledger, [requests[index] for index in missing])
                missing = answer_from_holders(ledger, requests, dict(zip(missing, holders, strict=True)), answers)
            if not missing:
                return [answers[index] for index in range(len(requests))]
        raise Refused(errors.IdempotencyRowMissing("the idempotency key came and went during every try; try again"))
    except Refused as refused:
        _take_back(ledger, answers)
        raise refused.error from None


def _insert(
    ledger: LedgerConnection, requests: list[EncodedRequest], indexes: list[int], answers: dict[int, EnqueuedJob]
) -> None:
    for ordinal, job_id, _woken in _run_enqueue(ledger, [requests[index] for index in indexes]):
        answers[indexes[ordinal - 1]] = EnqueuedJob(UUID(job_id), True, JobStatus.PENDING, 1)


def _take_back(ledger: LedgerConnection, answers: dict[int, EnqueuedJob]) -> None:
    """The rest of a refused batch is gone too, so that a caller who catches the error may go on and commit."""
    job_ids = [str(answer.job_id) for answer in answers.values() if answer.is_new]
    if job_ids:
        with contextlib.suppress(errors.PermissionDenied):  # the refusal aborts the transaction: nothing is left either
            ledger.fetch(TAKE_BACK, {"job_ids": job_ids})


def _run_enqueue(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[Row]:
    with_keys = any(one.is_keyed for one in requests)
    if len(requests) == 1:
        one = requests[0]
        if _OPTIONS(one) == _NO_OPTIONS:
            plain = {"job_type": one.job_type, "payload": one.payload, "schema": ledger.schema}
            return ledger.fetch(ENQUEUE_PLAIN, plain)
        parameters: Parameters = {name: getattr(one, name) for name in _REQUEST_COLUMNS}
        parameters["tags"] = _tags_literal(one)
        statement = ENQUEUE_ONE_KEYED if with_keys else ENQUEUE_ONE
    else:
        parameters = {
            f"{name}s": _column(requests, name, type_) for name, type_ in _REQUEST_COLUMNS.items() if name != "tags"
        }
        parameters["tagss"] = text_array([_tags_literal(one) for one in requests])
        statement = ENQUEUE_MANY_KEYED if with_keys else ENQUEUE_MANY
    parameters["schema"] = ledger.schema
    return ledger.fetch(statement, parameters)


def _column(requests: list[EncodedRequest], name: str, type_: Any) -> str:
    values = [getattr(one, name) for one in requests]
    return text_array(values) if type_ is Text else plain_array(values)


def _tags_literal(one: EncodedRequest) -> str | None:
    """The tags as text: a two-dimensional parameter would be flattened by unnest."""
    return text_array(one.tags) if one.tags else None
