"""The worst that a handler can do stays its own affair: its attempt is recorded, and the host goes on."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from runtime.hosts import Desk, Host

from runledger import JobStatus, Outcome, Scope
from runledger.postgres.operations import cancel_job

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]


@pytest.mark.parametrize("job_type", ["stubborn", "c.loop"])
def test_a_handler_that_outlasts_timeout_and_grace_is_killed(desk: Desk, start_host: StartHost, job_type: str) -> None:
    job_id = desk.one(job_type)
    other = desk.one("work", priority=-1)
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)
    begun_at = time.monotonic()

    attempt = desk.wait_for_attempt(job_id, "TIMEOUT")
    elapsed = time.monotonic() - begun_at

    print(f"\n{job_type}: killed and recorded {elapsed:.2f} s after its start (timeout 1 s, grace 1 s)")
    assert 1.5 < elapsed < 7.0
    assert (attempt.error_code, attempt.exit_signal) == ("job.timeout_exceeded", 9)
    assert desk.wait_for_end(job_id).status is JobStatus.DEAD_LETTERED
    assert desk.wait_for_end(other).status is JobStatus.SUCCEEDED
    assert worker not in host.living()
    assert [said["cause"] for said in host.events("process.killed")] == ["timeout"]
    assert host.stop() == 0


def test_a_handler_that_heeds_its_timeout_keeps_its_process(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("gated", gate=str(desk.gate()), timeout_seconds=1, max_attempts=1)
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)

    attempt = desk.wait_for_attempt(job_id, "TIMEOUT")

    assert attempt.exit_signal is None
    assert "wait_for_gate" in (attempt.traceback or "")
    assert host.worker_pids == [worker]
    assert host.stop() == 0


def test_a_handler_that_computes_without_end_ends_with_its_timeout(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("big.integer")
    host = start_host().ready()

    attempt = desk.wait_for_attempt(job_id, "TIMEOUT")

    assert attempt.error_code == "job.timeout_exceeded"
    assert attempt.exit_signal in (None, 9)
    assert host.stop() == 0


def test_a_cancel_reaches_a_running_handler_within_seconds(
    desk: Desk, start_host: StartHost, record_property: Callable[[str, object], None]
) -> None:
    job_id = desk.one("cancellable", gate=str(desk.gate()))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)

    cancelled_at = time.monotonic()
    with desk.connection.transaction():
        cancel_job(desk.connection, job_id, scope=Scope.any())
    desk.wait_for_effect(job_id, "cancelled")
    elapsed = time.monotonic() - cancelled_at

    print(f"\ncancel reached the handler after {elapsed:.3f} s")
    record_property("cancel_seconds", elapsed)
    assert elapsed < 3.0
    assert desk.job(job_id).status is JobStatus.CANCELED
    other = desk.one("work")
    assert desk.wait_for_end(other).status is JobStatus.SUCCEEDED
    assert desk.job(job_id).status is JobStatus.CANCELED
    assert host.worker_pids == [worker]
    assert host.stop() == 0


def test_a_cancelled_handler_that_goes_on_cannot_succeed(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("insistent", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    keeper = host.pid_of("keeper")
    os.kill(keeper, signal.SIGSTOP)  # it would interrupt the handler, before or in its last note
    with desk.connection.transaction():
        cancel_job(desk.connection, job_id, scope=Scope.any())
    gate.touch()
    desk.wait_for_effect(job_id, "ended")
    os.kill(keeper, signal.SIGCONT)
    other = desk.one("work")
    desk.wait_for_end(other)

    assert desk.job(job_id).status is JobStatus.CANCELED
    assert "SUCCEEDED" not in desk.outcomes(job_id)
    assert host.stop() == 0


def test_only_one_side_of_a_fork_in_a_handler_is_a_worker(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("forks")
    others = desk.enqueue("work", count=20)
    host = start_host().ready()

    desk.wait_until_all_ended()

    assert desk.job(job_id).output == "parent"
    assert desk.outcomes(job_id) == ["SUCCEEDED"]
    assert desk.effects(job_id) == ["child", "parent"]
    assert {tuple(desk.effects(one)) for one in others} == {("ran",)}
    assert len(host.living()) == 5
    assert host.stop() == 0
    assert host.living() == []


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
def test_an_exception_that_would_end_an_interpreter_is_an_ordinary_failure(
    desk: Desk, start_host: StartHost, kind: str
) -> None:
    job_id = desk.one("raises", kind=kind)
    host = start_host().ready()
    [worker] = host.worker_pids

    assert desk.wait_for_end(job_id).status is JobStatus.DEAD_LETTERED

    [attempt] = desk.attempts(job_id)
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRYABLE, f"exception.{kind}")
    assert host.worker_pids == [worker]
    assert host.stop() == 0


def test_a_handler_that_closes_every_descriptor_harms_nobody_else(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("closes.descriptors")
    host = start_host().ready()

    ended = desk.wait_for_end(job_id)
    others = desk.enqueue("work", count=10)
    desk.wait_until_all_ended()

    assert len(desk.attempts(job_id)) == 1
    assert ended.status in (JobStatus.SUCCEEDED, JobStatus.DEAD_LETTERED)
    assert {tuple(desk.outcomes(one)) for one in others} == {("SUCCEEDED",)}
    assert host.stop() == 0
    assert host.living() == []


def test_a_handler_that_leaves_threads_behind_does_not_keep_the_host_from_stopping(
    desk: Desk, start_host: StartHost
) -> None:
    job_id = desk.one("leaves.threads")
    host = start_host().ready()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED

    assert host.stop() == 0
    assert host.living() == []


def test_a_handler_that_blocks_signals_does_not_keep_the_host_from_stopping(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("blocks.term")
    host = start_host(JOBS_SHUTDOWN_TIMEOUT_SECONDS=10).ready()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED

    assert host.stop() == 0
    assert host.living() == []


def test_a_handler_that_cancels_itself_does_not_keep_its_lease(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("raises.cancelled", max_attempts=1)
    host = start_host().ready()

    ended = desk.wait_for_end(job_id, within=10)

    assert ended.status is JobStatus.DEAD_LETTERED
    assert desk.leases() == 0
    assert host.stop() == 0
