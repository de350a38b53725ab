"""What a graph may get wrong as it stands: the branch of ``InvalidWorkflow``. Nothing was asked of the database."""

from typing import ClassVar

from runledger.core.errors import ValidationError

__all__ = [
    "InvalidWorkflow",
    "EmptySteps",
    "BlankWorkflowType",
    "BlankStepKey",
    "BlankStepJobType",
    "BlankIdempotencyKey",
    "BlankActiveKey",
    "BlankResultStepKey",
    "UnknownResultStepKey",
    "NonPositiveStepMaxAttempts",
    "NonPositiveStepTimeoutSeconds",
    "ExternalStepJobTypeNotAllowed",
    "ExternalStepQueueSettingsNotAllowed",
    "BlankDependencyStepKey",
    "DuplicateStepKey",
    "UnknownStepKey",
    "MissingDependency",
    "SelfDependency",
    "DuplicateDependency",
    "CycleDetected",
    "TooManySteps",
    "DependencyCountOverflow",
    "InvalidOutputReference",
]


class InvalidWorkflow(ValidationError):
    """The graph is wrong as it stands; the subclass says how. ``step_key`` and ``prerequisite_step_key`` name the
    place, where there is one."""

    code: ClassVar[str] = "workflow.invalid_dag"

    def __init__(
        self,
        message: str,
        internal_message: str | None = None,
        hint: str | None = None,
        *,
        step_key: str | None = None,
        prerequisite_step_key: str | None = None,
    ) -> None:
        super().__init__(message, internal_message, hint)
        self.step_key = step_key
        self.prerequisite_step_key = prerequisite_step_key


class EmptySteps(InvalidWorkflow):
    """A run needs at least one step, and so does an append."""

    code = "workflow.invalid_dag_empty"


class BlankWorkflowType(InvalidWorkflow):
    """The workflow type is blank."""

    code = "workflow.invalid_dag_workflow_type_blank"


class BlankStepKey(InvalidWorkflow):
    """The key of a step is blank."""

    code = "workflow.invalid_dag_step_key_blank"


class BlankStepJobType(InvalidWorkflow):
    """A step that runs as a job names no job type."""

    code = "workflow.invalid_dag_job_type_blank"


class BlankIdempotencyKey(InvalidWorkflow):
    """The idempotency key of the run is blank."""

    code = "workflow.invalid_dag_idempotency_key_blank"


class BlankActiveKey(InvalidWorkflow):
    """The active key of the run is blank."""

    code = "workflow.invalid_dag_active_key_blank"


class BlankResultStepKey(InvalidWorkflow):
    """The key of the result step is blank."""

    code = "workflow.invalid_dag_result_step_key_blank"


class UnknownResultStepKey(InvalidWorkflow):
    """The result step is none of the steps of the run."""

    code = "workflow.invalid_dag_result_step_unknown"


class NonPositiveStepMaxAttempts(InvalidWorkflow):
    """A step must be attempted at least once."""

    code = "workflow.invalid_dag_step_max_attempts_non_positive"


class NonPositiveStepTimeoutSeconds(InvalidWorkflow):
    """The timeout of a step must be at least one second."""

    code = "workflow.invalid_dag_step_timeout_seconds_non_positive"


class ExternalStepJobTypeNotAllowed(InvalidWorkflow):
    """A gate runs no job, so it has no job type."""

    code = "workflow.invalid_dag_external_step_job_type_not_allowed"


class ExternalStepQueueSettingsNotAllowed(InvalidWorkflow):
    """A gate runs no job, so it has neither priority, attempts, timeout nor stage."""

    code = "workflow.invalid_dag_external_step_queue_settings_not_allowed"


class BlankDependencyStepKey(InvalidWorkflow):
    """The key of a prerequisite is blank."""

    code = "workflow.invalid_dag_dependency_step_key_blank"


class DuplicateStepKey(InvalidWorkflow):
    """Two steps have one key, or a step to append has the key of a step of the run."""

    code = "workflow.invalid_dag_duplicate_step_key"


class UnknownStepKey(InvalidWorkflow):
    """The builder has no step of this key yet; a prerequisite may be added later, the step that waits for it not."""

    code = "workflow.invalid_dag_step_unknown"


class MissingDependency(InvalidWorkflow):
    """A prerequisite is none of the steps."""

    code = "workflow.invalid_dag_missing_dependency"


class SelfDependency(InvalidWorkflow):
    """A step waits for itself."""

    code = "workflow.invalid_dag_self_dependency"


class DuplicateDependency(InvalidWorkflow):
    """A step names one prerequisite twice, in whatever modes."""

    code = "workflow.invalid_dag_duplicate_dependency"


class CycleDetected(InvalidWorkflow):
    """Steps wait for each other in a circle; the message shows one circle."""

    code = "workflow.invalid_dag_cycle"


class TooManySteps(InvalidWorkflow):
    """One request holds at most 10,000 steps."""

    code = "workflow.invalid_dag_too_many_steps"


class DependencyCountOverflow(InvalidWorkflow):
    """One request holds at most 100,000 edges."""

    code = "workflow.invalid_dag_dependency_count_overflow"


class InvalidOutputReference(InvalidWorkflow):
    """``output_of`` names a step that is no direct prerequisite, so its output might not be there in time; or it was
    made part of a text."""

    code = "workflow.invalid_dag_output_of"
