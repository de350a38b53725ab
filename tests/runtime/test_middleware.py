"""What middleware sees of an attempt, and what an attempt becomes of what middleware does."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from runtime.benches import Bench

from runledger import (
    Continue,
    InvalidConfiguration,
    JobCatalog,
    JobContext,
    JobFailure,
    JobStatus,
    JobTimeout,
    Middleware,
    Outcome,
    Scope,
    SettledAttempt,
    Snooze,
)
from runledger.postgres.operations import cancel_job
from runledger.runtime.interrupts import CANCEL_SIGNAL

MakeBench = Callable[..., Bench]


class Recorder(Middleware):
    """Notes everything, and how each attempt left."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes
        self.settled: list[SettledAttempt] = []
        self.threads: set[int] = set()

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        self.notes.append(f"{self.name} in")
        try:
            return proceed()
        except BaseException as error:
            self.notes.append(f"{self.name} {type(error).__name__}")
            raise
        finally:
            self.notes.append(f"{self.name} out")

    def on_settled(self, attempt: SettledAttempt) -> None:
        self.settled.append(attempt)
        self.threads.add(threading.get_ident())


def catalog_of(handler: Callable[[JobContext, Any], Any], *middleware: Middleware) -> JobCatalog:
    catalog = JobCatalog(timeout_seconds=30)
    catalog.job("test")(handler)
    for one in middleware:
        catalog.use(one)
    return catalog


def around(act: Callable[[Callable[[], Any]], Any]) -> Middleware:
    class Acting(Middleware):
        def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
            return act(proceed)

    return Acting()


def raising(error: BaseException) -> Any:
    raise error


def test_the_first_middleware_is_the_outermost_and_sees_headers_and_payload(make_bench: MakeBench) -> None:
    notes: list[str] = []
    seen: list[Any] = []

    def handler(context: JobContext, payload: Any) -> str:
        notes.append("handler")
        return "done"

    class Looking(Middleware):
        def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
            seen.append((dict(context.headers), payload, context.attempt))
            return proceed()

    bench = make_bench(catalog_of(handler, Recorder("a", notes), Recorder("b", notes), Looking()))
    job = bench.job(bench.run("test", {"n": 1}, headers={"trace": "1"}))

    assert (job.status, job.output) == (JobStatus.SUCCEEDED, "done")
    assert notes == ["a in", "b in", "handler", "b out", "a out"]
    assert seen == [({"trace": "1"}, {"n": 1}, 1)]


def test_types_registered_after_use_are_surrounded_too(make_bench: MakeBench) -> None:
    notes: list[str] = []
    catalog = JobCatalog()
    catalog.use(Recorder("a", notes))
    catalog.job("test")(lambda context, payload: None)
    make_bench(catalog).run("test")
    assert notes == ["a in", "a out"]


def test_on_settled_tells_how_an_attempt_ended_after_its_commit(make_bench: MakeBench) -> None:
    recorder = Recorder("a", [])

    def handler(context: JobContext, payload: Any) -> None:
        if context.attempt == 1:
            raise JobFailure.retryable("mail.busy", "later", retry_after=60)

    bench = make_bench(catalog_of(handler, recorder))
    job_id = bench.run("test", headers={"trace": "1"})

    [attempt] = recorder.settled
    assert (str(attempt.job_id), attempt.outcome, attempt.final_status) == (job_id, Outcome.RETRYABLE, None)
    assert (attempt.error_code, attempt.error_message, attempt.retry_seconds) == ("mail.busy", "later", 60)
    assert (attempt.headers, attempt.worker_id, attempt.attempt) == ({"trace": "1"}, "test.0.1", 1)
    assert 0 <= attempt.seconds < 30
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.RETRYABLE]
    assert recorder.threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("ending", "outcome", "final_status"),
    [
        (None, Outcome.SUCCEEDED, JobStatus.SUCCEEDED),
        (JobFailure.terminal("a.b", "c"), Outcome.TERMINAL, JobStatus.DEAD_LETTERED),
        (Snooze(60), Outcome.SNOOZED, None),
        (Continue(60), Outcome.SUCCEEDED, None),
        (JobTimeout("late"), Outcome.TIMEOUT, None),
        (SystemExit(3), Outcome.RETRYABLE, None),
    ],
)
def test_every_way_to_end_passes_through_and_is_told(
    make_bench: MakeBench, ending: Any, outcome: Outcome, final_status: JobStatus | None
) -> None:
    notes: list[str] = []
    recorder = Recorder("a", notes)
    bench = make_bench(catalog_of(lambda context, payload: ending and raising(ending), recorder))
    bench.run("test")
    assert notes == ["a in", *([f"a {type(ending).__name__}"] if ending else []), "a out"]
    [attempt] = recorder.settled
    assert (attempt.outcome, attempt.final_status) == (outcome, final_status)


