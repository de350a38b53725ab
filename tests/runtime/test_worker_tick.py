"""What a tick of the worker does with a job, over a real database and without any process."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from runtime.benches import Bench, returning

from runledger import (
    Continue,
    JobCancelled,
    JobCatalog,
    JobContext,
    JobFailure,
    JobStatus,
    JobTimeout,
    Outcome,
    Scope,
    Snooze,
)
from runledger.postgres.operations import cancel_job

MakeBench = Callable[..., Bench]


@dataclass
class Order:
    number: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("output", [None, True, 0, 1.5, "text", [], {"a": [1, {"b": None}]}])
def test_what_a_handler_returns_is_the_output_of_the_job(make_bench: MakeBench, output: Any) -> None:
    bench = make_bench(returning(output))

    job = bench.job(bench.run("test"))

    assert (job.status, job.output, job.attempt) == (JobStatus.SUCCEEDED, output, 1)
    [attempt] = bench.attempts(str(job.job_id))
    assert attempt.outcome is Outcome.SUCCEEDED
    assert attempt.worker_id == "test.0.1"
    assert attempt.started_at is not None
    assert attempt.leased_at <= attempt.started_at <= attempt.finished_at
    assert attempt.max_rss_kb


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("wrong"), "exception.ValueError"),
        (SystemExit(0), "exception.SystemExit"),
        (KeyboardInterrupt(), "exception.KeyboardInterrupt"),
        (MemoryError(), "exception.MemoryError"),
        (ExceptionGroup("many", [ValueError("a"), TypeError("b")]), "exception.ExceptionGroup"),
        (ValueError("a\0b\udc80"), "exception.ValueError"),
        (JobFailure.retryable("mail.busy", "later"), "mail.busy"),
    ],
)
def test_a_failed_attempt_waits_for_the_next(make_bench: MakeBench, raised: BaseException, code: str) -> None:
    bench = make_bench(returning(raised))

    job_id = bench.run("test")

    [attempt] = bench.attempts(job_id)
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRYABLE, code)
    assert attempt.traceback
    assert bench.job(job_id).status is JobStatus.PENDING
    assert bench.scalar("SELECT next_run_at - clock_timestamp() FROM runledger.job_scheduled") > timedelta(seconds=50)


def test_an_exception_without_text_is_a_failure_like_any_other(make_bench: MakeBench) -> None:
    bench = make_bench(returning(Unprintable()))

    [attempt] = bench.attempts(bench.run("test"))

    assert attempt.outcome is Outcome.RETRYABLE
    assert "Unprintable" in (attempt.error_code or "")


def test_endless_recursion_is_a_failure_like_any_other(make_bench: MakeBench) -> None:
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        test(context, payload)

    bench = make_bench(catalog)

    [attempt] = bench.attempts(bench.run("test"))

    assert attempt.error_code == "exception.RecursionError"
    assert len((attempt.traceback or "").encode()) <= 16_384


def test_a_terminal_failure_and_the_last_attempt_go_to_the_dead_letters(make_bench: MakeBench) -> None:
    terminal = make_bench(returning(JobFailure.terminal("order.unknown", "there is no such order")))
    job = terminal.job(terminal.run("test"))
    assert (job.status, job.status_reason) == (JobStatus.DEAD_LETTERED, "FAILURE_KIND_NON_RETRYABLE")

    exhausted = make_bench(returning(ValueError("again")))
    job = exhausted.job(exhausted.run("test", max_attempts=1))
    assert (job.status, job.status_reason) == (JobStatus.DEAD_LETTERED, "ATTEMPTS_EXHAUSTED")


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_snoozed_job_waits_and_keeps_its_attempt(make_bench: MakeBench, is_raised: bool) -> None:
    bench = make_bench(_wishing(Snooze(60), is_raised))

    job_id = bench.run("test", max_attempts=1)

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SNOOZED]
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == (JobStatus.PENDING, 0)


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_continued_job_begins_its_next_run(make_bench: MakeBench, is_raised: bool) -> None:
    bench = make_bench(_wishing(Continue(60), is_raised))

    job_id = bench.run("test")

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SUCCEEDED]
    job = bench.job(job_id)
    assert (job.status, job.run_number, job.attempt) == (JobStatus.PENDING, 2, 0)


def _wishing(wish: Exception, is_raised: bool) -> JobCatalog:
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> Any:
        if is_raised:
            raise wish
        return wish

    return catalog


def test_a_job_past_its_expiry_is_cancelled_without_a_run(make_bench: MakeBench) -> None:
    bench = make_bench(returning("ran"))
    job_id = bench.enqueue("test", expires_at=datetime.now(UTC) + timedelta(hours=1))
    bench.connection.execute("UPDATE runledger.job_queue SET expires_at = clock_timestamp() - interval '1 second'")

    bench.work()

    assert (bench.job(job_id).status, bench.job(job_id).status_reason) == (JobStatus.CANCELED, "EXPIRED")
    assert bench.attempts(job_id) == []


@pytest.mark.parametrize(
    "stored",
    ["[" * 3_000 + "]" * 3_000, "1" + "0" * 5_000],
    ids=["an array nested three thousand deep", "an integer of five thousand digits"],
)
def test_a_payload_that_does_not_decode_fails_its_own_job_only(make_bench: MakeBench, stored: str) -> None:
    bench = make_bench(returning("ran"))
    poisoned = bench.enqueue("test")
    bench.connection.execute("UPDATE runledger.job_queue SET payload = %s::jsonb", (stored,))
    others = [bench.enqueue("test") for _ in range(5)]

    bench.work()

    row = bench.connection.execute(
        "SELECT final_status::text, last_error_code FROM runledger.job_queue WHERE id = %s", (poisoned,)
    ).fetchone()
    assert row == ("DEAD_LETTERED", "job.invalid_payload")
    assert {bench.job(one).status for one in others} == {JobStatus.SUCCEEDED}


def test_a_payload_that_does_not_fit_its_type_never_reaches_the_handler(make_bench: MakeBench) -> None:
    seen: list[Order] = []
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Order) -> None:
        seen.append(payload)

    bench = make_bench(catalog)
    good, bad = bench.enqueue("test", {"number": 7}), bench.enqueue("test", {"number": "seven"})

    bench.work()

    assert seen == [Order(7)]
    assert bench.job(good).status is JobStatus.SUCCEEDED
    assert (bench.job(bad).status, bench.job(bad).last_error_code) == (
        JobStatus.DEAD_LETTERED,
        "job.invalid_payload",
    )


@pytest.mark.parametrize(
    "output", [object(), float("nan"), {1: 2}, "a\0b", "x" * 300_000, b"bytes"], ids=lambda value: type(value).__name__
)
def test_an_output_that_is_no_json_ends_the_job(make_bench: MakeBench, output: Any) -> None:
    bench = make_bench(returning(output))

    job = bench.job(bench.run("test"))

    assert (job.status, job.last_error_code) == (JobStatus.DEAD_LETTERED, "job.invalid_output")


def test_the_dead_letter_hook_of_a_handler_runs_as_a_job(make_bench: MakeBench) -> None:
    told: list[str] = []

    class Handler:
        job_type = "test"

        def execute(self, context: JobContext, payload: Any) -> None:
            raise JobFailure.terminal("order.unknown", "gone")

        def on_dead_letter(self, context: JobContext, payload: Any, info: Any) -> None:
            told.append(f"{info.code} {json.dumps(payload)}")

    catalog = JobCatalog()
    catalog.register(Handler())
    bench = make_bench(catalog)

    bench.run("test", {"number": 1})

    assert told == ['order.unknown {"number": 1}']


def test_a_handler_that_raises_a_cancellation_of_its_own_has_failed(make_bench: MakeBench) -> None:
    bench = make_bench(returning(JobCancelled("nobody asked for it")))

    job_id = bench.run("test")

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.RETRYABLE]
    assert bench.scalar("SELECT count(*) FROM runledger.job_leases") == 0


def test_a_cancelled_attempt_writes_nothing(make_bench: MakeBench) -> None:
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> str:
        cancel_job(bench.connection, context.job_id, scope=Scope.any())
        return "too late"

    bench = make_bench(catalog)

    job_id = bench.run("test")

    assert (bench.job(job_id).status, bench.job(job_id).output) == (JobStatus.CANCELED, None)


def test_a_timeout_of_the_attempt_is_raised_in_the_handler(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    seen: list[float] = []

    @catalog.job("test", timeout_seconds=1)
    def test(context: JobContext, payload: Any) -> None:
        try:
            while True:
                time.sleep(0.01)
        except JobTimeout:
            seen.append(context.remaining_seconds())
            raise

    bench = make_bench(catalog)

    job_id = bench.run("test")

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.TIMEOUT]
    assert seen[0] < 0.1
