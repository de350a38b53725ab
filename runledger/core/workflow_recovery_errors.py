"""The errors of re-runs, active keys and results of workflow runs."""

from typing import ClassVar

from runledger.core.errors import ConflictError, NotFoundError, ValidationError

__all__ = [
    "ActiveKeyConflict",
    "RecoverySourceNotFound",
    "RecoverySourceNotTerminal",
    "RecoverySourceSucceeded",
    "RecoveryActiveConstraint",
    "InvalidRecoveryReason",
    "WorkflowResultNotDeclared",
    "WorkflowResultUnsuccessful",
    "WorkflowResultMissing",
]


class ActiveKeyConflict(ConflictError):
    """Another live run holds the active key; the message names it."""

    code: ClassVar[str] = "workflow.active_key_conflict"


class RecoverySourceNotFound(NotFoundError):
    """The run that should run again does not exist in the given scope."""

    code = "workflow.recovery_source_not_found"


class RecoverySourceNotTerminal(ConflictError):
    """The run has not ended yet, so there is nothing to run again."""

    code = "workflow.recovery_source_not_terminal"


class RecoverySourceSucceeded(ConflictError):
    """The run succeeded; to do all of it once more, enqueue a new one."""

    code = "workflow.recovery_source_succeeded"


class RecoveryActiveConstraint(ActiveKeyConflict):
    """The run cannot run again while another live run holds its active key; the message names it."""

    code = "workflow.recovery_active_constraint"


class InvalidRecoveryReason(ValidationError):
    """The reason of a re-run is blank; leave it away instead."""

    code = "workflow.invalid_recovery_reason"


class WorkflowResultNotDeclared(ValidationError):
    """The run names no result step, so it will never have a result."""

    code = "workflow.result_not_declared"


class WorkflowResultUnsuccessful(ConflictError):
    """The run ended without success, so it has no result."""

    code = "workflow.result_unsuccessful_terminal"


class WorkflowResultMissing(NotFoundError):
    """The run succeeded and its result step returned nothing."""

    code = "workflow.result_missing"
