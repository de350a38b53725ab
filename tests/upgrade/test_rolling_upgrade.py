"""The schema moves ahead while everything works; hosts and applications of either release meet it before and after."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import psycopg
import pytest
from chaos.invariants import ALWAYS, broken
from runtime.hosts import APPS, REPOSITORY, Desk, Host, until
from upgrade.releases import NEXT, next_release

from runledger import JobStatus, Ledger
from runledger.core.errors import SchemaAhead
from runledger.database import ensure_schema_compatible, migrate
from runledger.postgres.migrations import Migration

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
OF_NEXT_RELEASE = {
    "script": str(Path(__file__).parent / "next_host.py"),
    "PYTHONPATH": os.pathsep.join(str(place) for place in (REPOSITORY, REPOSITORY / "tests", APPS)),
}
CONFIGURATION = 78
RULES = {name: query for name, query in ALWAYS.items() if "chaos_effects" not in query}
RETRIED = {"db.lock_not_available", "db.serialization_failure"}
"""What a migration may make a process say; it tries again."""

LONGEST_ENQUEUE_SECONDS = 12.0
"""A migration waits two seconds for a table, and who comes behind it as long; the rest is for a slow machine."""


def migrate_to_next_release(url: str) -> tuple[Migration, ...]:
    """As ``runledger migrate`` of that release does."""
    with mock.patch.object(sys.modules["runledger.database.migrate"], "bundled_migrations", next_release):
        return migrate(url)


class Enqueuer(threading.Thread):
    """Of this release; enqueues one job after the other until told to stop. ``failure`` is what ended it before."""

    def __init__(self, url: str) -> None:
        super().__init__(name="enqueuer", daemon=True)
        self._url = url
        self._is_over = threading.Event()
        self.jobs: list[str] = []
        self.longest = 0.0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with Ledger(self._url, pool_size=1) as ledger:
                while not self._is_over.is_set():
                    began_at = time.monotonic()
                    self.jobs.append(str(ledger.enqueue("work").job_id))
                    self.longest = max(self.longest, time.monotonic() - began_at)
                    self._is_over.wait(0.005)
        except Exception as error:
            self.failure = error

    def end(self) -> None:
        self._is_over.set()
        self.join(60)
        assert self.failure is None


def test_a_migration_under_load_loses_nothing_and_fails_nobody(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    """A report reads one of the tables when it begins, so that it has to try more than once."""
    host = start_host(JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)
    enqueuers = [Enqueuer(own_database) for _ in range(2)]
    for enqueuer in enqueuers:
        enqueuer.start()
    until(lambda: _successes(desk) > 50, what="work under way")
    done: list[tuple[Migration, ...]] = []
    migrator = threading.Thread(target=lambda: done.append(migrate_to_next_release(own_database)))

    with psycopg.connect(own_database) as report:
        report.execute("SELECT count(*) FROM runledger.job_attempts")
        migrator.start()
        until(lambda: _tries(desk) >= 1, what="a migrator that waits")
        marker = _successes(desk)
        until(lambda: _tries(desk) == 0, what="the end of its first try")
        until(lambda: _successes(desk) > marker, what="work between two tries")
        report.rollback()
    migrator.join(60)
    before = _successes(desk)
    until(lambda: _successes(desk) > before + 50, what="work on the new schema")
    for enqueuer in enqueuers:
        enqueuer.end()

    desk.wait_until_all_ended()
    assert done == [(NEXT,)]
    assert max(one.longest for one in enqueuers) < LONGEST_ENQUEUE_SECONDS
    successes = desk.successes_per_job()
    assert set(successes) == {job for one in enqueuers for job in one.jobs}
    assert set(successes.values()) == {1}
    assert {one["code"] for one in host.events("tick.failed")} <= RETRIED
    assert host.events("process.died") == []
    assert host.events("job.outcome_refused") == []
    assert broken(desk.connection, RULES) == []
    assert host.stop() == 0


def test_a_host_that_works_when_the_schema_moves_ahead_goes_on_and_replaces_what_dies(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    gate = desk.gate()
    running = desk.one("gated", gate=str(gate))
    host = start_host().ready()
    worker = desk.wait_for_effect(running)

    migrate_to_next_release(own_database)
    os.kill(worker, signal.SIGKILL)
    gate.touch()

    assert desk.wait_for_end(running).status is JobStatus.SUCCEEDED
    host.wait_for_event("schema.moved_ahead")
    for role in ("keeper", "reaper", "scheduler"):
        os.kill(_pid_of(host, role), signal.SIGKILL)
    host.send(signal.SIGHUP)
    host.wait_for_event("worker.ready", 3)
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    assert host.events("process.misconfigured") == []
    assert host.stop() == 0


def test_a_host_that_starts_behind_the_schema_claims_nothing(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    job_id = desk.one("work")
    migrate_to_next_release(own_database)

    host = start_host()

    assert host.wait() == CONFIGURATION
    _assert_refused(host, "schema.ahead", "upgrade the runledger-pg package")
    assert (desk.job(job_id).status, desk.attempts(job_id)) == (JobStatus.PENDING, [])


def test_a_host_of_the_next_release_waits_for_its_schema_by_refusing(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    job_id = desk.one("work")
    early = start_host(**OF_NEXT_RELEASE)

    assert early.wait() == CONFIGURATION
    _assert_refused(early, "schema.behind", "runledger migrate")
    assert desk.attempts(job_id) == []

    migrate_to_next_release(own_database)
    host = start_host(**OF_NEXT_RELEASE).ready()
    assert desk.wait_for_end(job_id).status is JobStatus.SUCCEEDED
    assert host.stop() == 0


def test_hosts_of_both_releases_work_side_by_side_and_the_old_one_leaves_last(
    desk: Desk, own_database: str, start_host: StartHost
) -> None:
    old = start_host()
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    migrate_to_next_release(own_database)
    new = start_host(**OF_NEXT_RELEASE).ready()
    desk.enqueue("work", count=200)
    desk.wait_until_all_ended()
    [name] = {one["host_id"] for one in new.events("supervisor.started")}

    assert set(desk.successes_per_job().values()) == {1}
    assert name in {worker.rsplit(".", 2)[0] for worker in _workers_of_attempts(desk)}
    assert new.stop() == 0
    assert desk.wait_for_end(desk.one("work")).status is JobStatus.SUCCEEDED
    assert old.stop() == 0


def test_the_migrator_of_the_old_release_refuses_a_schema_ahead_and_changes_nothing(own_database: str) -> None:
    migrate_to_next_release(own_database)

    for act in (migrate, ensure_schema_compatible):
        with pytest.raises(SchemaAhead, match=NEXT.name):
            act(own_database)

    assert migrate_to_next_release(own_database) == ()


@pytest.mark.parametrize("command", ["migrate", "reaper", "scheduler"])
def test_a_command_of_the_old_release_ends_with_a_bad_configuration(own_database: str, command: str) -> None:
    migrate_to_next_release(own_database)

    ended = subprocess.run(
        [sys.executable, "-m", "runledger", command, "--database-url", own_database],
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (CONFIGURATION, b"")
    assert NEXT.name.encode() in ended.stderr
    assert b"Traceback" not in ended.stderr


def _assert_refused(host: Host, code: str, hint: str) -> None:
    lines = host.events("process.misconfigured")
    assert {line["code"] for line in lines} == {code}
    assert hint in lines[0]["hint"]
    assert "Traceback" not in host.log
    assert host.living() == []


def _successes(desk: Desk) -> int:
    return int(desk.scalar("SELECT count(*) FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED'"))


def _tries(desk: Desk) -> int:
    """Migrators that wait for a table at this moment."""
    return int(
        desk.scalar(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND NOT granted AND mode = 'AccessExclusiveLock'"
        )
    )


def _workers_of_attempts(desk: Desk) -> list[str]:
    rows = desk.connection.execute("SELECT DISTINCT worker_id FROM runledger.job_attempts").fetchall()
    return [worker for (worker,) in rows]


def _pid_of(host: Host, role: str) -> int:
    return int([one["pid"] for one in host.events("process.started") if one["role"] == role][-1])
