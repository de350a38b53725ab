"""How a host ends: with an empty queue, by one signal, by several, and by a clock."""

import os
import signal
from collections.abc import Callable

import pytest
from runtime.hosts import Desk, Host, until

from runledger import JobStatus

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]


def test_a_draining_host_finishes_everything_and_exits(desk: Desk, start_host: StartHost) -> None:
    jobs = desk.enqueue("work", count=100)
    retried = desk.enqueue("fails.once", count=10)
    host = start_host(is_draining=True, JOBS_MAX_GLOBAL_CONCURRENCY=2)

    assert host.wait() == 0

    assert set(desk.successes_per_job().values()) == {1}
    assert {tuple(desk.effects(one)) for one in jobs} == {("ran",)}
    assert {tuple(desk.outcomes(one)) for one in retried} == {("RETRYABLE", "SUCCEEDED")}
    assert desk.leases() == 0
    assert host.living() == []


def test_a_draining_host_that_replaces_its_workers_still_finishes_everything(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    desk.one("gated", gate=str(gate))
    desk.enqueue("work", count=30)
    host = start_host(is_draining=True, JOBS_MAX_JOBS_PER_PROCESS=1).ready()
    host.send(signal.SIGHUP)
    host.wait_for_event("workers.replacing")
    gate.touch()

    assert host.wait() == 0

    assert set(desk.successes_per_job().values()) == {1}
    assert len(host.events("worker.ready")) > 1


def test_a_stopping_host_finishes_what_runs_and_gives_back_what_does_not(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    before = desk.enqueue("noop", count=20, priority=10)
    running = desk.one("gated", gate=str(gate), priority=5)
    behind = desk.enqueue("noop", count=150)
    host = start_host(script="hoarding_host.py").ready()
    desk.wait_for_effect(running)

    host.send(signal.SIGTERM)
    [said] = host.wait_for_event("supervisor.stopping")
    assert said["hint"] == "waiting up to 30 s for 1 running job; again to interrupt them"
    gate.touch()

    assert host.wait() == 0
    assert {desk.job(one).status for one in [*before, running]} == {JobStatus.SUCCEEDED}
    assert {(desk.job(one).status, desk.job(one).attempt) for one in behind} == {(JobStatus.PENDING, 0)}
    assert (
        desk.scalar("SELECT count(*) FROM runledger.job_events WHERE event_type = 'RELEASED'") == 100 - len(before) - 1
    )
    assert desk.leases() == 0
    assert desk.scalar("SELECT count(*) FROM runledger.job_listeners") == 0
    assert host.living() == []


def test_an_idle_host_stops_with_one_signal_and_leaves_no_row(desk: Desk, start_host: StartHost) -> None:
    host = start_host(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    until(lambda: desk.scalar("SELECT count(*) FROM runledger.job_listeners") == 1, what="the listener")

    assert host.stop() == 0

    assert [(said["running"], said["hint"]) for said in host.events("supervisor.stopping")] == [(0, None)]
    assert desk.scalar("SELECT count(*) FROM runledger.job_listeners") == 0
    assert host.living() == []


def test_a_second_stop_request_interrupts_what_runs_and_gives_it_back(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("cancellable", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    host.send(signal.SIGTERM)
    host.wait_for_event("supervisor.stopping")
    host.send(signal.SIGTERM)

    assert host.wait() == 0
    assert desk.effects(job_id) == ["begun", "cancelled"]
    assert desk.outcomes(job_id) == ["RELEASED"]
    assert (desk.job(job_id).status, desk.job(job_id).attempt) == (JobStatus.PENDING, 0)
    assert host.living() == []


def test_a_third_stop_request_kills_what_runs_and_gives_it_back(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("insistent", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    host.send(signal.SIGTERM)
    host.wait_for_event("supervisor.stopping")
    host.send(signal.SIGINT)
    host.wait_for_event("supervisor.interrupting")
    host.send(signal.SIGTERM)

    assert host.wait() == 6
    assert desk.outcomes(job_id) == ["RELEASED"]
    assert (desk.job(job_id).status, desk.job(job_id).attempt) == (JobStatus.PENDING, 0)
    assert desk.leases() == 0
    assert host.living() == []


def test_what_outlasts_the_shutdown_timeout_is_killed_and_given_back(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(JOBS_SHUTDOWN_TIMEOUT_SECONDS=1).ready()
    desk.wait_for_effect(job_id)

    assert host.stop() == 6

    assert desk.outcomes(job_id) == ["RELEASED"]
    assert (desk.job(job_id).status, desk.job(job_id).attempt) == (JobStatus.PENDING, 0)
    assert desk.leases() == 0
    assert host.living() == []


def test_quit_writes_stacks_and_stops_in_a_hurry(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)

    host.send(signal.SIGQUIT)

    assert host.wait(10) == 6
    assert "gated" in host.log, "the stack of the worker shows what it was doing"
    assert desk.outcomes(job_id) == ["RELEASED"]
    assert host.living() == []


def test_hangup_replaces_every_worker_without_losing_or_doubling_a_job(desk: Desk, start_host: StartHost) -> None:
    jobs = desk.enqueue("work", count=150)
    host = start_host(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    old = set(host.worker_pids)

    host.send(signal.SIGHUP)
    host.wait_for_event("worker.ready", 4)
    jobs += desk.enqueue("work", count=20)
    until(lambda: len(host.worker_pids) == 2 and not old & set(host.children()), what="the replacement")
    desk.wait_until_all_ended()

    assert {tuple(desk.effects(one)) for one in jobs} == {("ran",)}
    assert set(desk.successes_per_job().values()) == {1}
    assert host.events("process.died") == []
    assert host.stop() == 0


def test_hangup_waits_for_a_running_job(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)

    host.send(signal.SIGHUP)
    host.wait_for_event("workers.replacing")
    assert host.worker_pids == [worker]
    gate.touch()
    host.wait_for_event("worker.ready", 2)

    assert desk.wait_for_end(job_id).attempt == 1
    assert worker not in host.worker_pids
    assert host.stop() == 0


def test_workers_are_replaced_after_their_share_of_jobs(desk: Desk, start_host: StartHost) -> None:
    host = start_host(JOBS_MAX_JOBS_PER_PROCESS=3).ready()
    desk.enqueue("work", count=10)

    host.wait_for_event("worker.ready", 2)
    desk.wait_until_all_ended()

    assert set(desk.successes_per_job().values()) == {1}
    assert host.events("process.died") == []
    assert host.stop() == 0


def test_a_quiet_host_claims_nothing_until_it_is_resumed(desk: Desk, start_host: StartHost) -> None:
    host = start_host().ready()
    host.send(signal.SIGTSTP)
    host.wait_for_event("workers.quiet")
    until(lambda: desk.scalar("SELECT bool_and(state = 'QUIET') FROM runledger.job_workers"), what="the last claim")
    first = desk.one("work")
    marker = desk.scalar("SELECT clock_timestamp()")
    until(lambda: desk.scalar("SELECT clock_timestamp() > %s + interval '1 second'", marker), what="a second")
    assert desk.job(first).status is JobStatus.PENDING

    host.send(signal.SIGCONT)

    assert desk.wait_for_end(first).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_two_hosts_on_one_queue_run_each_job_once(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    first = desk.enqueue("gated", count=2, gate=str(gate), priority=5)
    jobs = desk.enqueue("work", count=200)
    hosts = [start_host(is_draining=True) for _ in range(2)]
    pids = {desk.wait_for_effect(one) for one in first}
    gate.touch()

    assert [host.wait() for host in hosts] == [0, 0]

    assert {tuple(desk.effects(one)) for one in jobs} == {("ran",)}
    assert set(desk.successes_per_job().values()) == {1}
    assert len(pids) == 2, "one host has run both; the test proves nothing"


def test_status_is_logged_on_request(desk: Desk, start_host: StartHost) -> None:
    host = start_host().ready()

    host.send(signal.SIGUSR1)

    [said] = host.wait_for_event("slot.status")
    assert said["pid"] in host.worker_pids
    assert os.getpgid(said["pid"]) == said["pid"], "each worker leads its own process group"
    assert host.stop() == 0
