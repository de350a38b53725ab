"""Enqueue, advance and read a run: each rule, and each error with its code."""

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
from runledger.core.errors import (
    InvalidPagination,
    InvalidRequest,
    JobNotFound,
    TransactionRequired,
    WorkflowRequeueNotSupported,
)
from runledger.core.failures import Failure
from runledger.core.jobs import Scope
from runledger.core.states import Outcome, ReleaseMode, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import StepRequest, output_of
from runledger.postgres.claim import claim_jobs
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.reads import get_job
from runledger.postgres.recovery import WorkerDeath, reap_lapsed_leases, settle_dead_worker
from runledger.postgres.settle import settle_jobs
from runledger.postgres.violations import error_for
from runledger.postgres.workflow_reads import (
    get_workflow_run,
    get_workflow_run_id_for_job,
    list_workflow_runs,
    list_workflow_step_dependencies,
    list_workflow_steps,
)
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import a_job, age_lease, failed, succeeded

ORGANIZATION = "0192f5aa-0000-7000-8000-000000000001"


def a_diamond(connection: Connection, **options: Any) -> WorkflowDagBuilder:
    return (
        a_workflow(connection, **options)
        .job("a", TYPE)
        .job("b", TYPE)
        .after_success("b", ["a"])
        .job("c", TYPE)
        .after_success("c", ["a"])
        .job("d", TYPE)
        .after_success("d", ["b", "c"])
    )


def test_only_steps_without_prerequisites_are_due(connection):
    run = enqueue(connection, a_diamond(connection))

    assert (run.is_new, run.status) == (True, WorkflowRunStatus.RUNNING)
    assert statuses(connection, run.run_id) == {"a": "ENQUEUED", "b": "BLOCKED", "c": "BLOCKED", "d": "BLOCKED"}
    assert count(connection, "job_ready") == 1
    assert_invariants(connection)


def test_a_run_is_gone_with_the_transaction_that_enqueued_it(connection):
    request = a_diamond(connection).build()

    with connection.transaction(force_rollback=True):
        enqueue_workflow_run(connection, request)

    assert (
        count(connection, "workflow_runs") == count(connection, "workflow_steps") == count(connection, "job_queue") == 0
    )


def test_a_run_needs_a_transaction(connection):
    with pytest.raises(TransactionRequired):
        enqueue_workflow_run(connection, a_diamond(connection).build())


def test_queue_settings_are_frozen_at_enqueue(connection):
    builder = a_workflow(connection, organization_id=ORGANIZATION).job("a", TYPE, {"x": 1}, priority=7, max_attempts=9)
    run = enqueue(connection, builder.job("b", TYPE, timeout_seconds=5))

    a, b = list_workflow_steps(connection, run.run_id, scope=ANY)
    assert (a.priority, a.max_attempts, a.timeout_seconds) == (7, 9, 300)
    assert (b.priority, b.max_attempts, b.timeout_seconds) == (0, 3, 5)
    job = get_job(connection, a.job_id, scope=Scope.organization(ORGANIZATION))
    assert (job.priority, job.max_attempts, job.payload, job.workflow_run_id) == (7, 9, {"x": 1}, run.run_id)


def test_a_graph_of_gates_only_waits_for_the_outside(connection):
    run = enqueue(connection, a_workflow(connection).external("a").external("b").after_success("b", ["a"]))

    assert run.status is WorkflowRunStatus.WAITING_FOR_EXTERNAL
    assert run_of(connection, run.run_id).status is WorkflowRunStatus.WAITING_FOR_EXTERNAL


def test_a_step_without_definition_stores_nothing(connection):
    builder = a_workflow(connection).job("a", TYPE).job("b", "unknown.type")

    with pytest.raises(errors.WorkflowDefinitionNotFoundOrDisabled, match=r"unknown\.type"):
        enqueue(connection, builder)
    assert count(connection, "workflow_runs") == 0


