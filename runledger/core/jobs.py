"""The values that pass between the parts: what was enqueued, claimed, attempted, and what people read.

All are frozen: a value says what was true when it was made. Times are aware and in UTC. Ids are UUIDs, except on
the claim's own path, where the text form saves microseconds for each job.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from runledger.core.states import JobEventType, JobStage, JobStatus, LogLevel, Outcome

JsonValue = Any
"""JSON as Python reads it: dict, list, str, int, float, bool, None."""


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """What an enqueue answers. ``is_new`` is false when the idempotency key already had this very request, or a live
    job the active key."""

    job_id: UUID
    is_new: bool
    status: JobStatus
    run_number: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one attempt. ``lease_token`` only grows; a write names job and token, and counts only while
    the lease is live on the database's clock. Run number, attempt and worker are for people."""

    job_id: str
    lease_token: int
    job_type: str
    run_number: int
    attempt: int
    worker_id: str


@dataclass(slots=True)
class ClaimedJob:
    """One claimed job: its lease and all that an attempt needs. Payload, checkpoint and headers are JSON text, because
    a poisoned row must fail its own attempt and not the batch it was fetched with.

    Not frozen: it is made for every job on the hottest path, and freezing triples the cost of making it.
    """

    job_id: str
    lease_token: int
    job_type: str
    run_number: int
    attempt: int
    max_attempts: int
    timeout_seconds: int
    payload: str
    checkpoint: str | None
    organization_id: str | None
    workflow_run_id: str | None
    step_key: str | None
    is_expired: bool
    headers: str | None = None
    waited_seconds: float = 0.0
    """How long the job had been due when it was claimed."""

    inputs: str | None = None
    """JSON text of an object: the outputs of the prerequisites by step key, for a job of a workflow run."""

    def lease(self, worker_id: str) -> Lease:
        return Lease(self.job_id, self.lease_token, self.job_type, self.run_number, self.attempt, worker_id)


class ScopeKind(StrEnum):
    ORGANIZATION = "organization"
    GLOBAL = "global"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which tenants a read or an operation may see: one organization, only jobs of none, or all."""

    kind: ScopeKind
    organization_id: UUID | None = None

    @classmethod
    def organization(cls, organization_id: UUID | str) -> "Scope":
        """Jobs, runs and schedules of this organization only. Raises ValueError for a text that is no UUID."""
        return cls(ScopeKind.ORGANIZATION, UUID(str(organization_id)))

    @classmethod
    def global_only(cls) -> "Scope":
        """Only what belongs to no organization."""
        return cls(ScopeKind.GLOBAL)

    @classmethod
    def any(cls) -> "Scope":
        """Everything, whoever it belongs to: for operators, and where there are no organizations."""
        return cls(ScopeKind.ANY)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as people read it: the record, and where it is now."""

    job_id: UUID
    job_type: str
    organization_id: UUID | None
    status: JobStatus
    stage: JobStage
    priority: int
    run_number: int
    attempt: int
    max_attempts: int
    timeout_seconds: int
    payload: JsonValue
    output: JsonValue
    checkpoint: JsonValue
    progress_done: int | None
    progress_total: int | None
    tags: tuple[str, ...]
    idempotency_key: str | None
    workflow_run_id: UUID | None
    created_at: datetime
    next_run_at: datetime | None
    expires_at: datetime | None
    leased_at: datetime | None
    lease_expires_at: datetime | None
    worker_id: str | None
    finished_at: datetime | None
    status_reason: str | None
    last_error_code: str | None
    last_error_message: str | None
    active_key: str | None = None

    @property
    def progress_percent(self) -> float | None:
        """Done of total in percent, two decimals; None unless both are known and the total is above zero."""
        if self.progress_done is None or not self.progress_total:
            return None
        return round(100 * self.progress_done / self.progress_total, 2)


class JobPage(list[Job]):
    """A page of a list of jobs. ``next_before`` is where the next page begins; None when this was the last one."""

    def __init__(self, jobs: Iterable[Job] = (), next_before: UUID | None = None) -> None:
        super().__init__(jobs)
        self.next_before = next_before


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt. ``cpu_ms`` and ``max_rss_kb`` are the worker process's, as far as they were known."""

    job_id: UUID
    run_number: int
    attempt: int
    lease_token: int
    outcome: Outcome
    worker_id: str
    leased_at: datetime
    started_at: datetime | None
    finished_at: datetime
    error_code: str | None
    error_message: str | None
    traceback: str | None
    retry_at: datetime | None
    exit_signal: int | None
    cpu_ms: int | None
    max_rss_kb: int | None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's timeline, derived or stored."""

    job_id: UUID
    event_type: JobEventType
    run_number: int
    attempt: int | None
    occurred_at: datetime
    actor: str | None
    reason: str | None
    detail: JsonValue = field(default_factory=dict)
    position: int = 0
    """Its place among the events of the same moment."""


@dataclass(frozen=True, slots=True)
class JobLog:
    """A line that a handler or a program wrote about a job, with fields of its own. ``attempt`` is None where no
    attempt had begun yet."""

    log_id: int
    job_id: UUID
    run_number: int
    attempt: int | None
    level: LogLevel
    message: str
    fields: JsonValue
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that ended in the dead letters, with its payload and checkpoint as they were. Kept through a requeue:
    ``job_status`` is what the job is now."""

    job_id: UUID
    job_type: str
    organization_id: UUID | None
    run_number: int
    attempt: int
    error_code: str | None
    error_message: str | None
    payload: JsonValue
    checkpoint: JsonValue
    failed_at: datetime
    job_status: JobStatus
