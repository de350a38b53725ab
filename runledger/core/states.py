"""The state machines of job, step and run: one table each, every row with its reason.

The guards of the statements, the diagrams in the documentation and a test against the database's enums all
come from these tables. A state of a job is also a place (see docs/architecture.md): PENDING is a row in
``job_ready`` or ``job_scheduled``, LEASED a row in ``job_leases``, the rest is written on the record.
"""

from enum import StrEnum
from typing import NamedTuple


class JobStatus(StrEnum):
    """Where a job stands: PENDING until it is claimed, LEASED while an attempt runs, and then one of the three ends."""

    PENDING = "PENDING"
    LEASED = "LEASED"
    SUCCEEDED = "SUCCEEDED"
    DEAD_LETTERED = "DEAD_LETTERED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; only a requeue starts it again."""
        return self in FINAL_JOB_STATUSES


class JobStage(StrEnum):
    """Where a job is, in a word for people: derived from its place, never stored."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"


class Outcome(StrEnum):
    """How one attempt ended. The last four neither succeeded nor failed by the handler's doing."""

    SUCCEEDED = "SUCCEEDED"
    RETRYABLE = "RETRYABLE"
    TERMINAL = "TERMINAL"
    PANICKED = "PANICKED"
    TIMEOUT = "TIMEOUT"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    CANCELED = "CANCELED"
    SNOOZED = "SNOOZED"
    RELEASED = "RELEASED"

    @property
    def is_retryable(self) -> bool:
        """Whether the job may run again after such an attempt, as far as attempts and crash budget last."""
        return self in RETRYABLE_OUTCOMES


class JobEventType(StrEnum):
    """What the timeline of a job shows. The first six follow from the record and its attempts; the rest are stored."""

    ENQUEUED = "ENQUEUED"
    LEASED = "LEASED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RETRY_SCHEDULED = "RETRY_SCHEDULED"
    DEAD_LETTERED = "DEAD_LETTERED"
    CANCELED = "CANCELED"
    REQUEUED = "REQUEUED"
    RELEASED = "RELEASED"
    RESCHEDULED = "RESCHEDULED"
    PRIORITY_CHANGED = "PRIORITY_CHANGED"


class LogLevel(StrEnum):
    """How much a line of a job's log matters, the least first."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class MissedPolicy(StrEnum):
    """What becomes of the slots of a schedule that nobody fired in time."""

    ONE = "ONE"
    SKIP = "SKIP"
    ALL = "ALL"


class OverlapPolicy(StrEnum):
    """Whether a schedule fires while the job of its last firing has not ended."""

    ALLOW = "ALLOW"
    SKIP = "SKIP"


class WorkflowRunStatus(StrEnum):
    """Where a run stands. WAITING_FOR_EXTERNAL: only gates, and what is behind them, are left; COMPLETED_WITH_ERRORS: every
    step has ended, not all of them well."""

    RUNNING = "RUNNING"
    WAITING_FOR_EXTERNAL = "WAITING_FOR_EXTERNAL"
    SUCCEEDED = "SUCCEEDED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended, for ever."""
        return self in FINAL_RUN_STATUSES


class WorkflowStepStatus(StrEnum):
    """RUNNING is shown while the step's job is leased; it is derived, never stored."""

    BLOCKED = "BLOCKED"
    WAITING_FOR_EXTERNAL = "WAITING_FOR_EXTERNAL"
    ENQUEUED = "ENQUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether the step has ended, for ever."""
        return self in FINAL_STEP_STATUSES


class StepKind(StrEnum):
    """JOB: the step enqueues a job; EXTERNAL: it is a gate, which somebody outside completes."""

    JOB = "JOB"
    EXTERNAL = "EXTERNAL"


class ReleaseMode(StrEnum):
    """What an edge waits for: any end of its prerequisite, or success only."""

    ON_TERMINAL = "ON_TERMINAL"
    ON_SUCCESS = "ON_SUCCESS"


class Transition(NamedTuple):
    """Sources, target, what the timeline shows afterwards, and why the transition exists."""

    sources: tuple[StrEnum, ...]
    target: StrEnum
    events: tuple[JobEventType, ...]
    reason: str


_PENDING, _LEASED = JobStatus.PENDING, JobStatus.LEASED
_SUCCEEDED, _DEAD_LETTERED, _CANCELED = JobStatus.SUCCEEDED, JobStatus.DEAD_LETTERED, JobStatus.CANCELED
_E = JobEventType

