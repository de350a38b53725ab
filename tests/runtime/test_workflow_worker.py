"""A worker runs whole workflows: settle, advance and claim in one transaction, with data flowing through."""

import os
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench

from runledger import (
    JobCatalog,
    JobContext,
    JobFailure,
    Ledger,
    Scope,
    Succeeded,
    WorkflowDagBuilder,
    WorkflowRunStatus,
    WorkflowWaitTimedOut,
    complete_external_workflow_step,
    enqueue_workflow_run,
    get_workflow_run,
    list_workflow_steps,
    output_of,
)

MakeBench = Callable[..., Bench]
ANY = Scope.any()


@pytest.fixture
def catalog() -> JobCatalog:
    made = JobCatalog(max_attempts=1)

    @made.job("add")
    def add(context: JobContext, payload: dict[str, int]) -> dict[str, Any]:
        return {"sum": sum(payload.values()), "step": context.step_key, "inputs": dict(context.inputs)}

    @made.job("finish")
    def finish(context: JobContext, payload: Any) -> None:
        with psycopg.connect(os.environ["TEST_FINISH_URL"]) as connection:
            context.finish(connection, {"finished": True})

    @made.job("break")
    def fails(context: JobContext, payload: Any) -> None:
        raise JobFailure.terminal("broken", "it is broken")

    return made


def start(bench: Bench, builder: WorkflowDagBuilder) -> str:
    with bench.connection.transaction():
        return str(enqueue_workflow_run(bench.connection, builder.build()).run_id)


def statuses(bench: Bench, run_id: str) -> dict[str, str]:
    return {one.step_key: one.status.value for one in list_workflow_steps(bench.connection, run_id, scope=ANY)}


def test_a_worker_runs_a_graph_and_passes_outputs_on(make_bench: MakeBench, catalog: JobCatalog) -> None:
    bench = make_bench(catalog)
    builder = catalog.workflow("sums").job("a", "add", {"x": 1, "y": 2}).job("b", "add", {"x": 10})
    builder.job("c", "add", {"x": output_of("a", "sum"), "y": output_of("b", "sum")}).after_success("c", ["a", "b"])
    run_id = start(bench, builder.result_step("c"))

    bench.work()

    run = get_workflow_run(bench.connection, run_id, scope=ANY)
    assert run.status is WorkflowRunStatus.SUCCEEDED
    assert (run.result["sum"], run.result["step"]) == (13, "c")
    assert {key: value["sum"] for key, value in run.result["inputs"].items()} == {"a": 3, "b": 10}


def test_a_failure_of_a_step_reaches_the_run(make_bench: MakeBench, catalog: JobCatalog) -> None:
    bench = make_bench(catalog)
    builder = catalog.workflow("broken").job("a", "break").job("b", "add").after_success("b", ["a"])
    run_id = start(bench, builder.job("c", "add").after_terminal("c", ["b"]))

    bench.work()

    assert statuses(bench, run_id) == {"a": "FAILED", "b": "CANCELED", "c": "SUCCEEDED"}
    run = get_workflow_run(bench.connection, run_id, scope=ANY)
    assert run.status is WorkflowRunStatus.COMPLETED_WITH_ERRORS


def test_a_step_that_finishes_in_its_own_transaction_advances_the_run_there(
    make_bench: MakeBench, catalog: JobCatalog, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_FINISH_URL", database_url)
    bench = make_bench(catalog)
    run_id = start(bench, catalog.workflow("f").job("a", "finish").job("b", "add").after_success("b", ["a"]))

    bench.work()

    assert statuses(bench, run_id) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_plain_jobs_and_steps_share_a_worker(make_bench: MakeBench, catalog: JobCatalog) -> None:
    bench = make_bench(catalog)
    plain = [bench.enqueue("add", {"x": number}) for number in range(5)]
    run_id = start(bench, catalog.workflow("w").job("a", "add").job("b", "add").after_success("b", ["a"]))

    bench.work()

    assert [bench.job(one).output["sum"] for one in plain] == [0, 1, 2, 3, 4]
    assert statuses(bench, run_id) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_an_outcome_whose_run_is_held_is_not_lost(make_bench: MakeBench, catalog: JobCatalog) -> None:
    bench = make_bench(catalog)
    run_id = start(bench, catalog.workflow("w").job("a", "add").job("b", "add").after_success("b", ["a"]))
    with bench.link.autocommit() as ledger:
        ledger.driver.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(bench.connection.info.dsn) as holder:
        holder.execute("SELECT FROM runledger.workflow_runs FOR UPDATE")
        assert bench.worker.tick() == 0.0  # ran, not settled yet
        bench.worker.tick()
        assert statuses(bench, run_id)["b"] == "BLOCKED"
        holder.rollback()

    bench.worker._exchange._locked_again_at = 0.0
    bench.work()
    assert statuses(bench, run_id) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_an_application_waits_for_a_run(make_bench: MakeBench, catalog: JobCatalog, database_url: str) -> None:
    bench = make_bench(catalog)
    with Ledger(database_url) as ledger:
        run = ledger.enqueue_workflow_run(catalog.workflow("w").external("gate").build())
        with pytest.raises(WorkflowWaitTimedOut):
            ledger.wait_for_workflow_run(run.run_id, timeout_seconds=0.01)

        def answer() -> None:
            with psycopg.connect(bench.connection.info.dsn) as connection:
                complete_external_workflow_step(connection, run_id=run.run_id, step_key="gate", outcome=Succeeded())

        timer = threading.Timer(0.05, answer)
        timer.start()
        done = ledger.wait_for_workflow_run(run.run_id, timeout_seconds=10, poll_seconds=0.01)
        timer.join()
        assert done.status is WorkflowRunStatus.SUCCEEDED
        assert ledger.get_workflow_run(run.run_id) == done
