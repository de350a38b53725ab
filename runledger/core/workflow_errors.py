"""The errors of workflows: branches of the tree in ``errors.py``, with the codes under ``workflow.``.

A graph that is wrong as it stands is an ``InvalidWorkflow`` (``workflow_graph_errors.py``).
"""

from typing import ClassVar

from runledger.core import workflow_graph_errors, workflow_recovery_errors
from runledger.core.errors import (
    ConflictError,
    FieldDifference,
    InternalError,
    NotFoundError,
    ValidationError,
    WaitTimedOut,
)
from runledger.core.workflow_graph_errors import *  # noqa: F403 - all of them, each named in its __all__
from runledger.core.workflow_recovery_errors import *  # noqa: F403 - the same

__all__ = [
    "WorkflowDefinitionNotFoundOrDisabled",
    "WorkflowRequestConflict",
    "EnqueueConflictingRetry",
    "AppendConflictingRetry",
    "WorkflowSnapshotMissing",
    "WorkflowAlreadyEnqueued",
    "WorkflowRunNotFound",
    "WorkflowStepNotFound",
    "AppendMutationKeyBlank",
    "AppendTerminalRun",
    "AppendWindowMissing",
    "AppendWindowNotExternal",
    "AppendWindowNotOpen",
    "ExternalStepNotFound",
    "ExternalStepNotExternal",
    "ExternalStepNotWaiting",
    "ExternalStepInvalidTerminalStatus",
    "ExternalStepOutputInvalidStatus",
    "ExternalStepOutputPathMissing",
    "ExternalStepConflictingCompletionRetry",
    "ExternalStepConflictingOutputRetry",
    "WorkflowReleaseConflict",
    "WorkflowInternalState",
    "WorkflowWaitTimedOut",
    "WorkflowUnsupportedIsolation",
    "WorkflowEnqueueUnsupportedIsolation",
    "AppendUnsupportedIsolation",
    "CancelUnsupportedIsolation",
    "RecoveryUnsupportedIsolation",
    "TerminalCompletionUnsupportedIsolation",
    "ExternalCompletionUnsupportedIsolation",
]
__all__ += workflow_graph_errors.__all__
__all__ += workflow_recovery_errors.__all__


class WorkflowDefinitionNotFoundOrDisabled(ValidationError):
    """The job type of a step has no enabled definition; nothing of the graph was stored."""

    code = "workflow.definition_not_found_or_disabled"


class WorkflowRequestConflict(ConflictError):
    """A key already belongs to a different request; ``differences`` says in which step and field."""

    code: ClassVar[str] = "workflow.conflicting_retry"

    def __init__(self, message: str, differences: tuple[FieldDifference, ...] = ()) -> None:
        fields = ", ".join(difference.field for difference in differences[:5])
        super().__init__(f"{message} (differs in: {fields})" if fields else message)
        self.differences = differences


class EnqueueConflictingRetry(WorkflowRequestConflict):
    """The idempotency key already belongs to a run that was enqueued with a different graph."""

    code = "workflow.enqueue_conflicting_retry"


class AppendConflictingRetry(WorkflowRequestConflict):
    """The mutation key already belongs to a different append."""

    code = "workflow.append_conflicting_retry"


class WorkflowSnapshotMissing(ConflictError):
    """The keyed run carries no snapshot of its request, so a retry cannot be compared with it."""

    code = "workflow.legacy_idempotency_snapshot_missing"


class WorkflowAlreadyEnqueued(ConflictError):
    """The idempotency key of the run is already taken."""

    code = "workflow.already_enqueued"


class WorkflowRunNotFound(NotFoundError):
    """No such run exists in the given scope."""

    code = "workflow.run_not_found"


class WorkflowStepNotFound(NotFoundError):
    """The run has no such step, or does not exist in the given scope."""

    code = "workflow.step_not_found"


class AppendMutationKeyBlank(ValidationError):
    """An append needs a key by which its retry is recognised."""

    code = "workflow.append_mutation_key_blank"


class AppendTerminalRun(ValidationError):
    """The run has ended; nothing can be appended to it."""

    code = "workflow.append_terminal_run"


class AppendWindowMissing(ValidationError):
    """The run has no step with the key of the append window."""

    code = "workflow.append_window_missing"


class AppendWindowNotExternal(ValidationError):
    """The append window must be a gate; this step is a job."""

    code = "workflow.append_window_not_external"


class AppendWindowNotOpen(ValidationError):
    """The gate that serves as append window does not wait now, so the run might end meanwhile."""

    code = "workflow.append_window_not_open"


class ExternalStepNotFound(NotFoundError):
    """No such step exists in the given scope."""

    code = "workflow.external_step_not_found"


class ExternalStepNotExternal(ValidationError):
    """The step is a job; only a gate is completed from outside."""

    code = "workflow.external_step_not_external"


class ExternalStepNotWaiting(ValidationError):
    """The gate does not wait yet: its own prerequisites have not ended."""

    code = "workflow.external_step_not_waiting"


class ExternalStepInvalidTerminalStatus(ValidationError):
    """A gate ends as Succeeded, Failed or Canceled, and in no other way."""

    code = "workflow.external_step_invalid_terminal_status"


class ExternalStepOutputInvalidStatus(ValidationError):
    """Only a gate that succeeds has an output."""

    code = "workflow.external_step_output_invalid_status"


class ExternalStepOutputPathMissing(ValidationError):
    """The output lacks a path that a waiting step takes by ``output_of``, so that step could never run."""

    code = "workflow.external_step_output_path_missing"


class ExternalStepConflictingCompletionRetry(ConflictError):
    """The gate was already completed in another way, or with another reason, code or message."""

    code = "workflow.external_step_conflicting_completion_retry"


class ExternalStepConflictingOutputRetry(ConflictError):
    """The gate already succeeded with another output."""

    code = "workflow.external_step_conflicting_output_retry"


class WorkflowReleaseConflict(ConflictError):
    """Another transaction held the run for too long; the same call may succeed now."""

    code = "workflow.release_conflict"


class WorkflowInternalState(InternalError):
    """The stored graph contradicts itself; nothing was written."""

    code = "workflow.internal_state"


class WorkflowWaitTimedOut(WaitTimedOut):
    """The run had not ended when the caller's patience did; the run itself goes on."""

    code = "workflow.result_wait_timeout"


class WorkflowUnsupportedIsolation(ValidationError):
    """This operation decides after a lock wait and needs READ COMMITTED."""

    code: ClassVar[str] = "workflow.unsupported_isolation"


class WorkflowEnqueueUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """A keyed enqueue of a run needs READ COMMITTED."""

    code = "workflow.enqueue_idempotency_unsupported_isolation"


class AppendUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """An append needs READ COMMITTED."""

    code = "workflow.append_unsupported_isolation"


class CancelUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """The cancellation of a run needs READ COMMITTED."""

    code = "workflow.cancel_unsupported_isolation"


class RecoveryUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """A re-run needs READ COMMITTED."""

    code = "workflow.recovery_unsupported_isolation"


class TerminalCompletionUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """Ending a job of a run needs READ COMMITTED."""

    code = "workflow.terminal_completion_unsupported_isolation"


class ExternalCompletionUnsupportedIsolation(WorkflowUnsupportedIsolation):
    """The completion of a gate needs READ COMMITTED."""

    code = "workflow.external_completion_unsupported_isolation"
