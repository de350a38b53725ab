"""A drain runs what is due through the worker itself, says what happened, and leaves the process as it was."""

import signal
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from runledger import (
    InvalidConfiguration,
    JobCatalog,
    JobContext,
    JobFailure,
    JobRequest,
    JobStatus,
    Outcome,
    RetryPolicy,
    Snooze,
    WorkflowDagBuilder,
    enqueue_job,
    output_of,
)
from runledger.testing import CrashPoint, LedgerForTests, crash_after_claim, crash_before_settle

catalog = JobCatalog(max_attempts=2, retry=RetryPolicy(base_seconds=600, factor=1, jitter=False))
calls: list[Any] = []


@catalog.job("test.echo")
def echo(context: JobContext, payload: dict[str, Any]) -> Any:
    calls.append(payload)
    return {"attempt": context.attempt, **payload}


@catalog.job("test.fails")
def fails(context: JobContext, payload: dict[str, Any]) -> None:
    raise ValueError("told you so")


@catalog.job("test.again")
def again(context: JobContext, payload: dict[str, Any]) -> Snooze:
    return Snooze(timedelta())


@catalog.job("test.slow", timeout_seconds=1, max_attempts=1)
def slow(context: JobContext, payload: dict[str, Any]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.01)


@catalog.job("test.refuses")
def refuses(context: JobContext, payload: dict[str, Any]) -> None:
    raise JobFailure.terminal("test.refused", "never")


hourly = JobCatalog()
hourly.job("test.echo")(echo)
hourly.schedule("every-hour", cron="0 * * * *", job_type="test.echo", payload={"from": "schedule"})


@pytest.fixture
def ledger(runledger_ledger: LedgerForTests) -> LedgerForTests:
    calls.clear()
    runledger_ledger.sync(catalog)
    return runledger_ledger


def test_due_jobs_run_in_order_until_none_is_due(ledger: LedgerForTests) -> None:
    first = ledger.enqueue("test.echo", {"n": 1})
    ledger.enqueue("test.echo", {"n": 3}, delay=60)
    ledger.enqueue("test.echo", {"n": 2})

    drained = ledger.drain(catalog).check()

    assert calls == [{"n": 1}, {"n": 2}]
    assert drained.outputs == [{"attempt": 1, "n": 1}, {"attempt": 1, "n": 2}]
    assert drained.job_types == ["test.echo", "test.echo"]
    assert drained.outcomes == [Outcome.SUCCEEDED] * 2
    assert ledger.get_job(first.job_id).status is JobStatus.SUCCEEDED
    assert len(ledger.drain(catalog)) == 0


def test_what_was_to_come_is_due_after_travelling(ledger: LedgerForTests) -> None:
    ledger.enqueue("test.echo", {"n": 1}, delay=timedelta(minutes=30))
    assert len(ledger.drain(catalog)) == 0

    ledger.travel(minutes=30)

    assert ledger.drain(catalog, max_jobs=1).outputs[0]["n"] == 1


def test_a_retry_is_due_after_its_delay(ledger: LedgerForTests) -> None:
    job = ledger.enqueue("test.fails")
    assert ledger.drain(catalog).outcomes == [Outcome.RETRYABLE]
    assert len(ledger.drain(catalog)) == 0

    ledger.travel(seconds=600)
    drained = ledger.drain(catalog)

    assert [(one.attempt.attempt, one.job.status) for one in drained] == [(2, JobStatus.DEAD_LETTERED)]
    assert ledger.get_job(job.job_id).status is JobStatus.DEAD_LETTERED


def test_a_schedule_fires_for_each_hour_that_passes(ledger: LedgerForTests) -> None:
    ledger.sync(hourly, schedules=True)
    for hour in range(1, 4):
        ledger.travel(hours=1)
        assert len(ledger.drain(hourly)) == 1, f"hour {hour}"

    assert calls[0]["from"] == "schedule"


def test_failures_are_shown_with_their_tracebacks(ledger: LedgerForTests) -> None:
    ledger.enqueue("test.echo", {})
    ledger.enqueue("test.fails")
    ledger.enqueue("test.refuses")

    with pytest.raises(AssertionError, match="2 of 3 attempts failed") as failed:
        ledger.drain(catalog).check()

    assert "ValueError" in str(failed.value)
    assert "in fails" in str(failed.value)
    assert "test.refused: never" in str(failed.value)


def test_it_stops_after_so_many_jobs(ledger: LedgerForTests) -> None:
    ledger.enqueue_many([JobRequest("test.echo", {"n": n}) for n in range(3)])

    assert len(ledger.drain(catalog, max_jobs=2)) == 2
    assert calls == [{"n": 0}, {"n": 1}]
    assert len(ledger.drain(catalog)) == 1


def test_it_stops_when_told(ledger: LedgerForTests) -> None:
    jobs = ledger.enqueue_many([JobRequest("test.echo", {"n": n}) for n in range(3)])

    def is_second_done() -> bool:
        return ledger.get_job(jobs[1].job_id).status.is_final

    assert len(ledger.drain(catalog, until=is_second_done)) == 2