# fmt: off
#                                    from                        to              the timeline shows                    because
JOB_TRANSITIONS: dict[str, Transition] = {
    "enqueue":     Transition((),                                _PENDING,       (_E.ENQUEUED,),                       "a caller asked for work"),
    "claim":       Transition((_PENDING,),                       _LEASED,        (_E.LEASED,),                         "a worker took the job; the attempt counts from here"),
    "succeed":     Transition((_LEASED,),                        _SUCCEEDED,     (_E.SUCCEEDED,),                      "the handler returned under a live lease"),
    "retry":       Transition((_LEASED,),                        _PENDING,       (_E.FAILED, _E.RETRY_SCHEDULED),      "the attempt failed and attempts remain"),
    "dead_letter": Transition((_LEASED,),                        _DEAD_LETTERED, (_E.FAILED, _E.DEAD_LETTERED),        "terminal failure, attempts exhausted, or crash budget spent"),
    "snooze":      Transition((_LEASED,),                        _PENDING,       (_E.RETRY_SCHEDULED,),                "the handler asked for a later time; the attempt is refunded"),
    "continue":    Transition((_LEASED,),                        _PENDING,       (_E.SUCCEEDED, _E.REQUEUED),          "the handler asked for a next run and keeps its checkpoint"),
    "release":     Transition((_LEASED,),                        _PENDING,       (_E.RELEASED,),                       "claimed and given back; the attempt is refunded"),
    "expire":      Transition((_LEASED,),                        _CANCELED,      (_E.CANCELED,),                       "its expiry passed before it started"),
    "cancel":      Transition((_PENDING, _LEASED),               _CANCELED,      (_E.CANCELED,),                       "a person or a program took the job back"),
    "requeue":     Transition((_DEAD_LETTERED, _CANCELED),       _PENDING,       (_E.REQUEUED,),                       "a person wants a next run from the start"),
}
# fmt: on

FINAL_JOB_STATUSES = frozenset({_SUCCEEDED, _DEAD_LETTERED, _CANCELED})
RETRYABLE_OUTCOMES = frozenset({Outcome.RETRYABLE, Outcome.TIMEOUT, Outcome.LEASE_EXPIRED, Outcome.PANICKED})
"""PANICKED here means the worker process died; it retries until its own crash budget is spent."""

FAILED_OUTCOMES = RETRYABLE_OUTCOMES | {Outcome.TERMINAL}
REFUNDED_OUTCOMES = frozenset({Outcome.SNOOZED, Outcome.RELEASED})
"""Outcomes that leave the attempt count as it was before the claim; the lease token still grew."""

_B, _W, _Q = WorkflowStepStatus.BLOCKED, WorkflowStepStatus.WAITING_FOR_EXTERNAL, WorkflowStepStatus.ENQUEUED

# fmt: off
STEP_TRANSITIONS: dict[str, Transition] = {
    "release":       Transition((_B,),        _Q,                            (), "every prerequisite ended as its edge demands"),
    "open_gate":     Transition((_B,),        _W,                            (), "the same, for a step that waits for the outside world"),
    "succeed":       Transition((_Q,),        WorkflowStepStatus.SUCCEEDED,  (), "its job succeeded"),
    "fail":          Transition((_Q,),        WorkflowStepStatus.FAILED,     (), "its job was dead-lettered"),
    "lack_input":    Transition((_B,),        WorkflowStepStatus.FAILED,     (), "its payload takes an output that is not there"),
    "pass_gate":     Transition((_W,),        WorkflowStepStatus.SUCCEEDED,  (), "the outside world said yes"),
    "fail_gate":     Transition((_W,),        WorkflowStepStatus.FAILED,     (), "the outside world said no"),
    "cancel":        Transition((_B, _W, _Q), WorkflowStepStatus.CANCELED,   (), "the run was cancelled, or an edge can never be satisfied"),
}

_R, _RW = WorkflowRunStatus.RUNNING, WorkflowRunStatus.WAITING_FOR_EXTERNAL
RUN_TRANSITIONS: dict[str, Transition] = {
    "start":    Transition((),       _R,                                       (), "a graph was enqueued"),
    "wait":     Transition((_R,),    _RW,                                      (), "only open gates and what stands behind them remain"),
    "resume":   Transition((_RW,),   _R,                                       (), "a gate released work"),
    "succeed":  Transition((_R, _RW), WorkflowRunStatus.SUCCEEDED,             (), "every step succeeded"),
    "complete": Transition((_R, _RW), WorkflowRunStatus.COMPLETED_WITH_ERRORS, (), "every step ended, not all well"),
    "cancel":   Transition((_R, _RW), WorkflowRunStatus.CANCELED,              (), "a person or a program stopped the run"),
}
# fmt: on

FINAL_STEP_STATUSES = frozenset({WorkflowStepStatus.SUCCEEDED, WorkflowStepStatus.FAILED, WorkflowStepStatus.CANCELED})
FINAL_RUN_STATUSES = frozenset(
    {WorkflowRunStatus.SUCCEEDED, WorkflowRunStatus.COMPLETED_WITH_ERRORS, WorkflowRunStatus.CANCELED}
)
