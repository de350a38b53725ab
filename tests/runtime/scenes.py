"""The work of each process as a scene: what is prepared, the call that something is done to, and what must be true
at the end. Each process is an object in this one, whose connections pass a proxy.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import psycopg
from chaos.app import EFFECT
from chaos.invariants import ALWAYS, broken
from chaos.proxy import Proxy
from runtime.benches import EMPTY_ALL, Bench, KeeperBench
from runtime.hosts import Connection, until

from runledger import JobCatalog, JobContext, JobRequest, Ledger, RetryPolicy, UnavailableError, WorkflowDagBuilder
from runledger.core.results import Succeeded
from runledger.postgres import copying
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.enqueue import enqueue_jobs
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.schedules import sync_schedules
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.obituary import Obituary
from runledger.runtime.reaper import Reaper
from runledger.runtime.scheduler import Scheduler
from runledger.testing.factories import claim_one

TIMEOUT_SECONDS = 1.0
REACTION_SECONDS = 20.0
"""Of one call, on a machine that has other things to do: an application waits ten seconds for a connection, a process
two, and one for an answer."""

IS_WHOLE = bool(os.environ.get("RUNLEDGER_EVERY_FAULT"))
"""``make faults`` cuts at every point and tries every fault on everybody; otherwise some of both."""

MOST_TRIES = 60
UNFINISHED = "SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"
LAPSE = (
    "UPDATE runledger.job_leases SET leased_at = leased_at - interval '1 h', lease_expires_at = now() - interval '1 s'"
)
AGE = "UPDATE runledger.job_queue SET created_at = created_at - interval '2 h'"
DUE = "UPDATE runledger.job_scheduled SET next_run_at = now() - interval '1 s'"
DUE_SCHEDULES = "SELECT FROM runledger.job_schedules WHERE next_fire_at <= clock_timestamp()"
LOCKED = """
    SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runledger%' AND datname = current_database()"

Work = Callable[[], bool]
"""One call of the process; whether it has done all there was to do."""


@dataclass
class Stage:
    """Everything that a scene needs."""

    connection: Connection
    proxy: Proxy
    url: str
    make_bench: Callable[..., Bench]
    make_keeper: Callable[..., KeeperBench]
    open_link: Callable[..., DatabaseLink]
    links: list[DatabaseLink]
    catalog: JobCatalog

    def enqueue(self, *requests: JobRequest) -> None:
        with self.connection.transaction():
            enqueue_jobs(self.connection, requests)


def a_catalog(url: str) -> JobCatalog:
    catalog = JobCatalog(retry=RetryPolicy(base_seconds=0.01, factor=1, jitter=False), max_attempts=50, crash_budget=50)

    @catalog.job("plain")
    def plain(context: JobContext, payload: Any) -> str:
        return "done"

    @catalog.job("fails.once")
    def fail_once(context: JobContext, payload: Any) -> None:
        if context.attempt == 1:
            raise ValueError("the first attempt fails")

    @catalog.job("speaks")
    def speak(context: JobContext, payload: Any) -> None:
        context.progress(1, 2)
        context.save_checkpoint({"at": 1})
        context.log("INFO", "half way")

    @catalog.job(EFFECT)
    def have_effect(context: JobContext, payload: Any) -> None:
        with psycopg.connect(url, connect_timeout=2) as own:
            own.execute(
                "INSERT INTO chaos_effects (job_id, lease_token, worker_id) VALUES (%s, %s, %s)",
                (context.job_id, context.lease_token, context.worker_id),
            )
            context.finish(own)

    catalog.schedule("due", cron="0 3 * * *", job_type="plain")
    return catalog


def a_worker(stage: Stage) -> Work:
    bench = stage.make_bench(stage.catalog)
    bench.work()
    stage.enqueue(*(JobRequest(kind, {}) for kind in ("plain", "fails.once", "speaks", EFFECT)))
    return lambda: bench.worker.tick() != 0.0


def a_worker_of_runs(stage: Stage) -> Work:
    bench = stage.make_bench(stage.catalog)
    bench.work()
    builder = WorkflowDagBuilder("test").job("a", "plain").job("b", "plain").job("c", "plain")
    with stage.connection.transaction():
        enqueue_workflow_run(stage.connection, builder.after_success("b", ["a"]).after_terminal("c", ["a"]).build())
    return lambda: bench.worker.tick() != 0.0


def a_keeper(stage: Stage) -> Work:
    """It renews for the living, settles the dead and promotes what is due."""
    stage.make_bench(stage.catalog).work()
    bench = stage.make_keeper(2)
    alive, dead = (bench.live_in(slot, incarnation=number) for number, slot in enumerate(bench.slots, start=1))
    stage.enqueue(*(JobRequest("plain", {}) for _ in range(3)))
    held, lost = (claim_one(stage.connection, "plain", worker_id=worker) for worker in (alive, dead))
    bench.run_in(bench.slots[0], [held])
    bench.die(Obituary(dead, "crash", 0, 9, lost.lease_token, [lost.lease_token], None, None, None))
    end = Succeeded(held.job_id, held.lease_token)

    def tick() -> bool:
        pause = bench.keeper.tick()
        is_done = (
            pause is not None
            and pause > 0
            and not stage.connection.execute(
                "SELECT FROM runledger.job_leases WHERE worker_id = %s", (dead,)
            ).fetchall()
        )
        if is_done:
            settle_jobs(stage.connection, [end])
        return is_done

    return tick