def test_an_attempt_finished_in_the_handlers_transaction_is_told_as_succeeded(make_bench: MakeBench) -> None:
    recorder = Recorder("a", [])
    bench = make_bench(JobCatalog())

    def handler(context: JobContext, payload: Any) -> None:
        with bench.connection.transaction():
            context.finish(bench.connection, "stored")

    bench = make_bench(catalog_of(handler, recorder))
    assert bench.job(bench.run("test")).output == "stored"
    [attempt] = recorder.settled
    assert (attempt.outcome, attempt.final_status, attempt.error_code) == (
        Outcome.SUCCEEDED,
        JobStatus.SUCCEEDED,
        None,
    )


def test_a_timeout_interrupts_a_handler_through_middleware(make_bench: MakeBench) -> None:
    notes: list[str] = []

    def handler(context: JobContext, payload: Any) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            time.sleep(0.01)

    bench = make_bench(catalog_of(handler, Recorder("a", notes)))
    job_id = bench.run("test", timeout_seconds=1)
    assert notes == ["a in", "a JobTimeout", "a out"]
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.TIMEOUT]


def test_a_cancellation_interrupts_through_middleware_and_nothing_is_settled(make_bench: MakeBench) -> None:
    recorder = Recorder("a", [])

    def handler(context: JobContext, payload: Any) -> None:
        cancel_job(bench.connection, context.job_id, reason="test", actor="test", scope=Scope.any())
        bench.slot.interrupt(context.lease_token)
        os.kill(os.getpid(), CANCEL_SIGNAL)
        time.sleep(30)

    bench = make_bench(catalog_of(handler, recorder))
    assert bench.job(bench.run("test")).status == JobStatus.CANCELED
    assert (recorder.notes, recorder.settled) == (["a in", "a JobCancelled", "a out"], [])


def test_an_exception_of_middleware_fails_the_attempt_like_the_handlers_own(make_bench: MakeBench) -> None:
    inner = around(lambda proceed: (proceed(), raising(ValueError("after")))[0])
    bench = make_bench(catalog_of(lambda context, payload: "done", inner))
    [attempt] = bench.attempts(bench.run("test"))
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRYABLE, "exception.ValueError")


def test_what_comes_out_of_middleware_is_the_attempt(make_bench: MakeBench) -> None:
    def swallow(proceed: Callable[[], Any]) -> Any:
        try:
            return proceed()
        except ValueError:
            return "swallowed"

    bench = make_bench(catalog_of(lambda context, payload: raising(ValueError()), around(swallow)))
    job = bench.job(bench.run("test"))
    assert (job.status, job.output) == (JobStatus.SUCCEEDED, "swallowed")


def test_a_handler_that_middleware_never_reaches_does_not_run(make_bench: MakeBench) -> None:
    bench = make_bench(catalog_of(lambda context, payload: raising(AssertionError()), around(lambda proceed: 7)))
    assert bench.job(bench.run("test")).output == 7


def test_an_exception_in_on_settled_is_logged_and_others_are_told(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Middleware):
        def on_settled(self, attempt: SettledAttempt) -> None:
            raise ValueError("broken")

        def on_worker_exit(self) -> None:
            raise ValueError("broken")

    recorder = Recorder("a", [])
    bench = make_bench(catalog_of(lambda context, payload: None, Broken(), recorder))
    bench.run("test")
    bench.worker.end()
    assert len(recorder.settled) == 1
    assert [one.message for one in caplog.records if "middleware" in one.message] == [
        "middleware.on_settled_failed",
        "middleware.on_worker_exit_failed",
    ]


def test_only_middleware_can_be_used() -> None:
    with pytest.raises(InvalidConfiguration, match="derives from"):
        JobCatalog().use(object())  # type: ignore[arg-type]
