"""The result of a run, or the error that says why it has none."""

from runledger.core import workflow_errors as errors
from runledger.core.jobs import JsonValue
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflows import WorkflowRun


def check_declares_result(run: WorkflowRun) -> None:
    """Raises WorkflowResultNotDeclared when the run names no result step, whether it has ended or not."""
    if run.result_step_key is None:
        raise errors.WorkflowResultNotDeclared("the run names no result step; `result_step` of the builder does")


def result_of(run: WorkflowRun) -> JsonValue:
    """The output of the result step of a run that has ended. Never None.

    Raises WorkflowResultNotDeclared, WorkflowResultUnsuccessful when the run did not succeed, or WorkflowResultMissing
    when its result step returned nothing.
    """
    check_declares_result(run)
    if run.status is not WorkflowRunStatus.SUCCEEDED:
        raise errors.WorkflowResultUnsuccessful(f"the run is {run.status}, so it has no result")
    if run.result is None:
        raise errors.WorkflowResultMissing(f"the result step {run.result_step_key!r} returned nothing")
    return run.result
