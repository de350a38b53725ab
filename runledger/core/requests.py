"""What a caller asks for, checked and made ready for SQL; and the snapshot by which a keyed retry is recognised.

Everything is validated here, before any statement: after ``encode_request`` only the state of the database can refuse.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from runledger.core.errors import InvalidIdentifier, InvalidPayload, InvalidRequest, ValidationError
from runledger.core.gate import KEY_LIMIT, TAG_LIMIT, check_identifier, encode_json
from runledger.core.headers import encode_headers
from runledger.core.jobs import JsonValue
from runledger.core.limits import (
    MAX_ATTEMPTS,
    MAX_DELAY_SECONDS,
    MAX_INT32,
    MAX_TAGS,
    MAX_TIMEOUT_SECONDS,
    MIN_INT32,
    check_integer,
    check_seconds,
    check_time,
)
from runledger.core.payloads import plain_payload
from runledger.core.snapshots import request_snapshot
from runledger.core.states import JobStage

_STAGES = (JobStage.QUEUED, JobStage.SCHEDULED)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One job to enqueue. What is omitted takes the default of the stored definition.

    ``payload`` is any JSON value or an instance of a typed payload; None stands for ``{}``. ``next_run_at`` and
    ``delay`` (seconds or a timedelta, counted on the database's clock) exclude each other. ``idempotency_ttl`` needs
    its key. Of one type, organization and ``active_key`` one job at a time waits or runs; it excludes an idempotency
    key. Tags are a set: order and repetition do not matter. ``headers`` (at most 32 texts, 8 KiB) are for middleware,
    and no part of what an idempotency key covers; ``middleware`` is set by the catalog that makes the request.
    """

    job_type: str
    payload: JsonValue = None
    _: KW_ONLY
    organization_id: UUID | str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    timeout_seconds: int | None = None
    next_run_at: datetime | None = None
    delay: timedelta | float | None = None
    idempotency_key: str | None = None
    idempotency_ttl: timedelta | None = None
    active_key: str | None = None
    stage: JobStage | None = None
    expires_at: datetime | None = None
    tags: Sequence[str] = ()
    headers: Mapping[str, str] | None = None
    middleware: tuple[Any, ...] = field(default=(), repr=False, compare=False)


@dataclass(slots=True)
class EncodedRequest:
    """A request as SQL takes it: checked, in plain types, times in UTC, None where the definition decides.

    Not frozen: it is made for every job that is enqueued, and freezing triples the cost of making it.
    """

    job_type: str
    payload: str
    organization_id: str | None
    priority: int | None
    max_attempts: int | None
    timeout_seconds: int | None
    next_run_at: datetime | None
    delay_seconds: float | None
    idempotency_key: str | None
    idempotency_ttl_seconds: float | None
    active_key: str | None
    snapshot: str | None
    expires_at: datetime | None
    tags: list[str] | None
    headers: str | None

    @property
    def is_keyed(self) -> bool:
        """Whether another job may be the answer."""
        return self.idempotency_key is not None or self.active_key is not None


