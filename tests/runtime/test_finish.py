"""``context.finish``: the attempt ends in the handler's own transaction, with its rows or not at all."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench

from runledger import JobCatalog, JobContext, JobStatus, LeaseLost, Outcome, Scope
from runledger.postgres.operations import cancel_job
from runledger.runtime import exchange, failure_lines, worker

MakeBench = Callable[..., Bench]


@pytest.fixture
def run_finishing(
    make_bench: MakeBench, database_url: str
) -> Callable[[Callable[[JobContext, Any], Any]], tuple[Bench, str]]:
    """Runs one job whose handler gets a connection of its own, outside autocommit, and a table ``orders``."""

    def run(handler: Callable[[JobContext, Any], Any]) -> tuple[Bench, str]:
        catalog = JobCatalog(max_attempts=2)

        @catalog.job("test")
        def test(context: JobContext, payload: Any) -> Any:
            with psycopg.connect(database_url) as connection:
                connection.execute("INSERT INTO orders VALUES (1)")
                return handler(context, connection)

        bench = make_bench(catalog)
        bench.connection.execute("CREATE TABLE IF NOT EXISTS orders (number integer); TRUNCATE orders")
        return bench, bench.run("test")

    return run


RunFinishing = Callable[[Callable[[JobContext, Any], Any]], tuple[Bench, str]]


def orders(bench: Bench) -> int:
    return int(bench.scalar("SELECT count(*) FROM orders"))


def test_a_finish_commits_together_with_the_rows_of_the_handler(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> None:
        context.finish(connection, {"order": 1})

    bench, job_id = run_finishing(handler)

    assert orders(bench) == 1
    assert (bench.job(job_id).status, bench.job(job_id).output) == (JobStatus.SUCCEEDED, {"order": 1})
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SUCCEEDED]


def test_a_finish_that_rolls_back_and_a_normal_return_is_a_failed_attempt(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> str:
        context.finish(connection)
        connection.rollback()
        return "all is well"

    bench, job_id = run_finishing(handler)

    assert orders(bench) == 0
    [attempt] = bench.attempts(job_id)
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRYABLE, "job.finish_rolled_back")
    assert bench.job(job_id).status is JobStatus.PENDING


def test_a_finish_rolls_back_with_an_exception_of_the_handler(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> None:
        context.finish(connection)
        raise ValueError("after all")

    bench, job_id = run_finishing(handler)

    assert orders(bench) == 0
    assert [one.error_code for one in bench.attempts(job_id)] == ["exception.ValueError"]


def test_an_exception_after_a_committed_finish_changes_nothing(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> None:
        context.finish(connection, "kept")
        connection.commit()
        raise ValueError("too late to fail")

    bench, job_id = run_finishing(handler)

    assert orders(bench) == 1
    assert (bench.job(job_id).status, bench.job(job_id).output) == (JobStatus.SUCCEEDED, "kept")
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SUCCEEDED]


def test_a_finish_without_a_lease_is_refused_and_takes_the_rows_with_it(run_finishing: RunFinishing) -> None:
    refused: list[str] = []

    def handler(context: JobContext, connection: Any) -> None:
        with psycopg.connect(connection.info.dsn, autocommit=True) as operator:
            cancel_job(operator, context.job_id, scope=Scope.any())
        try:
            context.finish(connection)
        except LeaseLost as error:
            refused.append(error.code)
            raise

    bench, job_id = run_finishing(handler)

    assert refused == [LeaseLost.code]
    assert orders(bench) == 0
    assert bench.job(job_id).status is JobStatus.CANCELED


def test_progress_said_before_a_finish_is_stored_with_it(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> None:
        context.progress(1, 2)
        context.progress(2, 2)
        context.log("info", "nearly there")
        context.finish(connection)

    bench, job_id = run_finishing(handler)

    assert (bench.job(job_id).status, bench.job(job_id).progress_done) == (JobStatus.SUCCEEDED, 2)
    assert bench.scalar("SELECT count(*) FROM runledger.job_logs") == 1


def test_a_second_finish_is_refused(run_finishing: RunFinishing) -> None:
    def handler(context: JobContext, connection: Any) -> None:
        context.finish(connection, 1)
        with pytest.raises(LeaseLost):
            context.finish(connection, 2)

    bench, job_id = run_finishing(handler)

    assert bench.job(job_id).output == 1


def test_a_committed_finish_is_not_logged_as_a_failure(
    run_finishing: RunFinishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for module in (exchange, worker, failure_lines):
        monkeypatch.setattr(module, "log", lambda level, event, **fields: said.append(event))

    run_finishing(lambda context, connection: context.finish(connection))

    assert not {"job.retry_scheduled", "job.lease_lost"} & set(said)


def test_a_finish_without_a_commit_is_logged_like_any_failure(
    run_finishing: RunFinishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, object]] = []
    monkeypatch.setattr(failure_lines, "log", lambda level, event, **fields: said.append((event, fields["code"])))

    def handler(context: JobContext, connection: Any) -> None:
        context.finish(connection)
        connection.rollback()

    run_finishing(handler)

    assert said == [("job.retry_scheduled", "job.finish_rolled_back")]
