"""How a host begins, and how it refuses to: each reason has its status and its line."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from runtime.hosts import Desk, Host, until

from runledger import JobStatus
from runledger.testing.databases import connect_as_admin, create_database, database_url, drop_database

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
CONFIGURATION = 78


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("raises_on_import:catalog", "NameError: name 'undefined_name' is not defined"),
        ("exits_on_import:catalog", "SystemExit: 3"),
    ],
)
def test_an_app_that_cannot_be_loaded_ends_the_host_with_one_clean_line(
    start_host: StartHost, app: str, said: str
) -> None:
    host = start_host(app=app)

    assert host.wait() == CONFIGURATION

    [line] = host.events("process.misconfigured")
    assert said in line["error"]
    assert f"{app.partition(':')[0]}.py, line " in line["error"]
    assert line["code"] == "config.app_not_importable"
    assert "Traceback" not in host.log
    assert host.living() == []


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("DELETE FROM runledger.runledger_migration_history WHERE version = (SELECT max(version) FROM"
         " runledger.runledger_migration_history)", "schema.behind"),
        ("DROP SCHEMA runledger CASCADE", "schema.missing"),
    ],
)  # fmt: skip
def test_a_schema_that_does_not_fit_ends_the_host(desk: Desk, start_host: StartHost, damage: str, code: str) -> None:
    desk.connection.execute(damage)
    host = start_host()

    assert host.wait() == CONFIGURATION

    lines = host.events("process.misconfigured")
    assert code in {line["code"] for line in lines}
    assert "Traceback" not in host.log
    assert host.living() == []


def test_an_unusable_database_url_ends_the_host_and_is_not_repeated(start_host: StartHost) -> None:
    host = start_host(url="mysql://root:s3cr3t@localhost/app")

    assert host.wait() == CONFIGURATION

    assert "s3cr3t" not in host.log
    assert host.living() == []


def test_a_host_waits_for_a_database_that_is_not_there_yet(
    server_url: str, database_template: str, start_host: StartHost, tmp_path: Path
) -> None:
    name = f"test_{os.getpid()}_{random.randrange(2**32):08x}"
    url = database_url(server_url, name)
    host = start_host(url=url)
    host.wait_for_event("tick.failed", 3)
    assert {said["code"] for said in host.events("tick.failed")} == {"db.unavailable"}
    with connect_as_admin(server_url) as admin:
        create_database(admin, name, template=database_template)
        try:
            late = Desk(url, tmp_path)
            until(lambda: late.scalar("SELECT count(*) FROM runledger.job_definitions") > 0, what="the definitions")
            job_id = late.one("work")
            assert late.wait_for_end(job_id).status is JobStatus.SUCCEEDED
            late.close()
            host.wait_for_event("worker.ready")
            host.wait_for_event("supervisor.ready")
            assert host.events("process.died") == []
            assert host.stop() == 0
        finally:
            drop_database(admin, name)


def test_a_host_without_its_database_still_stops_when_told_to(start_host: StartHost, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    host = start_host(url=f"postgresql://postgres@/postgres?host={quote(str(nowhere), safe='')}")
    host.wait_for_event("tick.failed", 6)
    assert host.events("worker.ready") + host.events("supervisor.ready") == []
    assert {said["error"] for said in host.events("tick.failed")} == {"local socket/postgres: no server listens there"}
    assert [said for said in host.events("tick.failed") if "\\n" in said["detail"] or "= " in said["detail"]] == []

    assert host.stop() == 0

    assert not host.events("process.killed")
    assert host.living() == []


def test_a_supervisor_with_a_second_thread_refuses_to_fork(start_host: StartHost) -> None:
    host = start_host(has_second_thread=True)

    assert host.wait() != 0

    assert "refusing to fork" in host.log
    assert host.events("worker.ready") == []
    assert host.living() == []


def test_an_app_may_start_threads_while_it_is_imported(desk: Desk, start_host: StartHost) -> None:
    job_id = desk.one("work")
    host = start_host(app="starts_thread_on_import:catalog")

    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_a_worker_that_hangs_in_its_import_is_killed_and_started_again(start_host: StartHost) -> None:
    host = start_host(app="hangs_on_import:catalog", JOBS_BOOT_TIMEOUT_SECONDS=1)

    killed = host.wait_for_event("process.killed", 2)

    assert {said["cause"] for said in killed} == {"boot"}
    assert len({said["pid"] for said in killed}) == 2
    assert host.stop() in (0, 6)
    assert host.living() == []


def test_a_stop_request_at_any_moment_of_the_start_ends_everything(desk: Desk, start_host: StartHost) -> None:
    """RL_TEST_FORK_WINDOW_TRIES raises the number; the seed is printed, so that a run can be repeated."""
    tries = int(os.environ.get("RL_TEST_FORK_WINDOW_TRIES", "40"))
    seed = int(os.environ.get("RL_TEST_FORK_WINDOW_SEED", str(random.randrange(2**32))))
    print(f"\nfork window: {tries} tries, seed {seed}")

    forker = start_host(script="many_hosts.py", tries=tries, seed=seed, JOBS_MAX_GLOBAL_CONCURRENCY=2)
    forker.wait(within=30 + tries * 10)

    ends = forker.events("try.ended")
    assert len(ends) == tries, forker.log
    assert {one["status"] for one in ends} <= {0, -signal.SIGTERM}, ends
    assert {tuple(one["left"]) for one in ends} == {()}, "children outlived their supervisor"
    assert "Traceback" not in forker.log, forker.log
    assert desk.leases() == 0
    assert sum(one["status"] == 0 for one in ends) > tries / 8, "hardly any try reached the start; it proves nothing"


def test_a_preloaded_app_is_imported_once_and_serves_every_worker(desk: Desk, start_host: StartHost) -> None:
    job_ids = desk.enqueue("noop", count=5)
    host = start_host(is_preloading=True, is_draining=True)

    assert host.wait() == 0
    assert desk.successes_per_job() == dict.fromkeys(job_ids, 1)


def test_an_app_that_starts_threads_is_not_preloaded(start_host: StartHost) -> None:
    host = start_host(app="starts_thread_on_import:catalog", is_preloading=True)

    assert host.wait() != 0
    assert "starts threads when it is imported" in host.log
    assert host.living() == []


def test_a_host_holds_one_connection_for_each_worker_and_three_more(desk: Desk, start_host: StartHost) -> None:
    wanted = ["keeper", "reaper", "scheduler", "worker-0", "worker-1"]

    start_host(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)

    until(lambda: _connections(desk) == [f"runledger:{name}" for name in wanted], what="a connection of each process")


def _connections(desk: Desk) -> list[str]:
    """Of which process each connection to the database of the test is."""
    rows = desk.connection.execute(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'runledger:%' ORDER BY application_name"
    )
    return [name for (name,) in rows]


def test_a_queue_that_no_job_type_is_in_is_named_once(start_host: StartHost) -> None:
    host = start_host(queues=["default", "typo"], JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)

    assert [(said["queue"], said["queues"]) for said in host.events("queue.has_no_job_type")] == [("typo", "default")]
    assert host.stop() == 0