def test_a_keyed_retry_answers_with_the_same_run(connection):
    first = enqueue(connection, a_diamond(connection).idempotency_key("k"))
    second = enqueue(connection, a_diamond(connection).idempotency_key("k"))

    assert second.run_id == first.run_id
    assert (second.is_new, second.status) == (False, WorkflowRunStatus.RUNNING)
    assert count(connection, "workflow_runs") == 1


def test_a_keyed_retry_succeeds_after_its_definition_was_disabled(connection):
    request = a_diamond(connection).idempotency_key("k").build()
    with connection.transaction():
        first = enqueue_workflow_run(connection, request)
    connection.execute("UPDATE runledger.job_definitions SET is_enabled = false")

    with connection.transaction():
        assert enqueue_workflow_run(connection, request).run_id == first.run_id


def test_another_graph_under_the_same_key_is_a_conflict_with_differences(connection):
    enqueue(connection, a_diamond(connection).idempotency_key("k"))

    with pytest.raises(errors.EnqueueConflictingRetry) as caught:
        enqueue(connection, a_diamond(connection).idempotency_key("k").after_terminal("c", ["b"]))
    assert [one.field for one in caught.value.differences] == ["steps.c.dependencies"]
    assert (caught.value.code, caught.value.category) == ("workflow.enqueue_conflicting_retry", "conflict")


def test_a_key_belongs_to_a_type_and_an_organization(connection):
    builders = [
        a_diamond(connection),
        a_diamond(connection, organization_id=ORGANIZATION),
        a_diamond(connection, workflow_type="other"),
    ]

    runs = {enqueue(connection, one.idempotency_key("k")).run_id for one in builders}

    assert len(runs) == 3


def test_a_keyed_run_without_snapshot_cannot_be_compared(connection):
    enqueue(connection, a_diamond(connection).idempotency_key("k"))
    with connection.transaction(force_rollback=True):
        connection.execute(
            "ALTER TABLE runledger.workflow_runs DROP CONSTRAINT ck_workflow_runs_idempotency_enqueue_request"
        )
        connection.execute("UPDATE runledger.workflow_runs SET enqueue_request = NULL")

        with pytest.raises(errors.WorkflowSnapshotMissing):
            enqueue_workflow_run(connection, a_diamond(connection).idempotency_key("k").build())


def test_the_database_guards_the_key_too(connection):
    enqueue(connection, a_diamond(connection).idempotency_key("k"))
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute(
            "INSERT INTO runledger.workflow_runs (workflow_type, idempotency_key, enqueue_request) "
            "VALUES ('test', 'k', '{}')"
        )
    assert isinstance(error_for(caught.value), errors.WorkflowAlreadyEnqueued)


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_keyed_enqueue_needs_read_committed(connection, connect: Connect, level: psycopg.IsolationLevel) -> None:
    builder = a_diamond(connection).idempotency_key("k")
    other = connect(autocommit=False)
    other.isolation_level = level

    with pytest.raises(errors.WorkflowEnqueueUnsupportedIsolation):
        enqueue_workflow_run(other, builder.build())


def test_two_at_once_with_one_key_are_one_run(connection, connect: Connect, in_background) -> None:
    request = a_diamond(connection).idempotency_key("k").build()
    first, second = connect(autocommit=False), connect(autocommit=False)
    stored = enqueue_workflow_run(first, request)
    waiting = in_background(enqueue_workflow_run, second, request)
    until_blocked(connection, second)

    first.commit()

    assert waiting.result() == type(stored)(stored.run_id, False, WorkflowRunStatus.RUNNING)


