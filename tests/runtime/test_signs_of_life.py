"""A keeper, a reaper, a scheduler or a health process that stands still is replaced like one that died; one that waits
for the database, or sleeps, is not. What a keeper knew of the dead is told to the next one."""

import os
import signal
from collections.abc import Callable

import pytest
from chaos.nemesis import Fault
from runtime.hosts import Desk, Host, until
from runtime.networks import proxy_before, through

from runledger import JobStatus
from runledger.database.settings import count_hosts
from runledger.runtime.pulse import LONGEST_STEP_SECONDS, Vigil

StartHost = Callable[..., Host]
IMPATIENT = {"script": "impatient_host.py", "JOBS_DATABASE_TIMEOUT_SECONDS": 1}
BESIDE_THE_WORKERS = ("keeper", "reaper", "scheduler")
PID = 7


def still_after(vigil: Vigil, beats: int, *, now: float) -> float:
    [(pid, seconds)] = vigil.look({PID: beats}, now)
    assert pid == PID
    return seconds


def a_vigil(at: float) -> Vigil:
    vigil = Vigil()
    vigil.look({}, at)
    return vigil


def test_stillness_is_counted_until_the_next_sign_of_life() -> None:
    vigil = a_vigil(100.0)

    assert still_after(vigil, 3, now=101.0) == 0.0
    assert still_after(vigil, 3, now=102.0) == 1.0
    assert still_after(vigil, 3, now=103.5) == 2.5
    assert still_after(vigil, 4, now=104.0) == 0.0
    assert still_after(vigil, 4, now=105.0) == 1.0


def test_a_host_that_was_stopped_as_a_whole_blames_nobody() -> None:
    vigil = a_vigil(100.0)
    still_after(vigil, 3, now=101.0)

    assert still_after(vigil, 3, now=3_700.0) == LONGEST_STEP_SECONDS


def test_a_new_process_begins_without_the_stillness_of_the_one_before() -> None:
    vigil = a_vigil(100.0)
    for now in (101.0, 102.0, 103.0):
        still_after(vigil, 3, now=now)

    assert vigil.look({PID + 1: 3}, 104.0) == [(PID + 1, 0.0)]
    assert still_after(vigil, 3, now=105.0) == 0.0, "a number that comes back is another process"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql:///x", 1),
        ("postgresql://a/x", 1),
        ("postgresql://a,b:5433,c/x", 3),
        ("host=a,b hostaddr=1.1.1.1,2.2.2.2 dbname=x", 2),
        ("mysql://nonsense", 1),
    ],
)
def test_the_bound_knows_how_many_servers_a_connection_tries(url: str, hosts: int) -> None:
    assert count_hosts(url) == hosts


@pytest.mark.process
def test_what_stands_still_beside_the_workers_is_replaced_while_jobs_run(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(**IMPATIENT, health_address="127.0.0.1:0", JOBS_LEASE_TTL_SECONDS=10).ready()
    desk.wait_for_effect(job_id)
    victims = {role: host.pid_of(role) for role in (*BESIDE_THE_WORKERS, "health")}

    for victim in victims.values():
        os.kill(victim, signal.SIGSTOP)
    killed = host.wait_for_event("process.killed", len(victims))
    until(lambda: all(host.pid_of(role) != pid for role, pid in victims.items()), what="replacements")
    died = host.events("process.died")

    assert {one["role"]: one["pid"] for one in killed} == {one["role"]: one["pid"] for one in died} == victims
    assert {one["cause"] for one in [*killed, *died]} == {"wedged"}
    assert {one["status"] for one in died} == {-signal.SIGKILL}
    ends_at = desk.scalar("SELECT lease_expires_at FROM runledger.job_leases")
    until(lambda: desk.scalar("SELECT lease_expires_at FROM runledger.job_leases") > ends_at, what="a renewal")
    gate.touch()
    assert desk.wait_for_end(job_id).attempt == 1
    assert host.stop() == 0


@pytest.mark.process
def test_a_worker_that_dies_beside_a_stopped_keeper_is_settled_by_the_next_one(
    desk: Desk, start_host: StartHost
) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(**IMPATIENT).ready()
    worker = desk.wait_for_effect(job_id)

    os.kill(host.pid_of("keeper"), signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)

    assert desk.wait_for_attempt(job_id, "PANICKED").exit_signal == signal.SIGKILL
    assert host.events("process.killed")[0]["cause"] == "wedged"
    gate.touch()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


@pytest.mark.process
def test_what_a_keeper_had_read_and_not_settled_is_told_to_the_next_one(desk: Desk, start_host: StartHost) -> None:
    """Somebody holds the lease row, so the keeper knows of the death and cannot write it; then it is killed as well."""
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(job_id)
    keeper = host.pid_of("keeper")

    with desk.connection.transaction():
        desk.connection.execute("SELECT FROM runledger.job_leases FOR UPDATE")
        os.kill(worker, signal.SIGKILL)
        host.wait_for_event("worker.settle_postponed")
        os.kill(keeper, signal.SIGKILL)
        until(lambda: host.pid_of("keeper") != keeper, what="a replacement")

    attempt = desk.wait_for_attempt(job_id, "PANICKED")
    assert (attempt.error_code, attempt.exit_signal) == ("job.worker_crash", signal.SIGKILL)
    gate.touch()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


@pytest.mark.process
def test_nobody_is_replaced_because_the_database_does_not_answer_or_a_pause_is_long(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    pauses = {"JOBS_REAPER_INTERVAL_SECONDS": 3_600, "JOBS_SCHEDULE_POLL_INTERVAL_SECONDS": 3_600}
    with proxy_before(own_database) as proxy:
        host = start_host(**IMPATIENT, **pauses, url=through(proxy, own_database)).ready()
        until(lambda: desk.scalar("SELECT count(*) FROM runledger.job_listeners"), what="an idle host")
        known = {role: host.pid_of(role) for role in BESIDE_THE_WORKERS}

        proxy.break_by(Fault.BLACK_HOLE)
        until(lambda: _count_failures(host, known["keeper"]) >= 3, what="the third failure of the keeper")
        proxy.heal()
        job_id = desk.one("work")

        assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
        assert [one for one in host.events("process.killed") if one["role"] in known] == []
        assert {role: host.pid_of(role) for role in known} == known
        assert host.stop() == 0


@pytest.mark.process
def test_a_keeper_that_dies_while_the_host_stops_is_replaced_as_long_as_jobs_run(
    desk: Desk, start_host: StartHost
) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    desk.wait_for_effect(job_id)
    keeper = host.pid_of("keeper")

    host.send(signal.SIGTERM)
    host.wait_for_event("supervisor.stopping")
    os.kill(keeper, signal.SIGKILL)
    until(lambda: host.pid_of("keeper") != keeper, what="a replacement")
    gate.touch()

    assert host.wait() == 0
    assert desk.wait_for_end(job_id).attempt == 1


def _count_failures(host: Host, pid: int) -> int:
    return sum(one["pid"] == pid for one in host.events("tick.failed"))
