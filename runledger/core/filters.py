"""Which jobs a list or a bulk operation means. Pure values: the bounds of a walk along the ids come from here."""

from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from runledger.core.errors import InvalidRequest
from runledger.core.gate import IDENTIFIER_LIMIT, TAG_LIMIT, check_identifier
from runledger.core.jobs import JsonValue
from runledger.core.limits import check_time
from runledger.core.states import JobStatus

FIRST_ID = UUID(int=0)
LAST_ID = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Jobs for which everything given is true; an empty filter means all.

    ``created_after`` (inclusive) and ``created_before`` (exclusive) compare with the moment in the job's id, in
    milliseconds: when its record was written. ``error_code`` is the last error of a job that has ended.
    """

    job_type: str | None = None
    status: JobStatus | str | None = None
    queue: str | None = None
    tag: str | None = None
    error_code: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given, so that every job is meant."""
        return all(getattr(self, one.name) is None for one in fields(self))

    def as_json(self) -> dict[str, JsonValue]:
        """What is given, for the record of an operation."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: str(value) for name, value in given.items() if value is not None}


def check_filter(wanted: JobFilter) -> JobFilter:
    """The filter itself. Raises InvalidIdentifier, or InvalidRequest for an unknown status or a naive time."""
    for name, limit in (("job_type", IDENTIFIER_LIMIT), ("queue", IDENTIFIER_LIMIT), ("tag", TAG_LIMIT)):
        value = getattr(wanted, name)
        if value is not None:
            check_identifier(value, field=name, limit_bytes=limit)
    if wanted.error_code is not None:
        check_identifier(wanted.error_code, field="error_code")
    if wanted.status is not None:
        try:
            JobStatus(wanted.status)
        except ValueError:
            raise InvalidRequest("status is none of " + ", ".join(JobStatus)) from None
    return wanted


def first_id_of(moment: datetime | None, *, field: str) -> UUID | None:
    """The smallest id that a job written at this moment can have. Raises InvalidRequest for a naive time."""
    if moment is None:
        return None
    milliseconds = int(check_time(moment, field=field).timestamp() * 1_000)
    return UUID(int=milliseconds << 80)