def test_a_join_waits_for_all_of_its_branches(connection):
    run = enqueue(connection, a_diamond(connection))
    succeed(connection, claim_steps(connection)["a"])
    jobs = claim_steps(connection)
    assert set(jobs) == {"b", "c"}

    succeed(connection, jobs["b"])
    assert statuses(connection, run.run_id)["d"] == "BLOCKED"
    succeed(connection, jobs["c"])
    assert statuses(connection, run.run_id)["d"] == "ENQUEUED"
    succeed(connection, claim_steps(connection)["d"])

    done = run_of(connection, run.run_id)
    assert (done.status, done.unfinished_count, done.failed_count) == (WorkflowRunStatus.SUCCEEDED, 0, 0)
    assert done.finished_at is not None
    assert_invariants(connection)


def test_a_step_shows_running_while_its_job_is_leased(connection):
    run = enqueue(connection, a_diamond(connection))
    job = claim_steps(connection)["a"]
    assert statuses(connection, run.run_id)["a"] == "RUNNING"

    with connection.transaction():
        settle_jobs(connection, [failed(job)])

    assert statuses(connection, run.run_id)["a"] == "ENQUEUED"
    assert_invariants(connection)


def test_a_step_with_a_broken_edge_is_cancelled_when_its_last_prerequisite_ends(connection):
    builder = a_workflow(connection).job("bad", TYPE).job("slow", TYPE).job("join", TYPE)
    run = enqueue(
        connection, builder.after_success("join", ["bad", "slow"]).job("x", TYPE).after_terminal("x", ["join"])
    )
    jobs = claim_steps(connection)

    fail(connection, jobs["bad"])
    assert statuses(connection, run.run_id)["join"] == "BLOCKED"
    assert run_of(connection, run.run_id).status is WorkflowRunStatus.RUNNING
    succeed(connection, jobs["slow"])

    steps = {one.step_key: one for one in list_workflow_steps(connection, run.run_id, scope=ANY)}
    assert steps["join"].status is WorkflowStepStatus.CANCELED
    assert steps["join"].last_error_code == "workflow.dependency_unsatisfied"
    assert (steps["bad"].status, steps["bad"].last_error_code) == (WorkflowStepStatus.FAILED, "test.failed")
    assert steps["x"].status is WorkflowStepStatus.ENQUEUED
    succeed(connection, claim_steps(connection)["x"])
    assert run_of(connection, run.run_id).status is WorkflowRunStatus.COMPLETED_WITH_ERRORS


def test_a_chain_of_a_thousand_hopeless_steps_ends_in_one_transaction(connection):
    builder = a_workflow(connection).job("0", TYPE)
    for number in range(1, 1_000):
        builder.job(str(number), TYPE).after_success(str(number), [str(number - 1)])
    run = enqueue(connection, builder)

    fail(connection, claim_steps(connection)["0"])

    done = run_of(connection, run.run_id)
    assert (done.status, done.failed_count) == (WorkflowRunStatus.COMPLETED_WITH_ERRORS, 1_000)
    connection.execute("ANALYZE")  # the rules join all steps; autovacuum may have seen the tables empty
    assert_invariants(connection)


def test_a_batch_may_end_steps_of_many_runs(connection):
    runs = [enqueue(connection, a_diamond(connection)) for _ in range(5)]
    for _ in range(3):
        jobs = claim_all(connection)
        succeed(connection, *jobs)

    assert {run_of(connection, one.run_id).status for one in runs} == {WorkflowRunStatus.SUCCEEDED}
    assert_invariants(connection)


def claim_all(connection: Connection) -> list[Any]:
    return claim_jobs(connection, worker_id="w", job_types=[TYPE], limit=1_000, lease_ttl_seconds=60)


def test_ending_a_workflow_job_needs_a_transaction_in_read_committed(connection, connect: Connect) -> None:
    enqueue(connection, a_diamond(connection))
    job = claim_steps(connection)["a"]

    with pytest.raises(TransactionRequired):
        settle_jobs(connection, [succeeded(job)])
    other = connect(autocommit=False)
    other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(errors.TerminalCompletionUnsupportedIsolation):
        settle_jobs(other, [succeeded(job)])


