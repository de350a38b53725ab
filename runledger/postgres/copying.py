"""Enqueue by COPY: thousands of unkeyed jobs at the speed of the wire.

Ids must be known before the rows are sent, so they are made here, on the database's clock: a UUIDv7 for each job
that sorts in the order of the requests.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
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
from runledger.postgres.keys import definition_missing
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_definitions

MINIMUM_ROWS = 1_000
"""From this many rows on, COPY beats one statement with arrays also where a round trip takes half a millisecond: it has
eight of them, and takes 10 µs a job instead of 17 (measured; without a network between, 200 would be enough)."""

_RECORD = (
    "job_queue (id, job_type, organization_id, payload, priority, max_attempts, timeout_seconds, expires_at, tags, "
    "headers)"
)
NULL = r"\N"
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
_PLACE = "(job_id, next_run_at, priority, job_type)"

_times = select(as_microseconds(NOW).label("now"), as_microseconds(CLOCK).label("clock")).subquery("times")
_is_wanted = (
    job_definitions.c.job_type == func.any(parameter("job_types", ARRAY(Text)))
) & job_definitions.c.is_enabled

SELECT_DEFAULTS = Statement(
    "select_enqueue_defaults",
    select(
        _times.c.now,
        _times.c.clock,
        job_definitions.c.job_type,
        job_definitions.c.default_priority,
        job_definitions.c.max_attempts,
        job_definitions.c.default_timeout_seconds,
    ).select_from(_times.outerjoin(job_definitions, _is_wanted)),
)
"""At least one row, which has the times."""

WAKE_LISTENERS = Statement(
    "wake_listeners",
    select(func.pg_notify(constant(WAKE_CHANNEL), parameter("schema", Text))).where(HAS_IDLE_LISTENER),
)


def is_worth_copying(ledger: LedgerConnection, requests: Sequence[EncodedRequest]) -> bool:
    return len(requests) >= MINIMUM_ROWS and ledger.can_copy and all(not one.is_keyed for one in requests)


def copy_jobs(ledger: LedgerConnection, requests: Sequence[EncodedRequest]) -> list[EnqueuedJob]:
    """Every request is stored and in its place. Raises DefinitionNotFoundOrDisabled before the first row is sent."""
    rows = ledger.fetch(SELECT_DEFAULTS, {"job_types": sorted({one.job_type for one in requests})})
    transaction_start, clock = rows[0][:2]
    defaults = {row[2]: row[3:] for row in rows}
    _check_known(requests, defaults)
    batch = _Batch(requests, defaults, from_microseconds(transaction_start), clock // 1000)
    ledger.copy_lines(_RECORD, batch.records())
    ledger.copy_lines(f"job_ready {_PLACE}", batch.due())
    if batch.later:
        ledger.copy_lines(f"job_scheduled {_PLACE}", batch.later)
    ledger.fetch(WAKE_LISTENERS, {"schema": ledger.schema})
    return batch.answers


def _check_known(requests: Sequence[EncodedRequest], defaults: Mapping[str, Row]) -> None:
    for index, one in enumerate(requests):
        if one.job_type not in defaults:
            raise definition_missing(f"requests[{index}]: ", one.job_type)


class _Batch:
    """The lines of COPY's text format for a batch, each made when it is asked for, because the server works meanwhile.
    The driver would look at each value to find out how to write it, which takes twice as long.

    The requests were checked and encoded before: no code of the caller's may run while the driver holds the connection.
    """

    def __init__(
        self, requests: Sequence[EncodedRequest], defaults: Mapping[str, Row], now: datetime, milliseconds: int
    ) -> None:
        self._requests = requests
        self._defaults = defaults
        self._now = now
        self._milliseconds = milliseconds
        self._ids: list[str] = []
        self._due: list[str | None] = []
        self.later: list[str] = []
        """The places of the jobs that are not due yet, once the records were read."""
        self.answers: list[EnqueuedJob] = []

    def records(self) -> Iterator[str]:
        """A line for each job. Its id and its place are noted by the way."""
        ids = uuid7_series(self._milliseconds, len(self._requests))
        now = str(self._now)
        for job_id, one in zip(ids, self._requests, strict=True):
            priority, max_attempts, timeout_seconds = self._defaults[one.job_type]
            priority = priority if one.priority is None else one.priority
            max_attempts = max_attempts if one.max_attempts is None else one.max_attempts
            timeout_seconds = timeout_seconds if one.timeout_seconds is None else one.timeout_seconds
            job_type = _escaped(one.job_type)
            next_run_at = self._next_run_at(one)
            is_later = next_run_at is not None and next_run_at > self._now
            place = f"{job_id}\t{next_run_at or now!s}\t{priority}\t{job_type}\n"
            self._ids.append(job_id)
            self._due.append(None if is_later else place)
            if is_later:
                self.later.append(place)
            yield (
                f"{job_id}\t{job_type}\t{one.organization_id or NULL}\t{_escaped(one.payload)}\t{priority}"
                f"\t{max_attempts}\t{timeout_seconds}\t{one.expires_at or NULL!s}"
                f"\t{_escaped(text_array(one.tags)) if one.tags else NULL}"
                f"\t{NULL if one.headers is None else _escaped(one.headers)}\n"
            )

    def _next_run_at(self, one: EncodedRequest) -> datetime | None:
        return one.next_run_at if one.delay_seconds is None else self._now + timedelta(seconds=one.delay_seconds)

    def due(self) -> Iterator[str]:
        """The places of the jobs that are due. Each job, due or not, is answered by the way."""
        for job_id, place in zip(self._ids, self._due, strict=True):
            self.answers.append(EnqueuedJob(UUID(int=int(job_id, 16)), True, JobStatus.PENDING, 1))
            if place is not None:
                yield place


def _escaped(text: str) -> str:
    """Identifiers, array literals of them and JSON have no control characters, so the backslash alone needs one."""
    return text.replace("\\", "\\\\") if "\\" in text else text


def uuid7_series(milliseconds: int, count: int) -> Iterator[str]:
    """``count`` UUIDv7 (RFC 9562) as hexadecimal text, in rising order from one point in time: the 12 bits after the
    milliseconds count up from zero and carry into the milliseconds, so 4,096 ids share one."""
    randoms = bytearray(secrets.token_bytes(8 * count))
    randoms[::8] = randoms[::8].translate(_VARIANT)
    ends = randoms.hex()
    first = milliseconds << 16 | 0x7000
    for index in range(count):
        yield f"{first + (index // 4096 << 16) + index % 4096:016x}{ends[16 * index : 16 * index + 16]}"
