"""A run is run again: what succeeded is kept, the rest runs, and nothing of the old run changes."""

from concurrent.futures import Future
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
from runledger.core.errors import CancellationNotQuiesced, ConflictError, NotFoundError, TransactionRequired
from runledger.core.jobs import Scope
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflows import STEP_REUSED, AppendOutcome, EnqueuedWorkflowRun, StepRequest, Succeeded, output_of
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_reads import list_workflow_step_dependencies, list_workflow_steps
from runledger.postgres.workflow_rerun import rerun_workflow_run

NOBODY = "0192f5aa-0000-7000-8000-000000000001"


def rerun(connection: Connection, run_id: object, **options: Any) -> EnqueuedWorkflowRun:
    with connection.transaction():
        return rerun_workflow_run(connection, run_id=str(run_id), **options)


def a_failed_run(connection: Connection, **options: Any) -> str:
    """``good`` and the gate succeeded with output, ``bad`` failed, ``join`` needs all three, ``last`` the join."""
    builder = a_workflow(connection, **options).job("good", TYPE).job("bad", TYPE).external("gate")
    builder.job("join", TYPE, {"n": output_of("good", "n"), "by": output_of("gate", "by")})
    builder.after_success("join", ["good", "bad", "gate"]).job("last", TYPE).after_success("last", ["join"])
    run_id = str(enqueue(connection, builder.result_step("last")).run_id)
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Succeeded({"by": "ada"}))
    jobs = claim_steps(connection)
    succeed(connection, jobs["good"], output={"n": 7})
    fail(connection, jobs["bad"])
    assert run_of(connection, run_id).status is WorkflowRunStatus.COMPLETED_WITH_ERRORS
    return run_id


def test_a_named_gate_is_opened_anew_and_what_waits_behind_it_runs_again(connection):
    old = a_failed_run(connection)
    new = rerun(connection, old, also=["gate"])
    assert statuses(connection, new.run_id)["gate"] == "WAITING_FOR_EXTERNAL"

    with connection.transaction():
        complete_external_workflow_step(
            connection, run_id=new.run_id, step_key="gate", outcome=Succeeded({"by": "grace"})
        )
    succeed(connection, claim_steps(connection)["bad"])

    assert claim_steps(connection)["join"].payload == '{"n": 7, "by": "grace"}'
    assert_invariants(connection)


def test_a_named_step_that_the_run_lacks_is_refused(connection):
    old = a_failed_run(connection)
    before = snapshot(connection)
    with pytest.raises(errors.WorkflowStepNotFound, match="no step 'gat'"):
        rerun(connection, old, also=["gate", "gat"])
    assert snapshot(connection) == before


def test_what_succeeded_is_kept_and_the_rest_runs(connection):
    old = a_failed_run(connection, metadata={"source": "api"})
    jobs_before = count(connection, "job_queue")

    new = rerun(connection, old, reason="bucket was full")

    assert (new.is_new, new.status) == (True, WorkflowRunStatus.RUNNING)
    assert count(connection, "job_queue") == jobs_before + 1
    assert statuses(connection, new.run_id) == {
        "good": "SUCCEEDED",
        "bad": "ENQUEUED",
        "gate": "SUCCEEDED",
        "join": "BLOCKED",
        "last": "BLOCKED",
    }
    run = run_of(connection, new.run_id)
    assert (str(run.rerun_of_run_id), run.status_reason, run.metadata) == (old, "bucket was full", {"source": "api"})
    steps = {one.step_key: one for one in list_workflow_steps(connection, new.run_id, scope=ANY)}
    assert (steps["good"].output, steps["good"].job_id, steps["good"].status_reason) == ({"n": 7}, None, STEP_REUSED)
    assert_invariants(connection)


def test_outputs_flow_from_kept_steps_and_gates(connection):
    new = rerun(connection, a_failed_run(connection)).run_id
    succeed(connection, claim_steps(connection)["bad"], output="now")

    join = claim_steps(connection)["join"]

    assert scalar(connection, "SELECT %s::jsonb", join.payload) == {"n": 7, "by": "ada"}
    assert scalar(connection, "SELECT %s::jsonb", join.inputs) == {
        "good": {"n": 7},
        "bad": "now",
        "gate": {"by": "ada"},
    }
    succeed(connection, join)
    succeed(connection, claim_steps(connection)["last"], output="done")
    run = run_of(connection, new)
    assert (run.status, run.result, run.failed_count) == (WorkflowRunStatus.SUCCEEDED, "done", 0)
    assert_invariants(connection)


