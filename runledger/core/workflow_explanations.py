"""Why a step does not run, or never did: the edges in its way, and where the trouble began."""

from dataclasses import dataclass
from uuid import UUID

from runledger.core.states import ReleaseMode, StepKind, WorkflowRunStatus, WorkflowStepStatus


@dataclass(frozen=True, slots=True)
class UnmetEdge:
    """An edge that holds a step up: its prerequisite has not ended, or ended in a way that can never satisfy it."""

    prerequisite_step_key: str
    prerequisite_status: WorkflowStepStatus
    release_mode: ReleaseMode

    @property
    def is_broken(self) -> bool:
        """Whether it can never be satisfied any more."""
        return self.prerequisite_status.is_final


@dataclass(frozen=True, slots=True)
class RootCause:
    """A step that waits for no other one: it failed, was cancelled itself, is an open gate, or has a job at work.

    ``job_id`` leads on to the job; code, message and reason are those of the step, else of its job.
    """

    step_key: str
    kind: StepKind
    status: WorkflowStepStatus
    job_type: str | None
    job_id: UUID | None
    error_code: str | None
    error_message: str | None
    status_reason: str | None

    @property
    def sentence(self) -> str:
        """What is the matter with it, in a few words."""
        if self.status is WorkflowStepStatus.WAITING_FOR_EXTERNAL:
            return f"gate {self.step_key!r} is open and waits for its completion"
        if self.status in (WorkflowStepStatus.ENQUEUED, WorkflowStepStatus.RUNNING):
            state = "is running" if self.status is WorkflowStepStatus.RUNNING else "waits for a worker"
            return f"the job of step {self.step_key!r} {state}"
        verb = "failed" if self.status is WorkflowStepStatus.FAILED else "was cancelled"
        why = self.error_code or self.status_reason
        return f"step {self.step_key!r} {verb}" + (f" ({why})" if why else "")


@dataclass(frozen=True, slots=True)
class WorkflowStepExplanation:
    """A step, what holds it up, and why. ``unmet_edges`` and ``root_causes`` show the first of so many as their counts
    say: failures come first, then cancellations, open gates and jobs. Nothing holds up a step that succeeded."""

    run_id: UUID
    run_status: WorkflowRunStatus
    step_key: str
    kind: StepKind
    status: WorkflowStepStatus
    job_id: UUID | None
    unmet_edges: tuple[UnmetEdge, ...]
    unmet_edge_count: int
    root_causes: tuple[RootCause, ...]
    root_cause_count: int

    @property
    def summary(self) -> str:
        """One sentence for people."""
        if self.status is WorkflowStepStatus.SUCCEEDED:
            return f"step {self.step_key!r} succeeded"
        begin = f"step {self.step_key!r} is {self.status}"
        if self.unmet_edge_count:
            edges = "edge is" if self.unmet_edge_count == 1 else "edges are"
            begin = f"{begin}: {self.unmet_edge_count} {edges} not satisfied"
        return begin + _because(self.root_causes, self.root_cause_count)


@dataclass(frozen=True, slots=True)
class WorkflowRunExplanation:
    """A run, and what keeps it from ending or from having succeeded: ``root_causes`` as for a step."""

    run_id: UUID
    run_status: WorkflowRunStatus
    status_reason: str | None
    root_causes: tuple[RootCause, ...]
    root_cause_count: int

    @property
    def summary(self) -> str:
        """One sentence for people."""
        return f"the run is {self.run_status}{_because(self.root_causes, self.root_cause_count)}"


def _because(causes: tuple[RootCause, ...], count: int) -> str:
    if not causes:
        return ""
    more = f", and {count - 1:,} more" if count > 1 else ""
    return f", because {causes[0].sentence}{more}"
