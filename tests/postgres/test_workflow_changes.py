"""Gates, appends and cancellation: each rule, and each error with its code."""

from typing import Any

import psycopg
import pytest
from postgres.conftest import Connect
from postgres.observing import count, scalar, snapshot, until_blocked
from postgres.workflow_graphs import (
    ANY,
    TYPE,
    Connection,
    a_workflow,
    assert_invariants,
    claim_steps,
    enqueue,
    fail,
    run_of,
    statuses,
    succeed,
)

from runledger.core import workflow_errors as errors
from runledger.core.errors import InvalidOutput, LeaseLost, TransactionRequired
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, ReleaseMode, StepKind, WorkflowRunStatus
from runledger.core.workflows import (
    AppendedSteps,
    AppendOutcome,
    Canceled,
    Failed,
    StepDependency,
    StepRequest,
    Succeeded,
    output_of,
)
from runledger.postgres.leases import save_progress
from runledger.postgres.reads import get_job, list_job_events
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_reads import list_workflow_steps
from runledger.testing.factories import succeeded

NOBODY = "0192f5aa-0000-7000-8000-000000000001"
REPEATABLE = psycopg.IsolationLevel.REPEATABLE_READ


def a_gated_run(connection: Connection, **options: Any) -> str:
    """A job beside an open gate, a job behind both, and a gate behind that."""
    builder = (
        a_workflow(connection, **options).job("a", TYPE).external("gate").job("b", TYPE, {"by": output_of("gate")})
    )
    builder.after_success("b", ["a", "gate"]).external("late").after_terminal("late", ["b"])
    return str(enqueue(connection, builder).run_id)


def complete(
    connection: Connection, run_id: str, outcome: Any = None, *, step_key: str = "gate", **options: Any
) -> None:
    outcome = Succeeded({"by": "ada"}) if outcome is None else outcome
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=run_id, step_key=step_key, outcome=outcome, **options)


def append(connection: Connection, run_id: str, *steps: StepRequest, **options: Any) -> AppendedSteps:
    given = {"mutation_key": "m", "window_step_key": "gate", "steps": steps or (StepRequest("x", TYPE),)} | options
    with connection.transaction():
        return append_workflow_steps(connection, run_id=run_id, **given)


def cancel(connection: Connection, run_id: str, **options: Any) -> bool:
    with connection.transaction():
        return cancel_workflow_run(connection, run_id=run_id, **options)


def test_an_open_gate_shows_once_nothing_else_is_alive(connection):
    run_id = a_gated_run(connection)
    assert run_of(connection, run_id).status is WorkflowRunStatus.RUNNING

    succeed(connection, claim_steps(connection)["a"])
    assert run_of(connection, run_id).status is WorkflowRunStatus.WAITING_FOR_EXTERNAL
    complete(connection, run_id)

    assert run_of(connection, run_id).status is WorkflowRunStatus.RUNNING
    job = claim_steps(connection)["b"]
    assert job.payload == '{"by": {"by": "ada"}}'
    assert scalar(connection, "SELECT %s::jsonb", job.inputs) == {"a": None, "gate": {"by": "ada"}}
    assert_invariants(connection)


@pytest.mark.parametrize(
    ("outcome", "status"), [(Failed("no", "not good"), "FAILED"), (Canceled(reason="nobody cares"), "CANCELED")]
)
def test_a_gate_that_says_no_cancels_what_needs_its_success(connection, outcome: Any, status: str) -> None:
    run_id = a_gated_run(connection)
    succeed(connection, claim_steps(connection)["a"])
    complete(connection, run_id, outcome)

    assert statuses(connection, run_id) == {
        "a": "SUCCEEDED",
        "gate": status,
        "b": "CANCELED",
        "late": "WAITING_FOR_EXTERNAL",
    }
    gate = list_workflow_steps(connection, run_id, scope=ANY)[1]
    assert (gate.last_error_code, gate.last_error_message) == (outcome.code, outcome.message)
    assert gate.status_reason == outcome.reason
    assert_invariants(connection)


