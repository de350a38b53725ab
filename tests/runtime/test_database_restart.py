"""A database that crashes under load: nothing is lost, nothing succeeds twice, nobody has to help."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from runtime.apps.hostile_jobs import catalog as hostile_catalog
from runtime.crashing import CrashingServer, crashing_server, or_skipped
from runtime.hosts import Desk, Host, until

from runledger.database import migrate
from runledger.postgres.definitions import sync_definitions

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
QUICK_REAPER = {"JOBS_REAPER_INTERVAL_SECONDS": 1, "JOBS_REAPER_RETRY_DELAY_MS": 1_000}


@pytest.fixture
def server() -> Iterator[CrashingServer]:
    with or_skipped(crashing_server()) as made:
        yield made


def test_no_job_is_lost_or_succeeds_twice_when_the_database_crashes_under_load(
    server: CrashingServer, tmp_path: Path, start_host: StartHost
) -> None:
    migrate(server.url)
    desk = Desk(server.url, tmp_path)
    sync_definitions(desk.connection, hostile_catalog.definitions)
    jobs = desk.enqueue("work", count=600)
    desk.close()
    host = start_host(url=server.url, JOBS_MAX_GLOBAL_CONCURRENCY=2, **QUICK_REAPER).ready(2)

    for crash, progress in enumerate((50, 200), start=1):
        until(lambda wanted=progress: _count_successes(server.url) >= wanted, what=f"{progress} successes")
        server.crash()
        down_at = time.monotonic()
        host.wait_for_event("tick.failed", crash)
        server.start()
        before = _count_successes(server.url)
        until(lambda known=before: _count_successes(server.url) > known, what="the next success")
        print(f"\ncrash {crash}: working again {time.monotonic() - down_at:.2f} s after the crash")

    desk = Desk(server.url, tmp_path)
    _let_lost_claims_lapse(desk)
    desk.wait_until_all_ended()
    successes = desk.successes_per_job()
    assert set(jobs) == set(successes)
    assert set(successes.values()) == {1}
    assert {len(desk.effects(one)) >= 1 for one in jobs} == {True}
    assert host.stop() == 0
    assert desk.leases() == 0
    desk.close()


def _count_successes(url: str) -> int:
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED'"
            ).fetchone()
    except psycopg.OperationalError:
        return -1
    return -1 if row is None else int(row[0])


def _let_lost_claims_lapse(desk: Desk) -> None:
    """A claim whose answer was lost is nobody's until its lease lapses; the wait for that is shortened here."""
    until(lambda: desk.scalar("SELECT count(*) FROM runledger.job_ready") == 0, what="the claim of the rest")
    marker = desk.scalar("SELECT clock_timestamp()")
    until(lambda: desk.scalar("SELECT clock_timestamp() > %s + interval '1 second'", marker), what="a second")
    desk.age_leases(120)
