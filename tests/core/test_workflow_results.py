"""The result of a run: the output of its result step, or the error that says why there is none."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from runledger.core import workflow_errors as errors
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflow_results import check_declares_result, result_of
from runledger.core.workflows import WorkflowRun

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RUN = WorkflowRun(
    run_id=UUID(int=1),
    workflow_type="test",
    organization_id=None,
    status=WorkflowRunStatus.SUCCEEDED,
    metadata={},
    idempotency_key=None,
    result_step_key="last",
    result={"n": 7},
    step_count=1,
    unfinished_count=0,
    failed_count=0,
    started_at=NOW,
    finished_at=NOW,
    status_reason=None,
    created_at=NOW,
    rerun_of_run_id=None,
    active_key=None,
)


def test_the_result_is_the_output_of_the_result_step() -> None:
    assert result_of(RUN) == {"n": 7}
    assert result_of(replace(RUN, result=0)) == 0


def test_a_run_without_result_step_has_none_before_and_after_its_end() -> None:
    for status in (WorkflowRunStatus.RUNNING, WorkflowRunStatus.SUCCEEDED):
        with pytest.raises(errors.WorkflowResultNotDeclared):
            check_declares_result(replace(RUN, result_step_key=None, status=status))


@pytest.mark.parametrize("status", [WorkflowRunStatus.COMPLETED_WITH_ERRORS, WorkflowRunStatus.CANCELED])
def test_a_run_that_did_not_succeed_has_no_result(status: WorkflowRunStatus) -> None:
    with pytest.raises(errors.WorkflowResultUnsuccessful, match=status.value):
        result_of(replace(RUN, status=status, result=None))


def test_a_result_step_that_returned_nothing_gives_no_result() -> None:
    with pytest.raises(errors.WorkflowResultMissing):
        result_of(replace(RUN, result=None))