@pytest.mark.parametrize("outcome", [Succeeded({"n": 1}), Succeeded(), Failed("no"), Canceled(reason="late")])
def test_the_same_completion_again_does_nothing(connection, outcome: Any) -> None:
    run_id = a_gated_run(connection)
    complete(connection, run_id, outcome)
    before = snapshot(connection)

    complete(connection, run_id, outcome)

    assert snapshot(connection) == before


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (Succeeded(), Failed(), errors.ExternalStepConflictingCompletionRetry),
        (Failed("a"), Failed("b"), errors.ExternalStepConflictingCompletionRetry),
        (Failed("a"), Failed("a", "more"), errors.ExternalStepConflictingCompletionRetry),
        (Succeeded(reason="x"), Succeeded(), errors.ExternalStepConflictingCompletionRetry),
        (Succeeded({"n": 1}), Succeeded({"n": 2}), errors.ExternalStepConflictingOutputRetry),
        (Succeeded({"n": 1}), Succeeded(), errors.ExternalStepConflictingOutputRetry),
    ],
)
def test_another_completion_is_a_conflict(connection, first: Any, second: Any, error: type[Exception]) -> None:
    run_id = a_gated_run(connection)
    complete(connection, run_id, first)

    with pytest.raises(error):
        complete(connection, run_id, second)


def a_run_that_takes(connection: Connection, *places: Any) -> str:
    """``taker`` needs ``bad`` and the gate, and takes these places of the gate's output."""
    builder = a_workflow(connection).job("bad", TYPE).external("gate").job("taker", TYPE, {"all": list(places)})
    return str(enqueue(connection, builder.after_success("taker", ["bad", "gate"])).run_id)


@pytest.mark.parametrize(
    ("answer", "path", "missing"),
    [
        ({"buy": "ada"}, ("by",), "by"),
        ({"by": {"name": "ada"}}, ("by", "id"), "by / id"),
        ([], (0,), "0"),
        (None, ("by",), "by"),
    ],
)
def test_an_answer_that_lacks_what_a_step_takes_is_refused(connection, answer: Any, path: Any, missing: str) -> None:
    run_id = a_run_that_takes(connection, output_of("gate"), output_of("gate", *path))
    before = snapshot(connection)

    with pytest.raises(errors.ExternalStepOutputPathMissing) as refused:
        complete(connection, run_id, Succeeded(answer))

    assert str(refused.value) == f"the output of gate 'gate' has no {missing!r}, which step 'taker' takes"
    assert snapshot(connection) == before


@pytest.mark.parametrize(("answer", "path"), [({"by": None}, ("by",)), ([7], (0,)), (None, ()), ("yes", ())])
def test_an_answer_that_has_what_a_step_takes_passes(connection, answer: Any, path: Any) -> None:
    run_id = a_run_that_takes(connection, output_of("gate", *path))
    complete(connection, run_id, Succeeded(answer))
    assert statuses(connection, run_id)["gate"] == "SUCCEEDED"


def test_an_answer_need_not_serve_a_step_that_can_never_run(connection):
    run_id = a_run_that_takes(connection, output_of("gate", "by"))
    fail(connection, claim_steps(connection)["bad"])
    complete(connection, run_id, Succeeded({}))
    assert statuses(connection, run_id) == {"bad": "FAILED", "gate": "SUCCEEDED", "taker": "CANCELED"}


def test_every_error_of_a_gate(connection, connect: Connect) -> None:
    run_id = a_gated_run(connection)
    before = snapshot(connection)

    with pytest.raises(errors.ExternalStepInvalidTerminalStatus):
        complete(connection, run_id, "SUCCEEDED")
    with pytest.raises(InvalidOutput):
        complete(connection, run_id, Succeeded({"x": float("nan")}))
    with pytest.raises(errors.ExternalStepNotFound) as unknown:
        complete(connection, run_id, step_key="nowhere")
    assert unknown.value.hint == "open gates of the run: gate"
    with pytest.raises(errors.ExternalStepNotFound):
        complete(connection, NOBODY)
    with pytest.raises(errors.ExternalStepNotFound):
        complete(connection, run_id, scope=Scope.organization(NOBODY))
    with pytest.raises(errors.ExternalStepNotExternal):
        complete(connection, run_id, step_key="a")
    with pytest.raises(errors.ExternalStepNotWaiting):
        complete(connection, run_id, step_key="late")
    with pytest.raises(TransactionRequired):
        complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Succeeded())
    other = connect(autocommit=False)
    other.isolation_level = REPEATABLE
    with pytest.raises(errors.ExternalCompletionUnsupportedIsolation):
        complete_external_workflow_step(other, run_id=run_id, step_key="gate", outcome=Succeeded())

    assert snapshot(connection) == before