def test_the_old_run_stays_as_it_is(connection):
    old = a_failed_run(connection)
    before = (run_of(connection, old), list_workflow_steps(connection, old, scope=ANY))

    new = rerun(connection, old).run_id

    assert (run_of(connection, old), list_workflow_steps(connection, old, scope=ANY)) == before
    edges = [
        [
            (one.prerequisite_step_key, one.dependent_step_key, one.release_mode)
            for one in list_workflow_step_dependencies(connection, run, scope=ANY)
        ]
        for run in (old, new)
    ]
    assert sorted(edges[0]) == sorted(edges[1])


def test_what_succeeded_behind_a_failure_runs_again(connection):
    """A report over whatever came of its parts is stale once a part runs again."""
    builder = a_workflow(connection).job("a", TYPE).job("b", TYPE).job("report", TYPE).job("mail", TYPE)
    builder.after_terminal("report", ["a", "b"]).after_success("mail", ["report"])
    old = enqueue(connection, builder).run_id
    jobs = claim_steps(connection)
    succeed(connection, jobs["a"])
    fail(connection, jobs["b"])
    for key in ("report", "mail"):
        succeed(connection, claim_steps(connection)[key])

    new = rerun(connection, old).run_id

    assert statuses(connection, new) == {"a": "SUCCEEDED", "b": "ENQUEUED", "report": "BLOCKED", "mail": "BLOCKED"}
    assert_invariants(connection)


def test_a_cancelled_run_goes_on_where_it_was(connection):
    builder = a_workflow(connection).job("a", TYPE).external("gate").job("b", TYPE).after_success("b", ["a", "gate"])
    old = str(enqueue(connection, builder).run_id)
    succeed(connection, claim_steps(connection)["a"])
    with connection.transaction():
        cancel_workflow_run(connection, run_id=old)

    new = rerun(connection, old)

    assert new.status is WorkflowRunStatus.WAITING_FOR_EXTERNAL
    assert statuses(connection, new.run_id) == {"a": "SUCCEEDED", "gate": "WAITING_FOR_EXTERNAL", "b": "BLOCKED"}
    assert_invariants(connection)


def test_appended_steps_are_part_of_it_and_their_append_is_applied(connection):
    def append(run_id: str) -> AppendOutcome:
        step = StepRequest("more", TYPE)
        with connection.transaction():
            return append_workflow_steps(
                connection, run_id=run_id, mutation_key="m", window_step_key="gate", steps=[step]
            ).outcome

    old = str(enqueue(connection, a_workflow(connection).job("a", TYPE).external("gate")).run_id)
    assert append(old) is AppendOutcome.APPENDED
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=old, step_key="gate", outcome=Succeeded())
    fail(connection, *claim_steps(connection).values())

    new = rerun(connection, old).run_id

    assert statuses(connection, new) == {"a": "ENQUEUED", "gate": "SUCCEEDED", "more": "ENQUEUED"}
    assert append(str(new)) is AppendOutcome.ALREADY_APPLIED


def test_a_rerun_that_failed_is_run_again_in_turn(connection):
    first = a_failed_run(connection)
    second = rerun(connection, first).run_id
    fail(connection, claim_steps(connection)["bad"])

    third = rerun(connection, second)

    assert (third.is_new, run_of(connection, third.run_id).rerun_of_run_id) == (True, second)
    assert rerun(connection, first).is_new


def test_there_is_one_rerun_while_it_lives_and_after_it_succeeded(connection):
    old = a_failed_run(connection)
    new = rerun(connection, old)
    again = rerun(connection, old)
    assert (again.run_id, again.is_new) == (new.run_id, False)
    for _ in range(3):
        succeed(connection, *claim_steps(connection).values())

    last = rerun(connection, old)

    assert (last.run_id, last.is_new, last.status) == (new.run_id, False, WorkflowRunStatus.SUCCEEDED)


def test_two_reruns_at_once_are_one(connection, connect: Connect, in_background) -> None:
    old = a_failed_run(connection)
    first, second = connect(autocommit=False), connect()
    made = rerun_workflow_run(first, run_id=old)

    other: Future[EnqueuedWorkflowRun] = in_background(rerun, second, old)
    until_blocked(connection, second)
    first.commit()

    assert (made.is_new, other.result(10).is_new) == (True, False)
    assert other.result(10).run_id == made.run_id


