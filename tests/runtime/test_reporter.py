"""What a running attempt says, and what of it is written when."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from runtime.benches import Bench

from runledger import (
    DatabaseUnavailable,
    InvalidCheckpoint,
    InvalidProgress,
    JobCatalog,
    JobContext,
    JobStatus,
    LeaseLost,
    Scope,
)
from runledger.postgres.operations import cancel_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.runtime_configs import upsert_job_runtime_config
from runledger.runtime import attendant, reporter
from runledger.runtime.reporter import MOST_LOG_LINES

MakeBench = Callable[..., Bench]
Handler = Callable[[JobContext, Bench], Any]


def run(make_bench: MakeBench, handler: Handler) -> tuple[Bench, str]:
    """One job whose handler is ``handler(context, bench)``, run to its end."""
    catalog = JobCatalog(max_attempts=1)

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> Any:
        return handler(context, bench)

    bench = make_bench(catalog)
    return bench, bench.run("test")


def stored_progress(bench: Bench) -> Any:
    return bench.connection.execute("SELECT progress_done, progress_total FROM runledger.job_leases").fetchone()


def test_the_first_progress_is_stored_at_once_and_the_last_at_the_end(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendant, "WRITE_EVERY_SECONDS", float("inf"))  # it writes nothing of a short handler
    seen: list[Any] = []

    def handler(context: JobContext, bench: Bench) -> None:
        for done in range(1, 501):
            context.progress(done, 500)
        seen.append(stored_progress(bench))

    bench, job_id = run(make_bench, handler)

    assert seen == [(1, 500)]
    job = bench.job(job_id)
    assert (job.progress_done, job.progress_total) == (500, 500)


def test_progress_of_a_long_job_is_stored_every_second(make_bench: MakeBench) -> None:
    seen: list[Any] = []

    def handler(context: JobContext, bench: Bench) -> None:
        context.progress(1, 10)
        context.progress(2)
        deadline = time.monotonic() + 5
        while stored_progress(bench) != (2, 10) and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(stored_progress(bench))

    run(make_bench, handler)

    assert seen == [(2, 10)]


def test_a_checkpoint_is_stored_when_the_call_returns_together_with_the_progress(make_bench: MakeBench) -> None:
    seen: list[Any] = []

    def handler(context: JobContext, bench: Bench) -> None:
        context.progress(1, 10)
        context.progress(2)
        context.save_checkpoint({"page": 2})
        row = bench.connection.execute("SELECT checkpoint, progress_done FROM runledger.job_leases").fetchone()
        seen.append(row)
        seen.append(context.checkpoint)

    run(make_bench, handler)

    assert seen == [({"page": 2}, 2), {"page": 2}]


def test_the_next_attempt_finds_the_checkpoint_of_a_failed_one(make_bench: MakeBench) -> None:
    found: list[Any] = []
    catalog = JobCatalog(max_attempts=2)

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        found.append(context.checkpoint)
        context.save_checkpoint([context.attempt])
        if context.attempt == 1:
            raise ValueError("again")

    bench = make_bench(catalog)
    bench.run("test")
    bench.connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp()")
    promote_due_jobs(bench.connection)
    bench.work()

    assert found == [None, [1]]


def test_progress_that_contradicts_what_was_said_before_is_refused_before_it_is_stored(make_bench: MakeBench) -> None:
    def handler(context: JobContext, bench: Bench) -> str:
        context.progress(1, 4)
        context.progress(3)
        with pytest.raises(InvalidProgress):
            context.progress(total=2)
        with pytest.raises(InvalidProgress):
            context.progress(5)
        context.progress(4)
        return "went on"

    bench, job_id = run(make_bench, handler)

    job = bench.job(job_id)
    assert (job.output, job.progress_done, job.progress_total) == ("went on", 4, 4)


def test_what_was_said_while_the_database_was_away_is_stored_later(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DatabaseUnavailable("gone for a moment")

    def handler(context: JobContext, bench: Bench) -> None:
        with monkeypatch.context() as away:
            away.setattr(reporter, "write_logs", refuse)
            with pytest.raises(DatabaseUnavailable):
                context.progress(1, 2)
            with pytest.raises(DatabaseUnavailable):
                context.log("first")
        context.progress(2)
        context.log("second")

    bench, job_id = run(make_bench, handler)

    lines = bench.connection.execute("SELECT message FROM runledger.job_logs ORDER BY id").fetchall()
    assert lines == [("first",), ("second",)]
    assert (bench.job(job_id).progress_done, bench.job(job_id).progress_total) == (2, 2)


def test_what_could_not_be_stored_of_one_attempt_is_not_said_of_the_next(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DatabaseUnavailable("gone for a moment")

    said = iter(["first", "second"])

    def handler(context: JobContext, bench: Bench) -> None:
        line = next(said)
        if line == "first":
            monkeypatch.setattr(reporter, "write_logs", refuse)
            with pytest.raises(DatabaseUnavailable):
                context.log(line)
        else:
            monkeypatch.undo()
            context.log(line)

    bench, _ = run(make_bench, handler)
    bench.run("test")

    assert bench.connection.execute("SELECT message FROM runledger.job_logs").fetchall() == [("second",)]


@pytest.mark.parametrize(("done", "total"), [(2, 1), (-1, None), (None, None), (1.5, 2), (True, 2)])
def test_progress_that_contradicts_itself_is_refused_and_the_attempt_goes_on(
    make_bench: MakeBench, done: Any, total: Any
) -> None:
    def handler(context: JobContext, bench: Bench) -> str:
        with pytest.raises(InvalidProgress):
            context.progress(done, total)
        context.progress(1, 2)
        return "went on"

    bench, job_id = run(make_bench, handler)

    assert bench.job(job_id).output == "went on"


def test_progress_beyond_the_total_of_an_earlier_attempt_ends_the_job_with_its_reason(make_bench: MakeBench) -> None:
    catalog = JobCatalog(max_attempts=2)

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        if context.attempt == 1:
            context.progress(1, 2)
            raise ValueError("again")
        context.progress(3)

    bench = make_bench(catalog)
    job_id = bench.run("test")
    bench.connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp()")
    promote_due_jobs(bench.connection)
    bench.work()

    assert (bench.job(job_id).status, bench.job(job_id).last_error_code) == (
        JobStatus.DEAD_LETTERED,
        "job.invalid_progress",
    )


def test_a_checkpoint_that_is_no_json_is_refused(make_bench: MakeBench) -> None:
    def handler(context: JobContext, bench: Bench) -> None:
        with pytest.raises(InvalidCheckpoint):
            context.save_checkpoint(float("nan"))

    bench, job_id = run(make_bench, handler)

    assert bench.job(job_id).status is JobStatus.SUCCEEDED


def test_a_checkpoint_of_a_cancelled_attempt_is_refused(make_bench: MakeBench) -> None:
    refused: list[type] = []

    def handler(context: JobContext, bench: Bench) -> None:
        cancel_job(bench.connection, context.job_id, scope=Scope.any())
        try:
            context.save_checkpoint(1)
        except LeaseLost as error:
            refused.append(type(error))

    bench, job_id = run(make_bench, handler)

    assert refused == [LeaseLost]
    assert (bench.job(job_id).status, bench.job(job_id).checkpoint) == (JobStatus.CANCELED, None)


def test_logs_are_capped_and_the_last_line_says_so(make_bench: MakeBench) -> None:
    def handler(context: JobContext, bench: Bench) -> None:
        for number in range(MOST_LOG_LINES + 500):
            context.log("info", f"line {number}", number=number)

    bench, _ = run(make_bench, handler)

    lines = bench.connection.execute("SELECT message FROM runledger.job_logs ORDER BY id").fetchall()
    assert len(lines) == MOST_LOG_LINES
    assert lines[0] == ("line 0",)
    assert "line" not in lines[-1][0] or "more" in lines[-1][0]


def test_logs_of_a_failed_attempt_are_kept(make_bench: MakeBench) -> None:
    def handler(context: JobContext, bench: Bench) -> None:
        context.log("warning", "about to fail\nreally", secret=object())
        raise ValueError("failed")

    bench, _ = run(make_bench, handler)

    [(level, message)] = bench.connection.execute("SELECT level::text, message FROM runledger.job_logs").fetchall()
    assert (level, message) == ("WARNING", "about to fail\nreally")


def test_logs_of_one_attempt_are_not_written_to_the_next(make_bench: MakeBench) -> None:
    def handler(context: JobContext, bench: Bench) -> None:
        context.log("info", str(context.job_id))
        cancel_job(bench.connection, context.job_id, scope=Scope.any())

    bench, first = run(make_bench, handler)
    bench.run("test")

    rows = bench.connection.execute("SELECT job_id::text, message FROM runledger.job_logs").fetchall()
    assert all(job_id == message for job_id, message in rows)
    assert first not in {message for _, message in rows if message != first}


def test_an_attempt_reads_its_runtime_config_once_however_often_it_asks(make_bench: MakeBench) -> None:
    seen: list[Any] = []

    def handler(context: JobContext, bench: Bench) -> None:
        upsert_job_runtime_config(bench.connection, "test", {"rate": 5})
        seen.append(context.runtime_config())
        upsert_job_runtime_config(bench.connection, "test", {"rate": 6})
        seen.append(context.runtime_config())

    bench, job_id = run(make_bench, handler)

    assert bench.job(job_id).status is JobStatus.SUCCEEDED
    assert [one.config for one in seen] == [{"rate": 5}, {"rate": 5}]
