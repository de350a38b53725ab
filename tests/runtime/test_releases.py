"""New code under a running host: taken over by HUP when it can be imported, and otherwise not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.hosts import Desk, Host, until

from runledger import JobStatus

pytestmark = pytest.mark.process
StartReleased = Callable[..., Host]

WHOLE = "from hostile_jobs import catalog\n"
BROKEN = WHOLE + "def (\n"


@pytest.fixture
def release(tmp_path: Path) -> Callable[[str], None]:
    """Puts code where the host finds its app; the first release is whole."""

    def put(code: str) -> None:
        (tmp_path / "released.py").write_text(code)

    put(WHOLE)
    return put


@pytest.fixture
def start_released(release: Callable[[str], None], start_host: Callable[..., Host]) -> StartReleased:
    def start(**given: Any) -> Host:
        return start_host(app="released:catalog", PYTHONDONTWRITEBYTECODE=1, **given)

    return start


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (BROKEN, "config.app_not_importable: cannot import 'released:catalog': SyntaxError"),
        (WHOLE + "import os; os._exit(3)\n", "the import of the app ended its process (status 3)"),
    ],
)
def test_a_release_that_cannot_be_imported_changes_nothing_and_is_named(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None], code: str, reason: str
) -> None:
    host = start_released(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    workers = set(host.worker_pids)
    release(code)

    host.send(signal.SIGHUP)

    [said] = host.wait_for_event("workers.not_replaced")
    assert said["level"] == "error"
    assert reason in said["reason"]
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    assert set(host.worker_pids) == workers
    assert host.events("workers.replacing") == []
    assert host.stop() == 0


def test_a_release_whose_import_hangs_changes_nothing(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None]
) -> None:
    host = start_released(JOBS_BOOT_TIMEOUT_SECONDS=2).ready()
    workers = host.worker_pids
    release(WHOLE + "import time; time.sleep(600)\n")

    host.send(signal.SIGHUP)

    [said] = host.wait_for_event("workers.not_replaced")
    assert "cause=boot" in said["reason"]
    assert host.worker_pids == workers
    assert host.stop() == 0


def test_a_release_that_is_repaired_is_taken_over_by_the_next_hangup(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None]
) -> None:
    host = start_released().ready()
    [worker] = host.worker_pids
    release(BROKEN)
    host.send(signal.SIGHUP)
    host.wait_for_event("workers.not_replaced")
    release(WHOLE + "REPAIRED = True\n")

    host.send(signal.SIGHUP)

    host.wait_for_event("worker.ready", 2)
    assert worker not in host.children()
    assert host.stop() == 0


def test_a_schema_that_a_fresh_worker_refuses_leaves_the_old_ones_at_work(
    desk: Desk, start_released: StartReleased
) -> None:
    host = start_released().ready()
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    desk.connection.execute("ALTER TABLE runledger.runledger_migration_history RENAME TO hidden")

    host.send(signal.SIGHUP)

    [said] = host.wait_for_event("workers.not_replaced")
    assert "schema." in said["reason"]
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_hangups_that_come_close_together_replace_the_workers(desk: Desk, start_released: StartReleased) -> None:
    host = start_released().ready()

    for _ in range(3):
        host.send(signal.SIGHUP)

    host.wait_for_event("worker.ready", 2)
    assert len(host.events("workers.replacing")) >= 1
    assert host.events("workers.not_replaced") == []
    assert host.stop() == 0


def test_a_worker_that_dies_over_broken_code_is_tried_again_while_others_work_on(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None]
) -> None:
    host = start_released(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    first, second = host.worker_pids
    release(BROKEN)

    os.kill(first, signal.SIGKILL)

    [said, *_] = host.wait_for_event("worker.not_replaced")
    assert "SyntaxError" in said["reason"]
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    assert host.worker_pids == [second]
    release(WHOLE + "REPAIRED = True\n")
    host.wait_for_event("worker.ready", 3)
    assert host.stop() == 0


def test_workers_over_broken_code_are_not_replaced_for_what_they_served(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None]
) -> None:
    host = start_released(JOBS_MAX_GLOBAL_CONCURRENCY=2, JOBS_MAX_JOBS_PER_PROCESS=5).ready(2)
    first, second = host.worker_pids
    release(BROKEN)
    os.kill(first, signal.SIGKILL)
    host.wait_for_event("worker.not_replaced")

    desk.enqueue("work", count=20)
    desk.wait_until_all_ended()

    assert host.worker_pids == [second]
    assert host.stop() == 0


def test_the_last_worker_over_broken_code_ends_the_host_with_its_reason(
    desk: Desk, start_released: StartReleased, release: Callable[[str], None]
) -> None:
    host = start_released().ready()
    release(BROKEN)

    os.kill(host.worker_pids[0], signal.SIGKILL)

    assert host.wait() == 78
    [said] = host.events("supervisor.stopped")
    assert (said["level"], said["status"]) == ("error", 78)
    assert "SyntaxError" in said["reason"]
    assert host.log.splitlines()[-1].find("SyntaxError") > 0, "the last line names the reason"


def test_idle_workers_are_replaced_while_a_long_job_runs(desk: Desk, start_released: StartReleased) -> None:
    gate = desk.gate()
    job_id = desk.one("gated", gate=str(gate))
    host = start_released(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    busy = desk.wait_for_effect(job_id)
    [idle] = set(host.worker_pids) - {busy}

    host.send(signal.SIGHUP)

    host.wait_for_event("worker.ready", 3)
    assert busy in host.worker_pids
    assert idle not in host.worker_pids
    gate.touch()
    host.wait_for_event("worker.ready", 4)
    assert desk.wait_for_end(job_id).attempt == 1
    until(lambda: busy not in host.children(), what="the replacement of the other")
    assert host.stop() == 0


@pytest.mark.parametrize("is_preloading", [True, False])
def test_a_hangup_says_when_it_brings_no_new_code(start_released: StartReleased, is_preloading: bool) -> None:
    host = start_released(is_preloading=is_preloading).ready()

    host.send(signal.SIGHUP)

    [said] = host.wait_for_event("workers.replacing")
    assert (said["hint"] is not None) is is_preloading
    assert said["level"] == ("warning" if is_preloading else "info")
    assert host.stop() == 0