def test_a_condition_that_never_holds_is_a_failure(ledger: LedgerForTests) -> None:
    ledger.enqueue("test.echo", {})

    with pytest.raises(AssertionError, match="until"):
        ledger.drain(catalog, until=lambda: False)


def test_a_job_that_comes_back_for_ever_is_a_failure(ledger: LedgerForTests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runledger.testing.draining.MOST_JOBS", 5)
    ledger.enqueue("test.again")

    with pytest.raises(AssertionError, match="still due after 5"):
        ledger.drain(catalog)
    assert ledger.drain(catalog, max_jobs=3).outcomes == [Outcome.SNOOZED] * 3


def test_a_workflow_runs_to_its_end(ledger: LedgerForTests) -> None:
    run = ledger.enqueue_workflow_run(
        WorkflowDagBuilder("test.flow")
        .job("first", "test.echo", {"n": 1})
        .job("second", "test.echo", {"n": output_of("first", "attempt")})
        .after_success("second", ["first"])
        .build()
    )

    drained = ledger.drain(catalog).check()

    assert [one.job.payload for one in drained] == [{"n": 1}, {"n": 1}]
    assert ledger.get_workflow_run(run.run_id).status.is_final


def test_timeouts_are_real(ledger: LedgerForTests) -> None:
    ledger.enqueue("test.slow")

    [ran] = ledger.drain(catalog)

    assert (ran.attempt.outcome, ran.job.status) == (Outcome.TIMEOUT, JobStatus.DEAD_LETTERED)


def test_what_is_not_committed_does_not_run(ledger: LedgerForTests, runledger_db: str) -> None:
    with psycopg.connect(runledger_db) as connection:
        enqueue_job(connection, JobRequest("test.echo", {}))
        assert len(ledger.drain(catalog)) == 0
        connection.commit()
        assert len(ledger.drain(catalog)) == 1


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_worker_that_dies_after_its_claim_loses_nothing(ledger: LedgerForTests, kill: bool) -> None:
    job = ledger.enqueue("test.echo", {"n": 1})

    drained = ledger.drain(catalog, fault=crash_after_claim(kill=kill))

    assert (drained.crashed_at, len(drained)) == (CrashPoint.AFTER_CLAIM, 0)
    assert ledger.get_job(job.job_id).status is JobStatus.LEASED
    assert len(ledger.drain(catalog)) == 0
    ledger.travel(minutes=2)
    assert len(ledger.drain(catalog)) == 0  # the lease was reaped, and the retry waits
    ledger.travel(minutes=10)
    assert ledger.drain(catalog).outputs == [{"attempt": 2, "n": 1}]
    assert calls == [{"n": 1}]


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_worker_that_dies_before_it_settles_runs_the_job_again(ledger: LedgerForTests, kill: bool) -> None:
    first, second = ledger.enqueue_many([JobRequest("test.echo", {"n": n}) for n in (1, 2)])

    drained = ledger.drain(catalog, fault=crash_before_settle(job=2, kill=kill))

    assert (drained.crashed_at, drained.outputs) == (CrashPoint.BEFORE_SETTLE, [{"attempt": 1, "n": 1}])
    assert ledger.get_job(first.job_id).status is JobStatus.SUCCEEDED
    assert ledger.get_job(second.job_id).status is JobStatus.LEASED
    ledger.travel(minutes=2)
    ledger.drain(catalog)
    ledger.travel(minutes=10)
    assert ledger.drain(catalog).outputs == [{"attempt": 2, "n": 2}]


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_fault_that_nothing_reaches_is_a_failure(ledger: LedgerForTests, kill: bool) -> None:
    with pytest.raises(AssertionError, match="no job reached the fault"):
        ledger.drain(catalog, fault=crash_after_claim(kill=kill))


def test_signals_timers_and_threads_are_afterwards_as_before(ledger: LedgerForTests) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR2)]
    signal.setitimer(signal.ITIMER_REAL, 500)
    ledger.enqueue("test.echo", {})
    earlier = threading.enumerate()
    try:
        ledger.drain(catalog)

        assert [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR2)] == handlers
        assert 0 < signal.setitimer(signal.ITIMER_REAL, 0)[0] <= 500
    finally:
        signal.signal(signal.SIGALRM, before)
    for thread in threading.enumerate():
        if thread not in earlier and thread.name == "runledger-attendant":
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_it_refuses_to_run_where_timeouts_cannot_be_raised(ledger: LedgerForTests) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ledger.drain(catalog)
        except InvalidConfiguration as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)

    assert "main thread" in str(raised[0])


def test_travel_goes_forward_only(ledger: LedgerForTests) -> None:
    with pytest.raises(ValueError, match="forward"):
        ledger.travel(hours=-1)


def test_travel_moves_what_people_read_too(ledger: LedgerForTests) -> None:
    job = ledger.enqueue("test.echo", {})
    before = ledger.get_job(job.job_id)

    ledger.travel(days=1, hours=1)

    after = ledger.get_job(job.job_id)
    assert before.created_at - after.created_at == timedelta(hours=25)