def test_a_run_that_somebody_holds_is_waited_for_within_bounds(connection, connect: Connect) -> None:
    run = enqueue(connection, a_diamond(connection))
    job = claim_steps(connection)["a"]
    holder, waiting = connect(autocommit=False), connect(autocommit=False)
    holder.execute("SELECT FROM runledger.workflow_runs FOR UPDATE")
    waiting.execute("SET lock_timeout = '50ms'")
    waiting.commit()

    with pytest.raises(errors.WorkflowReleaseConflict) as caught:
        settle_jobs(waiting, [succeeded(job)])
    assert caught.value.category == "conflict"
    waiting.rollback()
    holder.rollback()

    assert settle_jobs(waiting, [succeeded(job)]) == {job.job_id}
    assert scalar(waiting, "SELECT current_setting('lock_timeout')") == "50ms"
    waiting.commit()
    assert statuses(connection, run.run_id)["b"] == "ENQUEUED"


def test_a_borrowed_connection_keeps_its_lock_timeout(connection):
    enqueue(connection, a_diamond(connection))
    job = claim_steps(connection)["a"]

    with connection.transaction():
        settle_jobs(connection, [succeeded(job)])
        assert scalar(connection, "SELECT current_setting('lock_timeout')") == "0"


def test_a_plain_job_asks_nothing_about_workflows(connection):
    a_job(connection, TYPE)
    [job] = claim_all(connection)

    assert settle_jobs(connection, [succeeded(job)]) == {job.job_id}  # in autocommit: one statement, no lock


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_reaped_lease_advances_its_run(connection, attempts: int) -> None:
    builder = a_workflow(connection).job("a", TYPE, max_attempts=attempts).job("b", TYPE).after_terminal("b", ["a"])
    run = enqueue(connection, builder)
    age_lease(connection, claim_steps(connection)["a"], seconds=3_600)

    with connection.transaction():
        assert len(reap_lapsed_leases(connection)) == 1

    assert statuses(connection, run.run_id)["b"] == ("ENQUEUED" if attempts == 1 else "BLOCKED")
    assert_invariants(connection)


def test_the_reaper_leaves_runs_alone_that_somebody_holds(connection, connect: Connect) -> None:
    enqueue(connection, a_workflow(connection).job("a", TYPE))
    age_lease(connection, claim_steps(connection)["a"], seconds=3_600)
    holder = connect(autocommit=False)
    holder.execute("SELECT FROM runledger.workflow_runs FOR UPDATE")

    with connection.transaction():
        assert len(reap_lapsed_leases(connection)) == 0
    holder.rollback()
    with connection.transaction():
        assert len(reap_lapsed_leases(connection)) == 1


def test_a_dead_worker_advances_its_runs(connection):
    builder = a_workflow(connection).job("a", TYPE, max_attempts=1).job("b", TYPE).after_terminal("b", ["a"])
    run = enqueue(connection, builder)
    job = claim_steps(connection)["a"]
    crash = Failure(Outcome.TIMEOUT, "job.timeout_exceeded", "too slow", None, None)

    with connection.transaction():
        settle_dead_worker(connection, WorkerDeath("w", crash, running=job.lease_token))

    assert statuses(connection, run.run_id) == {"a": "FAILED", "b": "ENQUEUED"}
    assert_invariants(connection)


def test_cancelling_its_job_cancels_the_step_and_advances(connection):
    run = enqueue(connection, a_diamond(connection))
    [first, *_] = list_workflow_steps(connection, run.run_id, scope=ANY)

    with pytest.raises(TransactionRequired):
        cancel_job(connection, first.job_id, scope=ANY)
    with connection.transaction():
        cancel_job(connection, first.job_id, scope=ANY)

    assert set(statuses(connection, run.run_id).values()) == {"CANCELED"}
    assert run_of(connection, run.run_id).status is WorkflowRunStatus.COMPLETED_WITH_ERRORS
    with pytest.raises(WorkflowRequeueNotSupported):
        requeue_job(connection, first.job_id, scope=ANY)
    assert_invariants(connection)


