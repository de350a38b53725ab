"""Processes that die: each death is an outcome of what ran, at once, and everything else goes on unharmed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from runtime.hosts import Desk, Host, until

from runledger import CancellationNotQuiesced, JobStatus, Outcome, Scope, cancel_job, requeue_job

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
RECOVERY_BOUND_SECONDS = 5.0


def test_a_killed_worker_is_a_panic_and_its_job_runs_again_at_once(
    desk: Desk, start_host: StartHost, record_property: Callable[[str, object], None]
) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    victim = desk.wait_for_effect(job_id)

    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    attempt = desk.wait_for_attempt(job_id, "PANICKED")
    recorded = time.monotonic() - killed_at
    replacement = desk.wait_for_effect(job_id, count=2)
    recovered = time.monotonic() - killed_at

    print(f"\nworker SIGKILL: recorded after {recorded:.3f} s, running again after {recovered:.3f} s")
    record_property("recovery_seconds", recovered)
    assert recovered < RECOVERY_BOUND_SECONDS
    assert replacement != victim
    assert attempt.exit_signal == signal.SIGKILL
    assert attempt.error_code == "job.worker_crash"
    assert attempt.max_rss_kb
    assert attempt.started_at is not None
    gate.touch()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert desk.outcomes(job_id) == ["PANICKED", "SUCCEEDED"]
    assert host.stop() == 0


def test_jobs_claimed_ahead_by_a_killed_worker_go_back_with_their_attempt(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    running = desk.one("gated", gate=str(gate), priority=5)
    behind = desk.enqueue("noop", count=150)
    host = start_host(script="hoarding_host.py").ready()
    victim = desk.wait_for_effect(running)
    held = desk.leases()
    assert held == 100

    os.kill(victim, signal.SIGKILL)
    gate.touch()
    desk.wait_until_all_ended()

    assert desk.outcomes(running) == ["PANICKED", "SUCCEEDED"]
    assert {tuple(desk.outcomes(one)) for one in behind} == {("SUCCEEDED",)}
    assert {desk.job(one).attempt for one in behind} == {1}
    reasons = desk.connection.execute(
        "SELECT reason, count(*) FROM runledger.job_events WHERE event_type = 'RELEASED' GROUP BY reason"
    ).fetchall()
    assert reasons == [("its worker died before the job began", held - 1)]
    assert host.stop() == 0


@pytest.mark.parametrize("status", [0, 78])
def test_a_handler_that_ends_the_process_has_not_succeeded(desk: Desk, start_host: StartHost, status: int) -> None:
    job_id = desk.one("exits", status=status, max_attempts=1)
    host = start_host().ready()

    job = desk.wait_for_end(job_id)

    assert job.status is JobStatus.DEAD_LETTERED
    [attempt] = desk.attempts(job_id)
    assert (attempt.outcome, attempt.error_code, attempt.exit_signal) == (Outcome.PANICKED, "job.worker_crash", None)
    assert f"exit status {status}" in (attempt.error_message or "")
    other = desk.one("work")
    assert desk.wait_for_end(other).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_a_segmentation_fault_is_recorded_with_its_signal_and_retried(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("segfault.once")
    host = start_host()

    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED

    first, second = desk.attempts(job_id)
    assert (first.outcome, first.exit_signal) == (Outcome.PANICKED, signal.SIGSEGV)
    assert second.outcome is Outcome.SUCCEEDED
    assert host.stop() == 0


def test_a_job_that_keeps_killing_its_worker_ends_when_the_crash_budget_is_spent(
    desk: Desk, start_host: StartHost
) -> None:
    poison = desk.one("segfault")
    others = desk.enqueue("work", count=10)
    host = start_host()

    job = desk.wait_for_end(poison)

    assert (job.status, job.status_reason) == (JobStatus.DEAD_LETTERED, "CRASH_BUDGET_SPENT")
    assert desk.outcomes(poison) == ["PANICKED"] * 3
    desk.wait_until_all_ended()
    assert set(desk.successes_per_job().values()) == {0, 1}
    codes = {attempt.error_code for one in others for attempt in desk.attempts(one)}
    assert codes <= {None, "job.outcome_lost"}, "neighbours may at most lose an outcome that waited to be written"
    assert host.stop() == 0


def test_many_jobs_that_kill_their_worker_do_not_take_the_host_down(desk: Desk, start_host: StartHost) -> None:
    poison = desk.enqueue("segfault", count=5)
    host = start_host()

    desk.wait_until_all_ended()

    assert {tuple(desk.outcomes(one)) for one in poison} == {("PANICKED",) * 3}
    after = desk.one("work")
    assert desk.wait_for_end(after, within=10).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


@pytest.mark.parametrize(("position", "role"), [(0, "keeper"), (1, "reaper"), (2, "scheduler")])
def test_a_killed_attendant_of_the_host_is_replaced_while_jobs_run(
    desk: Desk, start_host: StartHost, position: int, role: str
) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)
    victim = host.children()[position]

    os.kill(victim, signal.SIGKILL)
    [died] = host.wait_for_event("process.died")
    until(lambda: len(host.children()) == 4 and victim not in host.children(), what="a replacement")

    assert (died["role"], died["pid"], died["status"]) == (role, victim, -signal.SIGKILL)
    assert worker in host.children()
    gate.touch()
    assert desk.wait_for_end(job_id).attempt == 1
    assert host.stop() == 0


def test_a_replaced_keeper_still_settles_the_next_death(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)
    keeper = host.children()[0]

    os.kill(keeper, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)

    assert desk.wait_for_attempt(job_id, "PANICKED", within=RECOVERY_BOUND_SECONDS).exit_signal == signal.SIGKILL
    gate.touch()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_idle_children_end_with_a_killed_supervisor(desk: Desk, start_host: StartHost) -> None:
    host = start_host(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    assert len(host.living()) == 6

    killed_at = time.monotonic()
    host.send(signal.SIGKILL)
    host.wait_until_gone()

    print(f"\nsupervisor SIGKILL: last child gone after {time.monotonic() - killed_at:.3f} s")


def test_a_killed_supervisor_takes_its_workers_along_and_their_leases_go_back(
    desk: Desk, start_host: StartHost
) -> None:
    gate = desk.gate()
    job_id = desk.one("insistent", gate=str(gate))
    waiting = desk.enqueue("work", count=5)
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    killed_at = time.monotonic()
    host.send(signal.SIGKILL)
    until(lambda: desk.leases() == 0, what="the return of the lease")
    given_back = time.monotonic() - killed_at
    host.wait_until_gone()

    print(f"\nsupervisor SIGKILL in a job: its lease was back after {given_back:.3f} s")
    assert given_back < RECOVERY_BOUND_SECONDS
    assert desk.outcomes(job_id) == ["RELEASED"]
    assert {(desk.job(one).status, desk.job(one).attempt) for one in [job_id, *waiting]} == {(JobStatus.PENDING, 0)}


def test_leases_of_a_host_that_died_as_a_whole_are_recovered_by_another(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    lost = start_host().ready()
    desk.wait_for_effect(job_id)
    os.kill(lost.pid_of("keeper"), signal.SIGSTOP)  # it would give the lease back before it is killed itself
    lost.end()
    assert desk.leases() == 1

    desk.age_leases(120)
    host = start_host(JOBS_REAPER_INTERVAL_SECONDS=1, JOBS_REAPER_RETRY_DELAY_MS=1000).ready()
    desk.wait_for_effect(job_id, count=2)
    gate.touch()

    assert desk.wait_for_end(job_id).attempt == 2
    assert desk.outcomes(job_id) == ["LEASE_EXPIRED", "SUCCEEDED"]
    assert host.stop() == 0


def test_a_stopped_worker_that_wakes_after_its_lease_cannot_finish_the_job(desk: Desk, start_host: StartHost) -> None:
    """Its keeper stands still as well: nobody interrupts the handler, which ends as if nothing had happened."""
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(JOBS_REAPER_INTERVAL_SECONDS=1, JOBS_REAPER_RETRY_DELAY_MS=1000).ready()
    worker, keeper = desk.wait_for_effect(job_id), host.pid_of("keeper")

    os.kill(keeper, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    desk.age_leases(120)
    desk.wait_for_attempt(job_id, "LEASE_EXPIRED")
    gate.touch()
    os.kill(worker, signal.SIGCONT)

    [refused] = host.wait_for_event("job.lease_lost")
    os.kill(keeper, signal.SIGCONT)
    assert (refused["job_id"], refused["recorded"]) == (job_id, "LEASE_EXPIRED")
    assert desk.wait_for_end(job_id).attempt == 2
    assert desk.outcomes(job_id) == ["LEASE_EXPIRED", "SUCCEEDED"]
    assert desk.effects(job_id) == ["begun", "ended"] * 2
    assert host.stop() == 0


def test_a_handler_whose_lease_is_gone_is_interrupted(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(JOBS_REAPER_INTERVAL_SECONDS=1, JOBS_REAPER_RETRY_DELAY_MS=1000).ready()
    desk.wait_for_effect(job_id)

    desk.age_leases(120)
    host.wait_for_event("job.attempt_void")
    gate.touch()

    assert desk.wait_for_end(job_id).attempt == 2
    assert desk.outcomes(job_id) == ["LEASE_EXPIRED", "SUCCEEDED"]
    assert desk.effects(job_id) == ["begun", "begun", "ended"]
    assert host.stop() == 0


def test_a_cancelled_job_can_be_requeued_as_soon_as_its_handler_has_ended(desk: Desk, start_host: StartHost) -> None:
    """Not only when the lease would have ended, a minute later."""
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    keeper = host.pid_of("keeper")
    os.kill(keeper, signal.SIGSTOP)
    cancel_job(desk.connection, job_id, scope=Scope.any())
    with pytest.raises(CancellationNotQuiesced):
        requeue_job(desk.connection, job_id, scope=Scope.any())
    os.kill(keeper, signal.SIGCONT)
    host.wait_for_event("job.attempt_void")
    quiesces_at = "SELECT quiesces_at FROM runledger.job_queue WHERE id = %s"
    until(lambda: desk.scalar(quiesces_at, job_id) is None, what="the note that the attempt has ended")
    gate.touch()

    assert requeue_job(desk.connection, job_id, scope=Scope.any()) == 2
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_a_cancelled_handler_that_goes_on_is_killed_after_the_grace(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("insistent", gate=str(desk.gate()))
    host = start_host(JOBS_TIMEOUT_GRACE_SECONDS=1).ready()
    desk.wait_for_effect(job_id)

    cancel_job(desk.connection, job_id, scope=Scope.any())
    [killed] = host.wait_for_event("process.killed")
    next_id = desk.one("work")

    assert (killed["role"], killed["cause"]) == ("worker", "canceled")
    assert desk.wait_for_end(next_id).status is JobStatus.SUCCEEDED
    assert desk.job(job_id).status is JobStatus.CANCELED
    assert desk.outcomes(job_id) == ["CANCELED"]
    assert desk.effects(job_id) == ["begun"]
    assert host.stop() == 0


def test_what_a_handler_started_ends_with_its_killed_worker(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("leaves.child", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)
    grandchildren = [int(pid) for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]

    os.kill(worker, signal.SIGKILL)
    desk.wait_for_effect(job_id, count=2)

    until(lambda: not set(grandchildren) & set(host.living()), what="the end of the grandchild")
    gate.touch()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_a_worker_whose_session_was_ended_by_the_server_loses_nothing(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    with psycopg.connect(desk.url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'runledger:%%'"
        )
    gate.touch()

    assert desk.wait_for_end(job_id).attempt == 1
    assert desk.outcomes(job_id) == ["SUCCEEDED"]
    assert host.stop() == 0
