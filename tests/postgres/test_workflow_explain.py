"""Why a step does not run: unmet edges and root causes, in every state a step can be in, and in large graphs."""

import pytest
from postgres.workflow_graphs import (
    ANY,
    TYPE,
    a_workflow,
    claim_steps,
    enqueue,
    fail,
    succeed,
)

from runledger.core import workflow_errors as errors
from runledger.core.jobs import Scope
from runledger.core.states import ReleaseMode, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflow_explanations import UnmetEdge, WorkflowStepExplanation
from runledger.core.workflows import Failed, output_of
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_explain import MOST_CAUSES, MOST_EDGES, explain_workflow_run, explain_workflow_step
from runledger.postgres.workflow_gates import complete_external_workflow_step

DEPTH = 5_000


def explained(connection, run_id: object, step_key: str, scope: Scope = ANY) -> WorkflowStepExplanation:
    return explain_workflow_step(connection, run_id=str(run_id), step_key=step_key, scope=scope)


def causes(explanation) -> list[tuple[str, str]]:
    return [(cause.step_key, cause.status.value) for cause in explanation.root_causes]


def a_run(connection, **options) -> str:
    """A job and a gate; a join behind both, a last step behind the join."""
    builder = a_workflow(connection, **options).job("a", TYPE).external("gate").job("join", TYPE)
    builder.after_success("join", ["a"]).after_terminal("join", ["gate"])
    return str(enqueue(connection, builder.job("last", TYPE).after_success("last", ["join"])).run_id)


def test_a_blocked_step_names_its_edges_and_where_they_lead(connection):
    run_id = a_run(connection)

    last = explained(connection, run_id, "last")
    join = explained(connection, run_id, "join")

    assert last.unmet_edges == (UnmetEdge("join", WorkflowStepStatus.BLOCKED, ReleaseMode.ON_SUCCESS),)
    assert causes(last) == causes(join) == [("gate", "WAITING_FOR_EXTERNAL"), ("a", "ENQUEUED")]
    assert {edge.prerequisite_step_key for edge in join.unmet_edges} == {"a", "gate"}
    assert not any(edge.is_broken for edge in join.unmet_edges)
    assert last.summary == (
        "step 'last' is BLOCKED: 1 edge is not satisfied, because gate 'gate' is open and waits for its completion, "
        "and 1 more"
    )


def test_only_what_is_still_in_the_way_is_named(connection):
    run_id = a_run(connection)
    jobs = claim_steps(connection)
    assert ("a", "RUNNING") in causes(explained(connection, run_id, "join"))
    succeed(connection, *jobs.values())

    join = explained(connection, run_id, "join")

    assert [edge.prerequisite_step_key for edge in join.unmet_edges] == ["gate"]
    assert causes(join) == [("gate", "WAITING_FOR_EXTERNAL")]


def test_a_cancelled_step_leads_to_the_failure_behind_it(connection):
    run_id = a_run(connection)
    job = claim_steps(connection)["a"]
    fail(connection, job)
    assert causes(explained(connection, run_id, "last")) == [("a", "FAILED"), ("gate", "WAITING_FOR_EXTERNAL")]
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Failed("no"))

    last = explained(connection, run_id, "last")

    assert (last.status, last.run_status) == (WorkflowStepStatus.CANCELED, WorkflowRunStatus.COMPLETED_WITH_ERRORS)
    assert [edge.is_broken for edge in last.unmet_edges] == [True]
    (cause,) = last.root_causes
    assert (cause.step_key, str(cause.job_id), cause.job_type) == ("a", job.job_id, TYPE)
    assert cause.error_code is not None
    assert cause.error_code in last.summary


def test_a_step_that_waits_for_no_other_is_its_own_cause(connection):
    run_id = a_run(connection)
    job = claim_steps(connection)["a"]

    assert causes(explained(connection, run_id, "a")) == [("a", "RUNNING")]
    assert causes(explained(connection, run_id, "gate")) == [("gate", "WAITING_FOR_EXTERNAL")]
    succeed(connection, job)
    succeeded = explained(connection, run_id, "a")
    assert (succeeded.root_causes, succeeded.unmet_edges, succeeded.summary) == ((), (), "step 'a' succeeded")