def test_a_rerun_takes_five_statements_whatever_the_graph(connection, monkeypatch) -> None:
    keys = [f"s{number}" for number in range(300)]
    builder = a_workflow(connection).job("root", TYPE).job("bad", TYPE)
    for key in keys:
        builder.job(key, TYPE).after_success(key, ["root"])
    old = enqueue(connection, builder.job("end", TYPE).after_success("end", [*keys, "bad"])).run_id
    jobs = claim_steps(connection)
    succeed(connection, jobs["root"])
    fail(connection, jobs["bad"])
    succeed(connection, *claim_steps(connection, 500).values())
    seen: list[str] = []
    fetch = LedgerConnection.fetch
    monkeypatch.setattr(
        LedgerConnection, "fetch", lambda self, one, given: (seen.append(one.name), fetch(self, one, given))[1]
    )

    rerun(connection, old)

    assert seen == [
        "lock_workflow_runs",
        "select_rerun_source",
        "rerun_workflow_run",
        "release_free_steps",
        "select_workflow_run_state",
    ]


def test_every_error_of_a_rerun(connection, connect: Connect) -> None:
    old = a_failed_run(connection)
    live = enqueue(connection, a_workflow(connection).job("a", TYPE)).run_id
    done = enqueue(connection, a_workflow(connection).external("gate")).run_id
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=done, step_key="gate", outcome=Succeeded())
    before = snapshot(connection)
    cases: list[tuple[object, dict[str, Any], type[Exception]]] = [
        (live, {}, errors.RecoverySourceNotTerminal),
        (done, {}, errors.RecoverySourceSucceeded),
        (NOBODY, {}, errors.RecoverySourceNotFound),
        ("no-uuid", {}, errors.RecoverySourceNotFound),
        (old, {"scope": Scope.organization(NOBODY)}, errors.RecoverySourceNotFound),
        (old, {"reason": "  "}, errors.InvalidRecoveryReason),
    ]
    for run_id, options, expected in cases:
        with pytest.raises(expected):
            rerun(connection, run_id, **options)
    with pytest.raises(TransactionRequired):
        rerun_workflow_run(connection, run_id=old)
    repeatable = connect(autocommit=False)
    repeatable.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(errors.RecoveryUnsupportedIsolation):
        rerun_workflow_run(repeatable, run_id=old)
    repeatable.rollback()

    assert snapshot(connection) == before
    assert issubclass(errors.RecoverySourceNotTerminal, ConflictError)
    assert issubclass(errors.RecoverySourceNotFound, NotFoundError)


def test_a_rerun_needs_the_definitions_of_what_runs(connection):
    old = a_failed_run(connection)
    connection.execute("UPDATE runledger.job_definitions SET is_enabled = false")
    before = snapshot(connection)

    with pytest.raises(errors.WorkflowDefinitionNotFoundOrDisabled, match=TYPE):
        rerun(connection, old)

    assert snapshot(connection) == before


def test_a_cancelled_attempt_has_time_to_stop(connection):
    old = str(enqueue(connection, a_workflow(connection).job("a", TYPE)).run_id)
    claim_steps(connection)
    with connection.transaction():
        cancel_workflow_run(connection, run_id=old)

    with pytest.raises(CancellationNotQuiesced, match=r"once it has ended, in \d+ s at most"):
        rerun(connection, old)
    connection.execute("UPDATE runledger.job_queue SET quiesces_at = clock_timestamp() - interval '1 second'")

    assert rerun(connection, old).is_new


def test_a_rerun_waits_for_the_active_key(connection):
    old = str(enqueue(connection, a_workflow(connection).active_key("doc").job("a", TYPE)).run_id)
    fail(connection, claim_steps(connection)["a"])
    other = enqueue(connection, a_workflow(connection).active_key("doc").job("a", TYPE)).run_id

    with pytest.raises(errors.RecoveryActiveConstraint, match=str(other)):
        rerun(connection, old)
    succeed(connection, claim_steps(connection)["a"])

    new = rerun(connection, old).run_id
    assert run_of(connection, new).active_key == "doc"
    held = enqueue(connection, a_workflow(connection).active_key("doc").job("a", TYPE))
    assert (held.run_id, held.is_new) == (new, False)


def test_the_lineage_is_let_go_with_the_old_run(connection):
    old = a_failed_run(connection)
    new = rerun(connection, old).run_id

    connection.execute("DELETE FROM runledger.workflow_runs WHERE id = %s", [old])

    assert run_of(connection, new).rerun_of_run_id is None
    assert list_workflow_steps(connection, new, scope=ANY)[0].output == {"n": 7}