def test_outputs_of_prerequisites_are_inputs(connection):
    builder = a_workflow(connection).job("a", TYPE).job("b", TYPE).job("c", TYPE).after_terminal("c", ["a", "b"])
    enqueue(connection, builder)
    jobs = claim_steps(connection)
    succeed(connection, jobs["a"], output={"pages": [1, 2]})
    fail(connection, jobs["b"])

    job = claim_steps(connection)["c"]

    assert job.inputs is not None
    assert scalar(connection, "SELECT %s::jsonb", job.inputs) == {"a": {"pages": [1, 2]}, "b": None}
    assert jobs["a"].inputs is None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (output_of("a"), {"pages": ["x", "y"], "n": None}),
        ({"first": output_of("a", "pages", 0), "all": output_of("a", "pages")}, {"first": "x", "all": ["x", "y"]}),
        ([output_of("a", "n"), "hole-", {"q": 'a "quoted" \\ text'}], [None, "hole-", {"q": 'a "quoted" \\ text'}]),
    ],
)
def test_a_payload_takes_outputs_when_its_step_is_released(connection, payload: Any, expected: Any) -> None:
    run = enqueue(connection, a_workflow(connection).job("a", TYPE).job("b", TYPE, payload).after_success("b", ["a"]))
    succeed(connection, claim_steps(connection)["a"], output={"pages": ["x", "y"], "n": None})

    step = list_workflow_steps(connection, run.run_id, scope=ANY)[1]
    assert step.payload == expected
    assert get_job(connection, step.job_id, scope=ANY).payload == expected


@pytest.mark.parametrize("path", [("nowhere",), ("pages", 7), ("n", "deeper")])
def test_a_path_that_is_not_there_fails_the_step(connection, path: Any) -> None:
    builder = a_workflow(connection).job("a", TYPE).job("b", TYPE, {"x": output_of("a", *path)})
    builder.after_success("b", ["a"]).job("c", TYPE).after_success("c", ["b"]).job("d", TYPE).after_terminal("d", ["b"])
    run = enqueue(connection, builder)
    succeed(connection, claim_steps(connection)["a"], output={"pages": ["x"], "n": 1})

    step = list_workflow_steps(connection, run.run_id, scope=ANY)[1]
    assert (step.status, step.last_error_code) == (WorkflowStepStatus.FAILED, "workflow.input_missing")
    assert step.payload == {"x": {"$output_of": ["a", *path]}}
    assert {key: one for key, one in statuses(connection, run.run_id).items() if key in "cd"} == {
        "c": "CANCELED",
        "d": "ENQUEUED",
    }
    assert_invariants(connection)


def test_the_output_of_a_step_that_returned_nothing_is_null(connection):
    run = enqueue(
        connection, a_workflow(connection).job("a", TYPE).job("b", TYPE, output_of("a")).after_success("b", ["a"])
    )
    succeed(connection, claim_steps(connection)["a"])

    assert list_workflow_steps(connection, run.run_id, scope=ANY)[1].payload is None


def test_the_result_of_a_run_is_the_output_of_its_result_step(connection):
    run = enqueue(connection, a_workflow(connection).job("a", TYPE).job("b", TYPE).result_step("a"))
    jobs = claim_steps(connection)
    succeed(connection, jobs["a"], output={"answer": 42})
    assert run_of(connection, run.run_id).result is None
    succeed(connection, jobs["b"])

    assert run_of(connection, run.run_id).result == {"answer": 42}


