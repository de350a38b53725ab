"""What a worker may not exceed: its memory, and the time its loop may stand still. And who else is none of our dead."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.apps.heavy_jobs import catalog as heavy_catalog
from runtime.hosts import REPOSITORY, Desk, Host, until

from runledger import JobStatus, Outcome
from runledger.postgres.definitions import sync_definitions

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
HEAVY: dict[str, object] = {
    "app": "runtime.apps.heavy_jobs:catalog",
    "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
}
LIMIT_MB = 200
EXIT_CONFIGURATION = 78


@pytest.fixture
def heavy_desk(desk: Desk) -> Desk:
    sync_definitions(desk.connection, heavy_catalog.definitions)
    return desk


def test_a_worker_that_grew_is_replaced_between_jobs_and_no_attempt_is_lost(
    heavy_desk: Desk, start_host: StartHost
) -> None:
    grower = heavy_desk.one("keeps", megabytes=LIMIT_MB, priority=10)
    others = heavy_desk.enqueue("light", count=20)
    host = start_host(**HEAVY, JOBS_MAX_MEMORY_MB=LIMIT_MB)

    host.wait_for_event("worker.ready", 2)
    after = heavy_desk.one("light")
    heavy_desk.wait_until_all_ended()

    large = heavy_desk.wait_for_effect(grower, "ran")
    assert heavy_desk.wait_for_effect(after, "ran") != large
    assert {tuple(heavy_desk.outcomes(one)) for one in [grower, *others, after]} == {("SUCCEEDED",)}
    assert {heavy_desk.job(one).attempt for one in [grower, *others, after]} == {1}
    assert host.events("process.died") == host.events("process.killed") == []
    assert host.stop() == 0


def test_a_worker_beyond_all_bounds_is_killed_in_its_job(heavy_desk: Desk, start_host: StartHost) -> None:
    job_id = heavy_desk.one("swells", most_megabytes=4_000)
    behind = heavy_desk.enqueue("light", count=5)
    host = start_host(**HEAVY, JOBS_MAX_MEMORY_HARD_MB=LIMIT_MB)

    job = heavy_desk.wait_for_end(job_id)

    assert job.status is JobStatus.DEAD_LETTERED
    [attempt] = heavy_desk.attempts(job_id)
    assert (attempt.outcome, attempt.error_code, attempt.exit_signal) == (
        Outcome.PANICKED,
        "job.memory_exceeded",
        signal.SIGKILL,
    )
    assert attempt.max_rss_kb is not None
    assert attempt.max_rss_kb > LIMIT_MB * 1_024
    assert {said["cause"] for said in host.events("process.killed")} == {"memory"}
    heavy_desk.wait_until_all_ended()
    assert {tuple(heavy_desk.outcomes(one)) for one in behind} == {("SUCCEEDED",)}
    assert host.stop() == 0


def test_an_idle_worker_whose_loop_stands_still_is_killed_and_replaced(desk: Desk, start_host: StartHost) -> None:
    host = start_host(script="impatient_host.py", JOBS_DATABASE_TIMEOUT_SECONDS=1).ready()
    [wedged] = host.worker_pids

    os.kill(wedged, signal.SIGSTOP)
    job_id = desk.one("work")
    [killed] = host.wait_for_event("process.killed")

    assert (killed["pid"], killed["role"], killed["cause"]) == (wedged, "worker", "wedged")
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert desk.outcomes(job_id) == ["SUCCEEDED"]
    assert host.stop() == 0


def test_a_worker_in_a_job_is_never_taken_for_wedged(desk: Desk, start_host: StartHost) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_host(script="impatient_host.py", JOBS_DATABASE_TIMEOUT_SECONDS=1).ready()
    desk.wait_for_effect(job_id)
    marker = desk.scalar("SELECT clock_timestamp()")
    until(lambda: desk.scalar("SELECT clock_timestamp() > %s + interval '3 seconds'", marker), what="three seconds")
    gate.touch()

    assert desk.wait_for_end(job_id).attempt == 1
    assert host.events("process.killed") == []
    assert host.stop() == 0


def test_orphans_that_the_supervisor_inherits_are_reaped_and_never_taken_for_workers(
    heavy_desk: Desk, start_host: StartHost
) -> None:
    gate, closed = heavy_desk.gate(), heavy_desk.gate()
    jobs = [heavy_desk.one("orphans", gate=str(one), status=EXIT_CONFIGURATION) for one in (gate, closed)]
    host = start_host(**HEAVY, script="subreaper_host.py").ready()
    worker = heavy_desk.wait_for_effect(jobs[-1], "ran")
    ended, living = (_orphan_of(one) for one in (gate, closed))
    assert {ended, living} < set(host.children())

    gate.touch()
    until(lambda: not Path(f"/proc/{ended}").exists(), what="the burial of the orphan")
    after = heavy_desk.one("light")

    assert heavy_desk.wait_for_effect(after, "ran") == worker
    assert host.events("process.died") == []
    assert host.stop() == 0, "it does not wait for an orphan that lives on"
    assert host.living() == [living]
    closed.touch()
    host.wait_until_gone()


def _orphan_of(gate: Path) -> int:
    return int(until(lambda: Path(f"{gate}.pid").exists() and Path(f"{gate}.pid").read_text(), what="an orphan"))
