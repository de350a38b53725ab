"""What a tick of the worker does with a job, over a real database and without any process."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench

from runledger import (
    Continue,
    DatabaseUnavailable,
    JobCancelled,
    JobCatalog,
    JobContext,
    JobFailure,
    JobStatus,
    JobTimeout,
    Outcome,
    RetryPolicy,
    Scope,
    Snooze,
)
from runledger.postgres.operations import cancel_job
from runledger.postgres.recovery import reap_lapsed_leases, settle_dead_worker
from runledger.runtime import exchange
from runledger.runtime.obituary import write_obituary
from runledger.runtime.slots import SlotState
from runledger.testing.factories import age_lease

MakeBench = Callable[..., Bench]


@dataclass
class Order:
    number: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def returning(value: Any) -> JobCatalog:
    """A catalog whose one type, ``test``, returns ``value``, or raises it when it is an exception."""
    catalog = JobCatalog(retry=RetryPolicy(base_seconds=60, factor=1, jitter=False))

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return catalog


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


def test_an_outcome_waits_no_longer_than_the_delay_while_the_next_job_runs(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    waited: list[float] = []

    @catalog.job("quick")
    def quick(context: JobContext, payload: Any) -> None:
        pass

    @catalog.job("long", priority=-1)
    def long(context: JobContext, payload: Any) -> None:
        began = time.monotonic()
        while time.monotonic() < began + 5:
            left = bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL")
            if left == 1:
                waited.append(time.monotonic() - began)
                return
            time.sleep(0.002)

    bench = make_bench(catalog, settle_delay_ms=10)
    _grow_prefetch(bench, to=8)
    for _ in range(4):
        bench.enqueue("quick")
    bench.enqueue("long")

    bench.work()

    assert waited
    assert waited[0] < 1.0


def test_without_a_delay_each_outcome_is_written_at_once(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    unfinished: list[int] = []

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        unfinished.append(bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"))

    bench = make_bench(catalog, settle_delay_ms=0)
    _grow_prefetch(bench, to=4)
    unfinished.clear()
    for _ in range(4):
        bench.enqueue("test")

    bench.work()

    assert unfinished == [4, 3, 2, 1]


def _grow_prefetch(bench: Bench, *, to: int) -> None:
    bench.worker._prefetch.size = to  # a batch of a known size, which short jobs would reach by themselves


def test_a_job_that_waited_too_long_behind_another_goes_back(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    ran: list[str] = []

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        ran.append(str(context.job_id))
        if len(ran) == 1:
            time.sleep(0.6)

    bench = make_bench(catalog)
    _grow_prefetch(bench, to=3)
    jobs = [bench.enqueue("test") for _ in range(3)]

    assert bench.worker.tick() == 0.0

    assert ran == jobs[:1]
    bench.worker.tick()
    released = bench.scalar("SELECT count(*) FROM runledger.job_events WHERE event_type = 'RELEASED'")
    assert released == 2
    bench.work()
    assert sorted(ran) == sorted(jobs)
    assert {bench.job(one).attempt for one in jobs} == {1}


def test_a_stopping_worker_gives_back_what_it_has_not_begun(make_bench: MakeBench) -> None:
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        bench.worker.stop()
        assert context.is_stopping

    bench = make_bench(catalog)
    _grow_prefetch(bench, to=3)
    first, *others = [bench.enqueue("test") for _ in range(3)]

    assert bench.worker.tick() == 0.0
    assert bench.worker.tick() is None

    assert bench.job(first).status is JobStatus.SUCCEEDED
    assert {(bench.job(one).status, bench.job(one).attempt) for one in others} == {(JobStatus.PENDING, 0)}
    assert bench.slot.state is SlotState.LEAVING
    assert bench.scalar("SELECT count(*) FROM runledger.job_leases") == 0


def test_a_worker_that_is_told_to_stop_claims_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None))
    job_id = bench.enqueue("test")
    bench.worker.stop()

    assert bench.worker.tick() is None

    assert bench.job(job_id).status is JobStatus.PENDING


def test_a_quiet_worker_claims_nothing_and_stays(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None))
    job_id = bench.enqueue("test")
    bench.slot.set_quiet(True)
    assert (bench.worker.tick() or 0.0) > 0.0
    assert bench.job(job_id).status is JobStatus.PENDING

    bench.slot.set_quiet(False)
    bench.work()

    assert bench.job(job_id).status is JobStatus.SUCCEEDED


def test_a_worker_claims_only_what_its_catalog_has(make_bench: MakeBench) -> None:
    catalog = returning(None)
    bench = make_bench(catalog)
    other = JobCatalog()
    other.job("foreign")(lambda context, payload: None)
    other.sync_definitions(bench.connection)
    foreign = bench.enqueue("foreign")

    own = bench.run("test")

    assert bench.job(own).status is JobStatus.SUCCEEDED
    assert bench.job(foreign).status is JobStatus.PENDING


def test_a_draining_worker_leaves_when_nothing_is_left(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None), is_draining=True)
    bench.enqueue("test")
    assert bench.worker.tick() == 0.0

    assert bench.worker.tick() is None

    assert bench.slot.state is SlotState.LEAVING


def test_a_draining_worker_waits_for_a_retry_that_is_still_to_come(make_bench: MakeBench) -> None:
    bench = make_bench(returning(ValueError("again")), is_draining=True)

    bench.run("test")

    assert bench.worker.tick() is not None


def _end_session(bench: Bench, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'runledger:worker-0' AND datname = current_database()"
        )


def test_an_outcome_survives_the_end_of_the_session(make_bench: MakeBench, database_url: str) -> None:
    bench = make_bench(returning("kept"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    assert bench.attempts(job_id) == []

    _end_session(bench, database_url)
    with pytest.raises(DatabaseUnavailable):
        bench.worker.tick()
    bench.work()

    assert bench.job(job_id).output == "kept"
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SUCCEEDED]


def test_a_late_outcome_of_a_reaped_job_is_refused(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(returning("late"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    age_lease(bench.connection, job_id, seconds=120)
    with bench.connection.transaction():
        reap_lapsed_leases(bench.connection)

    bench.worker.tick()

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.LEASE_EXPIRED]
    assert bench.job(job_id).output is None


def test_a_refused_outcome_is_not_logged_as_confirmed(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(exchange, "log", lambda level, event, **fields: said.append(event))
    bench = make_bench(returning("late"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    age_lease(bench.connection, job_id, seconds=120)
    with bench.connection.transaction():
        reap_lapsed_leases(bench.connection)

    bench.worker.tick()

    assert said == ["job.lease_lost"]


def test_a_lease_that_somebody_has_locked_holds_up_no_other_job(
    make_bench: MakeBench, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LOCKED_AGAIN_SECONDS", 0.0)
    bench = make_bench(returning("done"), settle_delay_ms=10_000)
    locked = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    other = bench.enqueue("test")
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT FROM runledger.job_leases WHERE job_id = %s FOR UPDATE", (locked,))
        for _ in range(10):
            bench.worker.tick()
        assert [one.outcome for one in bench.attempts(other)] == [Outcome.SUCCEEDED]
        assert bench.attempts(locked) == []

    bench.work()

    assert [one.outcome for one in bench.attempts(locked)] == [Outcome.SUCCEEDED]


def test_a_worker_that_dies_with_an_outcome_set_aside_leaves_a_row_of_that_attempt(
    make_bench: MakeBench, database_url: str
) -> None:
    bench = make_bench(returning("done"), settle_delay_ms=10_000)
    locked = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT FROM runledger.job_leases WHERE job_id = %s FOR UPDATE", (locked,))
        bench.worker.tick()
    bench.enqueue("test")
    assert bench.worker.tick() == 0.0, "the next job is claimed and run meanwhile"
    obituary = write_obituary(
        bench.worker._slot, "test.0.1", cause="crash", wait_status=signal.SIGKILL, cpu_seconds=0.0, max_rss_kb=0
    )

    with bench.connection.transaction():
        settle_dead_worker(bench.connection, obituary.death())

    [attempt] = bench.attempts(locked)
    assert (attempt.attempt, attempt.error_code) == (1, "job.outcome_lost")
    assert len(obituary.begun) == 2
