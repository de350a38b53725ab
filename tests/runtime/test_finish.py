"""``context.finish``: the attempt ends in the handler's own transaction, with its rows or not at all."""

from collections.abc import Callable
from typing import Any

import psycopg
import psycopg2
import pytest
from runtime.benches import Bench
from runtime.hosts import until
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from runledger import (
    InvalidConfiguration,
    JobCancelled,
    JobCatalog,
    JobContext,
    JobStatus,
    LeaseLost,
    Outcome,
    RunledgerError,
    Scope,
)
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


@pytest.mark.parametrize("kind", ["psycopg", "psycopg2", "session"])
def test_a_finish_that_is_left_open_rolls_back_with_its_connection(
    make_bench: MakeBench, database_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could settle the lease before; a later handler on the same connection would commit it."""
    said: list[str] = []
    monkeypatch.setattr(worker, "log", lambda level, event, **fields: said.append(event))
    kept = opened(kind, database_url)
    catalog = JobCatalog(max_attempts=2)

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        context.finish(kept)
        if payload == "good":
            kept.commit()

    bench = make_bench(catalog)
    job_id = bench.enqueue("test")
    bench.work()

    [attempt] = bench.attempts(job_id)
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRYABLE, "job.finish_rolled_back")
    assert said == ["job.finish_left_open"]
    still_open = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kept' AND datname = current_database()"
    )
    until(lambda: bench.scalar(still_open) == 0, what="the end of the connection")
    if kind == "session":  # which opens another one
        assert bench.job(bench.run("test", "good")).status is JobStatus.SUCCEEDED
        kept.close()


def test_a_finish_left_open_by_an_interrupted_attempt_is_rolled_back_too(
    make_bench: MakeBench, database_url: str
) -> None:
    kept = psycopg.connect(database_url)
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        context.finish(kept)
        bench.slot.interrupt(context.lease_token)  # as the keeper does when the lease has lapsed
        raise JobCancelled("the attempt counts no more")

    bench = make_bench(catalog)
    bench.run("test")

    assert kept.closed
    assert bench.scalar("SELECT count(*) FROM runledger.job_attempts") == 0


def opened(kind: str, database_url: str) -> Any:
    """A connection that begins a transaction by itself, as somebody might keep one in a process."""
    if kind == "psycopg":
        return psycopg.connect(database_url, application_name="kept")
    if kind == "psycopg2":
        return psycopg2.connect(database_url, application_name="kept")
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return Session(create_engine(url, connect_args={"application_name": "kept"}))


@pytest.mark.parametrize("is_link_broken", [False, True])
def test_a_connection_that_went_to_somebody_else_is_left_alone(
    make_bench: MakeBench, database_url: str, is_link_broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool may lend it to another thread before the handler has returned."""
    kept = psycopg.connect(database_url)
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        context.finish(kept)
        kept.commit()
        kept.execute("SELECT 1")
        if is_link_broken:  # so that nothing can be settled when the handler has returned
            bench.link.close()
            monkeypatch.setattr(bench.link, "_conninfo", "host=127.0.0.1 port=1 dbname=nowhere")

    bench = make_bench(catalog)
    conninfo = bench.link._conninfo
    job_id = bench.enqueue("test")
    bench.worker.tick()
    monkeypatch.setattr(bench.link, "_conninfo", conninfo)
    bench.work()

    assert bench.job(job_id).status is JobStatus.SUCCEEDED
    assert kept.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    kept.close()


def test_a_finish_in_another_database_says_so(make_bench: MakeBench, database_url: str, own_database: str) -> None:
    refused: list[RunledgerError] = []
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> str:
        with psycopg.connect(own_database) as connection:
            try:
                context.finish(connection)
            except RunledgerError as error:
                refused.append(error)
        return "done here"

    bench = make_bench(catalog)
    job_id = bench.run("test")

    [error] = refused
    assert isinstance(error, InvalidConfiguration)
    assert "another database" in str(error)
    assert bench.job(job_id).output == "done here"


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
