"""Why a job is where it is: the facts that a claim looks at, and what follows from them, gate by gate."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from runledger.core.states import JobStage, JobStatus, Outcome


class GateState(StrEnum):
    """SHUT holds the job up, or ended it; NOTE does not, and is worth knowing; UNKNOWN could not be found out."""

    OPEN = "OPEN"
    SHUT = "SHUT"
    NOTE = "NOTE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, whether it holds, and a clause for people that says why."""

    name: str
    state: GateState
    text: str


@dataclass(frozen=True, slots=True)
class JobExplanation:
    """The verdict is one sentence; the gates are the conditions in the order in which they matter; ``advice`` holds
    commands, or what else helps. ``ahead`` jobs are claimed before this one; ``estimated_start_seconds`` is when it
    should begin, None when nobody can say; ``estimated_from`` says how that was found."""

    job_id: UUID
    job_type: str
    status: JobStatus
    stage: JobStage
    run_number: int
    attempt: int
    max_attempts: int
    verdict: str
    gates: tuple[Gate, ...]
    advice: tuple[str, ...]
    ahead: int | None
    estimated_start_seconds: float | None
    estimated_from: str


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What one snapshot of the database says about a job and all that decides about it, by the database's clock.

    Workers count as serving when they are live and claim jobs of this type from its queue. ``ahead`` counts the ready
    jobs before it that the serving workers would take first; ``recent_ends`` the attempts that they ended within the
    last ``RECENT_SECONDS``. ``has_definition`` is false when the type has none; the settings are then None."""

    now: datetime
    job_id: UUID
    job_type: str
    status: JobStatus
    stage: JobStage
    run_number: int
    attempt: int
    max_attempts: int
    timeout_seconds: int
    priority: int
    created_at: datetime
    next_run_at: datetime | None
    expires_at: datetime | None
    leased_at: datetime | None
    renewed_at: datetime | None
    lease_expires_at: datetime | None
    worker_id: str | None
    finished_at: datetime | None
    quiesces_at: datetime | None
    status_reason: str | None
    has_definition: bool
    queue: str | None
    is_enabled: bool | None
    is_paused: bool | None
    max_running: int | None
    running_limited: int
    rate_starts: int | None
    rate_seconds: int | None
    recent_starts: int
    changed_by: str | None
    change_reason: str | None
    changed_at: datetime | None
    crash_budget: int | None
    crashes: int
    serving_workers: int
    idle_workers: int
    quiet_workers: int
    other_queue_workers: int
    live_workers: int
    lost_workers: int
    is_worker_live: bool | None
    ahead: int
    recent_ends: int
    last_outcome: Outcome | None
    last_error_code: str | None
    last_error_message: str | None
    last_worker_id: str | None
    last_exit_signal: int | None
    canceled_by: str | None
    cancel_reason: str | None
    workflow_run_id: UUID | None
    step_key: str | None


RECENT_SECONDS = 120
"""The window of ``recent_ends``."""


def duration_text(seconds: float) -> str:
    """About how long, for people: ``45 s``, ``12 min``, ``3 h``, ``2 days``."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3_600, 48)):
        if seconds < most * size:
            return f"{max(0.0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