def a_reaper(stage: Stage) -> Work:
    stage.make_bench(stage.catalog).work()
    stage.enqueue(JobRequest("plain", {}), JobRequest("plain", {}))
    for worker in ("gone-1", "gone-2"):
        claim_one(stage.connection, "plain", worker_id=worker)
    stage.connection.execute(LAPSE)
    stage.connection.execute(AGE)
    reaper = Reaper(stage.open_link("reaper"), JobsConfig())
    return lambda: reaper.tick() != 0.0


def a_scheduler(stage: Stage) -> Work:
    stage.make_bench(stage.catalog).work()
    sync_schedules(stage.connection, stage.catalog.schedules)
    stage.connection.execute(
        "UPDATE runledger.job_schedules SET next_slot_at = date_trunc('day', now()) - interval '21 hours',"
        " next_fire_at = date_trunc('day', now()) - interval '21 hours'"
    )
    scheduler = Scheduler(stage.open_link("scheduler"), JobsConfig())

    def tick() -> bool:
        """A cut session may keep the scheduler's lock for a moment, and a tick would leave the work to it."""
        until(lambda: not stage.connection.execute(LOCKED).fetchall(), what="the end of a session that was cut")
        scheduler.tick()
        return not stage.connection.execute(DUE_SCHEDULES).fetchall()

    return tick


def an_application(stage: Stage) -> Work:
    """It asks again under the same key until it is told an id."""
    stage.make_bench(stage.catalog).work()
    ledger = Ledger(stage.url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS)

    def enqueue() -> bool:
        try:
            return bool(ledger.enqueue("plain", {"order": 7}, idempotency_key="order-7").job_id)
        finally:
            ledger.close()

    return enqueue


def an_application_with_a_bulk(stage: Stage) -> Work:
    """Three jobs by COPY, all or none. It may not know whether they are there, so it looks, after whoever asked before
    has ended."""
    stage.make_bench(stage.catalog).work()
    requests = [JobRequest("plain", {"number": number}) for number in range(3)]

    def enqueue() -> bool:
        with (
            Ledger(stage.url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS) as ledger,
            patch.object(copying, "MINIMUM_ROWS", 1),
            ledger.begin() as connection,
        ):
            assert isinstance(connection, PsycopgConnection)
            connection.driver.execute("SELECT pg_advisory_xact_lock(1)")
            [stored] = connection.driver.execute("SELECT count(*) FROM runledger.job_queue").fetchone() or (0,)
            assert stored in (0, len(requests))
            if not stored:
                enqueue_jobs(connection, requests)
        return True

    return enqueue


SCENES: dict[str, tuple[Callable[[Stage], Work], int]] = {
    "a worker": (a_worker, 4),
    "a worker of runs": (a_worker_of_runs, 3),
    "a keeper": (a_keeper, 3),
    "a reaper": (a_reaper, 2),
    "a scheduler": (a_scheduler, 1),
    "an application": (an_application, 1),
    "an application with a bulk": (an_application_with_a_bulk, 3),
}
"""By name, with the number of jobs that there are in the end."""


def keep_at_it(work: Work) -> None:
    """Until all is done; whoever calls may be told that the database is not there, and has to be told soon."""
    for _ in range(MOST_TRIES):
        began_at = time.monotonic()
        try:
            if work():
                return
        except UnavailableError:
            pass
        assert time.monotonic() - began_at < REACTION_SECONDS
    raise AssertionError(f"not done after {MOST_TRIES} calls")


def finish(stage: Stage, jobs: int) -> None:
    """The network is well again; what nobody holds any more lapses, and a worker does the rest. Then all is as it
    should be."""
    bench = stage.make_bench(stage.catalog)
    for _ in range(MOST_TRIES):
        stage.connection.execute(AGE)
        stage.connection.execute(LAPSE)
        with stage.connection.transaction():
            reap_lapsed_leases(stage.connection)
        stage.connection.execute(DUE)
        promote_due_jobs(stage.connection)
        bench.work()
        if bench.scalar(UNFINISHED) == 0:
            break
    assert bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'") == jobs
    assert bench.scalar("SELECT count(*) FROM runledger.job_queue") == jobs
    assert broken(stage.connection, ALWAYS) == []


def empty(stage: Stage) -> None:
    """As it was before everything."""
    for link in stage.links:
        link.close()
    stage.connection.execute(f"{EMPTY_ALL}; DELETE FROM chaos_effects")