def test_appended_steps_join_the_run(connection):
    run_id = a_gated_run(connection)
    done = append(
        connection,
        run_id,
        StepRequest("x", TYPE),
        StepRequest("y", TYPE, {"v": output_of("x")}, dependencies=[StepDependency("x"), StepDependency("a")]),
        StepRequest("ok", kind=StepKind.EXTERNAL, dependencies=[StepDependency("y", ReleaseMode.ON_SUCCESS)]),
    )

    assert (done.outcome, list(done.step_ids)) == (AppendOutcome.APPENDED, ["x", "y", "ok"])
    shown = statuses(connection, run_id)
    assert (shown["x"], shown["y"], shown["ok"]) == ("ENQUEUED", "BLOCKED", "BLOCKED")
    assert run_of(connection, run_id).step_count == 7
    assert_invariants(connection)


def test_edges_from_ended_steps_count_at_once(connection):
    run_id = a_gated_run(connection)
    succeed(connection, claim_steps(connection)["a"], output={"n": 1})
    append(
        connection,
        run_id,
        StepRequest("x", TYPE, output_of("a", "n"), dependencies=[StepDependency("a", ReleaseMode.ON_SUCCESS)]),
    )

    assert claim_steps(connection)["x"].payload == "1"
    assert_invariants(connection)


def test_a_step_born_hopeless_is_cancelled_at_once(connection):
    run_id = a_gated_run(connection)
    fail(connection, claim_steps(connection)["a"])
    on_success = ReleaseMode.ON_SUCCESS
    append(
        connection,
        run_id,
        StepRequest("x", TYPE, dependencies=[StepDependency("a", on_success)]),
        StepRequest("y", TYPE, dependencies=[StepDependency("x", on_success)]),
        StepRequest("z", TYPE, dependencies=[StepDependency("y")]),
    )

    shown = statuses(connection, run_id)
    assert (shown["x"], shown["y"], shown["z"]) == ("CANCELED", "CANCELED", "ENQUEUED")
    assert_invariants(connection)


def test_the_same_append_again_is_already_applied_also_after_the_end(connection):
    run_id = a_gated_run(connection)
    first = append(connection, run_id, metadata={"by": "ada"})
    before = snapshot(connection)

    again = append(connection, run_id, metadata={"by": "bob"})
    assert (again.outcome, again.step_ids) == (AppendOutcome.ALREADY_APPLIED, first.step_ids)
    assert snapshot(connection) == before
    cancel(connection, run_id)
    assert append(connection, run_id).outcome is AppendOutcome.ALREADY_APPLIED


def test_another_append_under_the_same_key_is_a_conflict(connection):
    run_id = a_gated_run(connection)
    append(connection, run_id)

    with pytest.raises(errors.AppendConflictingRetry) as caught:
        append(connection, run_id, StepRequest("x", TYPE, priority=1))
    assert [one.field for one in caught.value.differences] == ["steps.x.priority"]


def test_every_error_of_an_append(connection, connect: Connect) -> None:
    run_id = a_gated_run(connection)
    before = snapshot(connection)
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (errors.AppendMutationKeyBlank, {"mutation_key": " "}),
        (errors.EmptySteps, {"steps": []}),
        (errors.BlankStepJobType, {"steps": [StepRequest("x")]}),
        (errors.WorkflowRunNotFound, {"scope": Scope.organization(NOBODY)}),
        (errors.AppendWindowMissing, {"window_step_key": "nowhere"}),
        (errors.AppendWindowNotExternal, {"window_step_key": "a"}),
        (errors.AppendWindowNotOpen, {"window_step_key": "late"}),
        (errors.DuplicateStepKey, {"steps": [StepRequest("a", TYPE)]}),
        (errors.DuplicateStepKey, {"steps": [StepRequest("x", TYPE), StepRequest("x", TYPE)]}),
        (errors.MissingDependency, {"steps": [StepRequest("x", TYPE, dependencies=[StepDependency("z")])]}),
        (
            errors.CycleDetected,
            {
                "steps": [
                    StepRequest("x", TYPE, dependencies=[StepDependency("y")]),
                    StepRequest("y", TYPE, dependencies=[StepDependency("x")]),
                ]
            },
        ),
        (errors.WorkflowDefinitionNotFoundOrDisabled, {"steps": [StepRequest("x", "unknown")]}),
    ]
    for error, options in cases:
        with pytest.raises(error):
            append(connection, run_id, **options)
    with pytest.raises(errors.WorkflowRunNotFound):
        append(connection, NOBODY)
    other = connect(autocommit=False)
    other.isolation_level = REPEATABLE
    with pytest.raises(errors.AppendUnsupportedIsolation):
        append(other, run_id)
    assert snapshot(connection) == before

    cancel(connection, run_id)
    with pytest.raises(errors.AppendTerminalRun):
        append(connection, run_id)


