"""A standby takes over while a host and an application are at work: nobody restarts, nothing that was acknowledged is
lost, nothing happens twice; also where the old primary goes on answering."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from chaos.invariants import ALWAYS, broken
from runtime.crashing import CrashingServer
from runtime.follower import Follower, url_of_both
from runtime.hosts import Desk, Host, until

from runledger import DatabaseUnavailable, Ledger

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
QUICK_REAPER = {"JOBS_LEASE_TTL_SECONDS": 10, "JOBS_REAPER_INTERVAL_SECONDS": 1, "JOBS_REAPER_RETRY_DELAY_MS": 1_000}
RULES = {name: query for name, query in ALWAYS.items() if "chaos_effects" not in query}
TALKING = (
    "SELECT FROM pg_stat_activity WHERE application_name LIKE 'runledger%' AND wait_event IS DISTINCT FROM 'SyncRep'"
)
"""Whoever waits for a standby that has left does not hear its client hang up."""

READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"


class Caller(threading.Thread):
    """Asks for one keyed job after the other, and again under the same key when it is told that the database is not
    there. ``told`` are the ids by key."""

    def __init__(self, url: str) -> None:
        super().__init__(name="caller", daemon=True)
        self._ledger = Ledger(url, pool_size=2, timeout_seconds=2)
        self._is_over = threading.Event()
        self.told: dict[str, str] = {}
        self.refusals = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._is_over.wait(0.005):
                self._ask(f"key-{len(self.told)}")
        except Exception as error:
            self.failure = error
        finally:
            self._ledger.close()

    def _ask(self, key: str) -> None:
        try:
            self.told[key] = str(self._ledger.enqueue("noop", idempotency_key=key).job_id)
        except DatabaseUnavailable:
            self.refusals += 1

    def end(self) -> None:
        self._is_over.set()
        self.join(60)
        assert self.failure is None


def test_a_standby_takes_over_from_a_primary_that_goes_on_answering(
    primary: CrashingServer, standby: Follower, tmp_path: Path, start_host: StartHost
) -> None:
    url = url_of_both(primary, standby)
    host = start_host(url=url, JOBS_MAX_GLOBAL_CONCURRENCY=2, **QUICK_REAPER).ready(2)
    caller = Caller(url)
    caller.start()
    until(lambda: len(caller.told) > 50, what="work under way")

    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute(READ_ONLY)
        connection.execute("SELECT pg_reload_conf()")
        standby.promote()
        promoted_at = time.monotonic()
        before = len(caller.told)
        until(lambda: len(caller.told) > before + 50, what="enqueues at the new primary")
        caller.end()
        desk = Desk(standby.url, tmp_path)
        desk.wait_until_all_ended()
        print(f"\nfailover: all jobs ended {time.monotonic() - promoted_at:.1f} s after the promotion")
        until(lambda: not connection.execute(TALKING).fetchall(), what="the end of all talk with the old primary")

    assert caller.refusals > 0
    stored = dict(desk.connection.execute("SELECT idempotency_key, id::text FROM runledger.job_queue").fetchall())
    assert {key: stored[key] for key in caller.told} == caller.told
    assert set(desk.successes_per_job().values()) == {1}
    assert broken(desk.connection, RULES) == []
    assert host.events("process.died") == []
    desk.close()
    assert host.stop() == 0, host.log