def encode_request(request: JobRequest) -> EncodedRequest:
    """The request with every limit checked; later changes to its payload change nothing.

    Raises InvalidIdentifier, InvalidPayload or InvalidRequest, naming the field.
    """
    encoded = EncodedRequest(
        _job_type(request.job_type),
        "{}" if request.payload is None else encode_json(plain_payload(request.payload), error=InvalidPayload),
        None if request.organization_id is None else check_organization(request.organization_id),
        _integer(request.priority, "priority", MIN_INT32, MAX_INT32),
        _integer(request.max_attempts, "max_attempts", 1, MAX_ATTEMPTS),
        _integer(request.timeout_seconds, "timeout_seconds", 1, MAX_TIMEOUT_SECONDS),
        None if request.next_run_at is None else check_time(request.next_run_at, field="next_run_at"),
        None if request.delay is None else check_seconds(request.delay, field="delay"),
        None,
        None,
        None,
        None,
        None if request.expires_at is None else check_time(request.expires_at, field="expires_at"),
        _tags(request.tags),
        None if request.headers is None else encode_headers(request.headers),
    )
    if encoded.next_run_at is not None and encoded.delay_seconds is not None:
        raise InvalidRequest("next_run_at and delay exclude each other")
    stage = JobStage.QUEUED if request.stage is None else _stage(request.stage)
    if request.idempotency_key is not None:
        _add_key(encoded, request, stage)
    elif request.idempotency_ttl is not None:
        raise InvalidRequest("idempotency_ttl needs an idempotency_key")
    if request.active_key is not None:
        if request.idempotency_key is not None:
            raise InvalidRequest("idempotency_key and active_key exclude each other")
        encoded.active_key = check_identifier(request.active_key, field="active_key", limit_bytes=KEY_LIMIT)
    return encoded


def encode_requests(requests: Iterable[JobRequest]) -> Iterator[EncodedRequest]:
    """Each request encoded when it is asked for; an error says which it is: ``requests[i]``."""
    for index, request in enumerate(requests):
        try:
            encoded = encode_request(request)
        except ValidationError as error:
            raise type(error)(f"requests[{index}]: {error}", error.internal_message, error.hint) from None
        yield encoded


def _job_type(value: object) -> str:
    if callable(value):
        raise InvalidIdentifier(
            f"job_type must be text, not {type(value).__name__}",
            hint="catalog.request(handler, payload) makes a request for the job type of a handler",
        )
    return check_identifier(value, field="job_type")


def _add_key(encoded: EncodedRequest, request: JobRequest, stage: JobStage) -> None:
    encoded.idempotency_key = check_identifier(request.idempotency_key, field="idempotency_key", limit_bytes=KEY_LIMIT)
    if request.idempotency_ttl is not None:
        encoded.idempotency_ttl_seconds = _ttl(request.idempotency_ttl)
    encoded.snapshot = request_snapshot(
        encoded.payload,
        priority=encoded.priority,
        max_attempts=encoded.max_attempts,
        timeout_seconds=encoded.timeout_seconds,
        next_run_at=encoded.next_run_at,
        stage=stage,
        delay_seconds=encoded.delay_seconds,
        expires_at=encoded.expires_at,
        tags=encoded.tags,
    )


def _integer(value: object, field: str, low: int, high: int) -> int | None:
    return None if value is None else check_integer(value, field=field, low=low, high=high)


def check_organization(value: object) -> str:
    """The UUID as canonical text. Raises InvalidRequest."""
    if type(value) is UUID:
        return str(value)
    text = str(value).lower() if isinstance(value, str | UUID) else ""
    try:
        canonical = str(UUID(text))
    except ValueError:
        raise InvalidRequest("organization_id must be a UUID") from None
    if text not in (canonical, canonical.replace("-", "")):
        raise InvalidRequest("organization_id must be a UUID")
    return canonical


def _ttl(value: object) -> float:
    if not isinstance(value, timedelta) or value <= timedelta():
        raise InvalidRequest("idempotency_ttl must be a timedelta above zero")
    return check_seconds(value, field="idempotency_ttl", high=MAX_DELAY_SECONDS)


def _stage(value: object) -> JobStage:
    for stage in _STAGES:
        if value == stage:
            return stage
    raise InvalidRequest("stage must be queued or scheduled")


def _tags(value: object) -> list[str] | None:
    if value is None or value == ():
        return None
    if not isinstance(value, Sequence | Set) or isinstance(value, str | bytes):
        raise InvalidRequest("tags must be a sequence of texts")
    if len(value) > MAX_TAGS:
        raise InvalidRequest(f"tags must be at most {MAX_TAGS}")
    tags = sorted({check_identifier(tag, field="tags", limit_bytes=TAG_LIMIT) for tag in value})
    return tags or None