def test_an_append_waits_for_a_cancel_and_finds_the_run_ended(connection, connect: Connect, in_background) -> None:
    run_id = a_gated_run(connection)
    first, second = connect(autocommit=False), connect(autocommit=False)
    cancel_workflow_run(first, run_id=run_id)
    waiting = in_background(append, second, run_id)
    until_blocked(connection, second)

    first.commit()

    with pytest.raises(errors.AppendTerminalRun):
        waiting.result()


def test_a_cancel_takes_every_job_wherever_it_is(connection):
    builder = a_workflow(connection).job("ready", TYPE).job("leased", TYPE, priority=5).job("done", TYPE, priority=9)
    run_id = str(enqueue(connection, builder.external("gate").job("z", TYPE).after_success("z", ["ready"])).run_id)
    jobs = claim_steps(connection, limit=2)
    succeed(connection, jobs["done"])

    assert cancel(connection, run_id, reason="not wanted", actor="ada") is True

    assert statuses(connection, run_id) == {
        "ready": "CANCELED",
        "leased": "CANCELED",
        "done": "SUCCEEDED",
        "gate": "CANCELED",
        "z": "CANCELED",
    }
    run = run_of(connection, run_id)
    assert (run.status, run.status_reason, run.unfinished_count) == (WorkflowRunStatus.CANCELED, "not wanted", 0)
    assert get_job(connection, jobs["leased"].job_id, scope=ANY).status is JobStatus.CANCELED
    assert [one.actor for one in list_job_events(connection, jobs["leased"].job_id, scope=ANY)][-1] == "ada"
    assert [count(connection, place) for place in ("job_ready", "job_scheduled", "job_leases")] == [0, 0, 0]
    assert_invariants(connection)


def test_a_worker_cannot_finish_a_step_of_a_cancelled_run(connection):
    run_id = a_gated_run(connection)
    job = claim_steps(connection)["a"]
    cancel(connection, run_id)

    with connection.transaction():
        assert settle_jobs(connection, [succeeded(job)]) == set()
    with pytest.raises(LeaseLost):
        save_progress(connection, job.job_id, job.lease_token, done=1)
    assert statuses(connection, run_id)["b"] == "CANCELED"
    assert_invariants(connection)


def test_cancelling_a_run_that_has_ended_does_nothing(connection):
    run_id = str(enqueue(connection, a_workflow(connection).job("a", TYPE)).run_id)
    succeed(connection, claim_steps(connection)["a"])
    before = snapshot(connection)

    assert cancel(connection, run_id) is False
    assert snapshot(connection) == before


def test_every_error_of_a_cancel(connection, connect: Connect) -> None:
    run_id = a_gated_run(connection)

    with pytest.raises(errors.WorkflowRunNotFound):
        cancel(connection, NOBODY)
    with pytest.raises(errors.WorkflowRunNotFound):
        cancel(connection, run_id, scope=Scope.organization(NOBODY))
    with pytest.raises(TransactionRequired):
        cancel_workflow_run(connection, run_id=run_id)
    other = connect(autocommit=False)
    other.isolation_level = REPEATABLE
    with pytest.raises(errors.CancelUnsupportedIsolation):
        cancel_workflow_run(other, run_id=run_id)


def test_a_run_whose_job_is_in_no_place_is_not_cancelled(connection):
    run_id = a_gated_run(connection)
    connection.execute("DELETE FROM runledger.job_ready")
    before = snapshot(connection)

    with pytest.raises(errors.WorkflowInternalState) as caught:
        cancel(connection, run_id)

    assert caught.value.category == "internal"
    assert snapshot(connection) == before


def test_a_cancel_catches_a_job_that_is_being_claimed(connection, connect: Connect, in_background) -> None:
    run_id = a_gated_run(connection)
    claimer, canceller = connect(autocommit=False), connect(autocommit=False)
    claimed = claim_steps(claimer)
    waiting = in_background(cancel, canceller, run_id)
    until_blocked(connection, canceller)

    claimer.commit()

    assert waiting.result() is True
    assert get_job(connection, claimed["a"].job_id, scope=ANY).status is JobStatus.CANCELED
    assert_invariants(connection)