def test_a_step_cancelled_with_its_run_says_so(connection):
    run_id = a_run(connection)
    with connection.transaction():
        cancel_workflow_run(connection, run_id=run_id, reason="wrong document")

    last = explained(connection, run_id, "last")

    assert causes(last) == [("last", "CANCELED")]
    assert last.root_causes[0].status_reason == "wrong document"
    assert explain_workflow_run(connection, run_id=run_id, scope=ANY).status_reason == "wrong document"


def test_a_missing_input_is_a_root_cause(connection):
    builder = a_workflow(connection).job("a", TYPE).job("b", TYPE, output_of("a", "nowhere")).after_success("b", ["a"])
    run_id = enqueue(connection, builder.job("c", TYPE).after_success("c", ["b"])).run_id
    succeed(connection, claim_steps(connection)["a"])

    explanation = explained(connection, run_id, "c")

    assert causes(explanation) == [("b", "FAILED")]
    assert explanation.root_causes[0].error_code == "workflow.input_missing"


def test_a_run_is_explained_by_its_failures_gates_and_jobs(connection):
    run_id = a_run(connection)
    running = explain_workflow_run(connection, run_id=run_id, scope=ANY)
    assert causes(running) == [("gate", "WAITING_FOR_EXTERNAL"), ("a", "ENQUEUED")]
    fail(connection, claim_steps(connection)["a"])
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Failed("no"))

    ended = explain_workflow_run(connection, run_id=run_id, scope=ANY)

    assert causes(ended) == [("a", "FAILED"), ("gate", "FAILED")]
    assert ended.root_cause_count == 2
    assert ended.summary.startswith("the run is COMPLETED_WITH_ERRORS, because step 'a' failed")


def test_an_explanation_shows_the_first_and_counts_all(connection):
    builder = a_workflow(connection).job("join", TYPE)
    for number in range(MOST_EDGES + 5):
        builder.external(f"gate-{number:03}")
    run_id = enqueue(connection, builder.after_success("join", [f"gate-{n:03}" for n in range(MOST_EDGES + 5)])).run_id

    join = explained(connection, run_id, "join")
    run = explain_workflow_run(connection, run_id=run_id, scope=ANY)

    assert (len(join.unmet_edges), join.unmet_edge_count) == (MOST_EDGES, MOST_EDGES + 5)
    assert (len(join.root_causes), join.root_cause_count) == (MOST_CAUSES, MOST_EDGES + 5)
    assert (len(run.root_causes), run.root_cause_count) == (MOST_CAUSES, MOST_EDGES + 5)
    assert join.root_causes[0].step_key == "gate-000"


def test_the_cause_is_found_through_ten_thousand_steps(connection):
    """Ten thousand steps in layers of two, each of which waits for both of the layer before: 2^5000 ways."""
    builder = a_workflow(connection).job("root", TYPE).job("0a", TYPE).job("0b", TYPE)
    builder.after_success("0a", ["root"]).after_success("0b", ["root"])
    for layer in range(1, DEPTH - 1):
        for side in "ab":
            key = f"{layer}{side}"
            builder.job(key, TYPE).after_success(key, [f"{layer - 1}a", f"{layer - 1}b"])
    run_id = enqueue(connection, builder).run_id
    last = f"{DEPTH - 2}a"

    assert causes(explained(connection, run_id, last)) == [("root", "ENQUEUED")]
    fail(connection, claim_steps(connection)["root"])
    assert causes(explained(connection, run_id, last)) == [("root", "FAILED")]


def test_what_is_not_there_or_out_of_scope_is_not_found(connection):
    run_id = a_run(connection)
    elsewhere = Scope.organization("0192f5aa-0000-7000-8000-000000000001")

    for run, step, scope in ((run_id, "nowhere", ANY), ("no-uuid", "a", ANY), (run_id, "a", elsewhere)):
        with pytest.raises(errors.WorkflowStepNotFound):
            explained(connection, run, step, scope)
    with pytest.raises(errors.WorkflowRunNotFound):
        explain_workflow_run(connection, run_id=run_id, scope=elsewhere)