def test_runs_are_listed_by_page_type_status_and_scope(connection):
    ours = [enqueue(connection, a_diamond(connection, workflow_type=f"Doc.{n}")).run_id for n in range(3)]
    theirs = enqueue(connection, a_diamond(connection, organization_id=ORGANIZATION)).run_id

    def ids(**options: Any) -> list[Any]:
        return [one.run_id for one in list_workflow_runs(connection, **({"scope": ANY} | options))]

    assert ids() == [theirs, *reversed(ours)]
    assert ids(limit=1, before=theirs) == [ours[2]]
    assert ids(workflow_type="dOC.1") == [ours[1]]
    assert ids(status=WorkflowRunStatus.SUCCEEDED) == []
    assert ids(scope=Scope.organization(ORGANIZATION)) == [theirs]
    assert ids(scope=Scope.global_only(), status=WorkflowRunStatus.RUNNING) == list(reversed(ours))
    with pytest.raises(InvalidPagination):
        ids(limit=0)


def test_steps_and_edges_are_listed_by_page(connection):
    run = enqueue(connection, a_diamond(connection).after_terminal("d", ["a"]))

    first, second = (one for one in list_workflow_steps(connection, run.run_id, scope=ANY, limit=2))
    rest = list_workflow_steps(connection, run.run_id, scope=ANY, after=second.step_id)
    assert [one.step_key for one in (first, second, *rest)] == ["a", "b", "c", "d"]
    edges = list_workflow_step_dependencies(connection, run.run_id, scope=ANY)
    assert {(one.prerequisite_step_key, one.dependent_step_key, one.release_mode) for one in edges} == {
        ("a", "b", ReleaseMode.ON_SUCCESS),
        ("a", "c", ReleaseMode.ON_SUCCESS),
        ("b", "d", ReleaseMode.ON_SUCCESS),
        ("c", "d", ReleaseMode.ON_SUCCESS),
        ("a", "d", ReleaseMode.ON_TERMINAL),
    }
    assert list_workflow_step_dependencies(connection, run.run_id, scope=ANY, after=edges[1]) == edges[2:]


@pytest.mark.parametrize("run_id", ["no uuid", ORGANIZATION])
def test_a_run_that_is_not_there_is_not_found(connection, run_id: str) -> None:
    with pytest.raises(errors.WorkflowRunNotFound):
        get_workflow_run(connection, run_id, scope=ANY)


def test_a_run_outside_the_scope_is_not_found(connection):
    run = enqueue(connection, a_diamond(connection, organization_id=ORGANIZATION))

    with pytest.raises(errors.WorkflowRunNotFound):
        get_workflow_run(connection, run.run_id, scope=Scope.global_only())
    assert list_workflow_steps(connection, run.run_id, scope=Scope.global_only()) == []
    assert list_workflow_step_dependencies(connection, run.run_id, scope=Scope.global_only()) == []


def test_a_job_knows_its_run(connection):
    run = enqueue(connection, a_diamond(connection))
    step = list_workflow_steps(connection, run.run_id, scope=ANY)[0]
    plain = a_job(connection, TYPE)

    assert get_workflow_run_id_for_job(connection, step.job_id, scope=ANY) == run.run_id
    assert get_workflow_run_id_for_job(connection, plain.job_id, scope=ANY) is None
    with pytest.raises(JobNotFound):
        get_workflow_run_id_for_job(connection, ORGANIZATION, scope=ANY)


def test_a_refused_graph_leaves_nothing(connection):
    builder = a_workflow(connection).job("a", TYPE)
    builder._steps["b"] = StepRequest("b", "missing")
    builder._edges["b"] = []
    before = snapshot(connection)

    with pytest.raises(errors.WorkflowDefinitionNotFoundOrDisabled):
        enqueue(connection, builder)

    assert snapshot(connection) == before


def test_a_builder_is_built_and_anything_else_refused(connection):
    builder = a_workflow(connection).job("a", TYPE)
    with connection.transaction():
        run = enqueue_workflow_run(connection, builder)
    assert statuses(connection, run.run_id) == {"a": "ENQUEUED"}
    with pytest.raises(InvalidRequest, match="must be a WorkflowRunRequest, not str"):
        enqueue_workflow_run(connection, "ingest")  # type: ignore[arg-type]  # what somebody may write
