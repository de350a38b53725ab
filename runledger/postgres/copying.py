"""Enqueue by COPY: thousands of unkeyed jobs at the speed of the wire.

Ids must be known before the rows are sent, so they are made here, on the database's clock: a UUIDv7 for each job
that sorts in the order of the requests.
"""

import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Text, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import EncodedRequest
from runledger.core.states import JobStatus
from runledger.postgres.arrays import text_array
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.expressions import (
    CLOCK,
    HAS_IDLE_LISTENER,
    NOW,
    WAKE_CHANNEL,
    as_microseconds,
    constant,
    from_microseconds,
    parameter,
)
from runledger.postgres.idempotency import definition_missing
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_definitions

MINIMUM_ROWS = 1_000
"""From this many rows on, COPY beats one statement with arrays (measured: 64,000 against 31,000 jobs a second)."""

_RECORD = (
    "job_queue (id, job_type, organization_id, payload, priority, max_attempts, timeout_seconds, expires_at, tags, "
    "headers)"
)
NULL = r"\N"
_PLACE = "(job_id, next_run_at, priority, job_type)"

SELECT_DEFAULTS = Statement(
    "select_enqueue_defaults",
    select(
        job_definitions.c.job_type,
        job_definitions.c.default_priority,
        job_definitions.c.max_attempts,
        job_definitions.c.default_timeout_seconds,
        as_microseconds(NOW),
        as_microseconds(CLOCK),
    )
    .where(job_definitions.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .where(job_definitions.c.is_enabled),
)

WAKE_LISTENERS = Statement(
    "wake_listeners",
    select(func.pg_notify(constant(WAKE_CHANNEL), parameter("schema", Text))).where(HAS_IDLE_LISTENER),
)


def is_worth_copying(ledger: LedgerConnection, requests: list[EncodedRequest]) -> bool:
    return len(requests) >= MINIMUM_ROWS and ledger.can_copy and all(one.idempotency_key is None for one in requests)


def copy_jobs(ledger: LedgerConnection, requests: list[EncodedRequest]) -> list[EnqueuedJob]:
    """Every request is stored and in its place. Raises DefinitionNotFoundOrDisabled before the first row is sent."""
    job_types = sorted({one.job_type for one in requests})
    defaults = {row[0]: row[1:] for row in ledger.fetch(SELECT_DEFAULTS, {"job_types": job_types})}
    _check_known(requests, defaults)
    transaction_start, clock = next(iter(defaults.values()))[3:]
    now = from_microseconds(transaction_start)
    job_ids = uuid7_series(clock // 1000, len(requests))
    records: list[str] = []
    ready: list[str] = []
    scheduled: list[str] = []
    now_text = str(now)
    for job_id, one in zip(job_ids, requests, strict=True):
        next_run_at = _next_run_at(one, now)
        record, place = _lines(
            job_id, one, defaults[one.job_type], now_text if next_run_at is now else str(next_run_at)
        )
        records.append(record)
        (ready if next_run_at <= now else scheduled).append(place)
    ledger.copy_lines(_RECORD, records)
    for target, lines in (("job_ready", ready), ("job_scheduled", scheduled)):
        if lines:
            ledger.copy_lines(f"{target} {_PLACE}", lines)
    ledger.fetch(WAKE_LISTENERS, {"schema": ledger.schema})
    return [EnqueuedJob(job_id, True, JobStatus.PENDING, 1) for job_id in job_ids]


def _check_known(requests: list[EncodedRequest], defaults: dict[str, Any]) -> None:
    for index, one in enumerate(requests):
        if one.job_type not in defaults:
            raise definition_missing(f"requests[{index}]: ", one.job_type)


def _next_run_at(one: EncodedRequest, now: datetime) -> datetime:
    return now + timedelta(seconds=one.delay_seconds) if one.delay_seconds is not None else one.next_run_at or now


def _lines(job_id: UUID, one: EncodedRequest, defaults: Any, next_run_at: str) -> tuple[str, str]:
    """The record and its place as lines of COPY's text format. The driver would look at each value of each row to
    find out how to write it, which takes twice as long."""
    priority = defaults[0] if one.priority is None else one.priority
    max_attempts = defaults[1] if one.max_attempts is None else one.max_attempts
    timeout_seconds = defaults[2] if one.timeout_seconds is None else one.timeout_seconds
    id_text, job_type = job_id.hex, _escaped(one.job_type)
    record = (
        f"{id_text}\t{job_type}\t{one.organization_id or NULL}\t{_escaped(one.payload)}\t{priority}\t{max_attempts}"
        f"\t{timeout_seconds}\t{one.expires_at or NULL}\t{_escaped(text_array(one.tags)) if one.tags else NULL}"
        f"\t{NULL if one.headers is None else _escaped(one.headers)}\n"
    )
    return record, f"{id_text}\t{next_run_at}\t{priority}\t{job_type}\n"


def _escaped(text: str) -> str:
    """Identifiers, array literals of them and JSON have no control characters, so the backslash alone needs one."""
    return text.replace("\\", "\\\\") if "\\" in text else text


def uuid7_series(milliseconds: int, count: int) -> list[UUID]:
    """``count`` UUIDv7 (RFC 9562) in rising order from one point in time: the 12 bits after the milliseconds count up
    from zero and carry into the milliseconds, so 4,096 ids share one."""
    prefix = (milliseconds << 12) + 0
    randoms = secrets.token_bytes(8 * count)
    series = []
    for index in range(count):
        head = prefix + index
        tail = int.from_bytes(randoms[8 * index : 8 * index + 8]) & 0x3FFF_FFFF_FFFF_FFFF
        series.append(UUID(int=((head >> 12) << 80) | (0x7 << 76) | ((head & 0xFFF) << 64) | (0x2 << 62) | tail))
    return series
