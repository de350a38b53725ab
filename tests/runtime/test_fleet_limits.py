"""Workers of types of which only so many jobs may run at once, or start in a span, in the whole fleet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench
from runtime.hosts import Desk, Host, until
from runtime.pooler import pooler_before

from runledger import JobCatalog, JobContext, JobStatus, enqueue_workflow_run
from runledger.postgres.claim import claim_jobs
from runledger.postgres.definitions import sync_definitions
from runledger.postgres.settle import settle_jobs
from runledger.runtime import limits
from runledger.runtime.worker import FIRST_PAUSE_SECONDS
from runledger.testing.factories import a_definition, succeeded

MakeBench = Callable[..., Bench]
StartHost = Callable[..., Host]
LIMITED, FREE = "test.limited", "test.free"
JITTER = 1.25
APP = "limited_jobs:catalog"
PEAK = """
    SELECT max(running) FROM (SELECT sum(step) OVER (ORDER BY at, step) AS running FROM (
        SELECT leased_at, 1 FROM runledger.job_attempts UNION ALL SELECT finished_at, -1 FROM runledger.job_attempts
    ) AS history (at, step)) AS sums
"""
"""Most leases at a time, of all jobs there ever were."""


def a_catalog(max_running: int | None = 1) -> JobCatalog:
    catalog = JobCatalog()

    @catalog.job(LIMITED, max_running=max_running)
    def limited(context: JobContext, payload: Any) -> None: ...

    @catalog.job(FREE)
    def free(context: JobContext, payload: Any) -> None: ...

    return catalog


@contextmanager
def held_elsewhere(bench: Bench) -> Iterator[None]:
    """Another worker has the first job; it succeeds at the end of the block."""
    with bench.connection.transaction():
        jobs = claim_jobs(bench.connection, worker_id="other", job_types=[LIMITED], limit=1, lease_ttl_seconds=60)
    assert len(jobs) == 1
    yield
    settle_jobs(bench.connection, [succeeded(job) for job in jobs])


def statuses(bench: Bench, jobs: list[str]) -> set[JobStatus]:
    return {bench.job(one).status for one in jobs}


def test_a_worker_takes_its_jobs_one_after_the_other(make_bench: MakeBench) -> None:
    bench = make_bench(a_catalog())
    jobs = [bench.enqueue(LIMITED) for _ in range(5)]

    bench.work()

    assert statuses(bench, jobs) == {JobStatus.SUCCEEDED}


def test_a_worker_waits_for_a_place_and_does_other_work(make_bench: MakeBench) -> None:
    bench = make_bench(a_catalog())
    held, waiting, other = bench.enqueue(LIMITED), bench.enqueue(LIMITED), bench.enqueue(FREE)

    with held_elsewhere(bench):
        bench.work()
        assert bench.job(other).status is JobStatus.SUCCEEDED
        assert bench.job(waiting).status is JobStatus.PENDING
    bench.work()

    assert statuses(bench, [held, waiting]) == {JobStatus.SUCCEEDED}


def test_steps_of_a_workflow_count_like_other_jobs(make_bench: MakeBench) -> None:
    catalog = a_catalog()
    bench = make_bench(catalog)
    run = catalog.workflow("test.run").job("a", LIMITED).job("b", LIMITED).job("c", FREE).after_success("c", ["a", "b"])
    with bench.connection.transaction():
        run_id = enqueue_workflow_run(bench.connection, run.build()).run_id

    bench.work()

    status = bench.scalar("SELECT status::text FROM runledger.workflow_runs WHERE id = %s", run_id)
    assert status == "SUCCEEDED"


def test_what_another_claim_is_taking_is_looked_at_again_soon(make_bench: MakeBench) -> None:
    bench = make_bench(a_catalog(10), poll_interval_ms=5_000)
    for _ in range(6):
        bench.worker.tick()
    first, second = bench.enqueue(LIMITED), bench.enqueue(LIMITED)

    with bench.connection.transaction():
        [job] = claim_jobs(bench.connection, worker_id="other", job_types=[LIMITED], limit=1, lease_ttl_seconds=60)
        assert bench.worker.tick() <= FIRST_PAUSE_SECONDS * JITTER
        assert bench.worker.tick() <= FIRST_PAUSE_SECONDS * JITTER
    bench.work()

    assert job.job_id == first
    assert bench.job(second).status is JobStatus.SUCCEEDED


def test_a_limit_that_only_the_database_knows_is_found_out(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer workers have stored it; this one keeps it at once, and serves the type again after its next look."""
    bench = make_bench(a_catalog(None))
    bench.work()
    a_definition(bench.connection, LIMITED, max_running=1)
    held, waiting = bench.enqueue(LIMITED), bench.enqueue(LIMITED)

    with held_elsewhere(bench):
        bench.work()
        monkeypatch.setattr(limits, "LOOK_EVERY_SECONDS", 0.0)
        bench.worker._exchange._limits._look_at = 0.0
        bench.work()
        assert bench.job(waiting).status is JobStatus.PENDING
    bench.work()

    assert statuses(bench, [held, waiting]) == {JobStatus.SUCCEEDED}


def test_a_limit_that_is_lifted_is_none_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(a_catalog(1))
    bench.work()
    _, waiting = bench.enqueue(LIMITED), bench.enqueue(LIMITED)

    with held_elsewhere(bench):
        sync_definitions(bench.connection, a_catalog(None).definitions)
        bench.work()
        assert bench.job(waiting).status is JobStatus.SUCCEEDED


def test_a_worker_comes_again_when_the_rate_lets_the_next_one_start(make_bench: MakeBench) -> None:
    catalog = JobCatalog()

    @catalog.job(LIMITED, rate_limit="1/h")
    def limited(context: JobContext, payload: Any) -> None: ...

    bench = make_bench(catalog, poll_interval_ms=5_000)
    jobs = [bench.enqueue(LIMITED) for _ in range(2)]
    bench.work()
    assert [bench.job(one).status for one in jobs] == [JobStatus.SUCCEEDED, JobStatus.PENDING]
    for _ in range(8):
        bench.worker.tick()
    assert bench.worker.tick() > 1.0

    bench.connection.execute(
        "UPDATE runledger.job_starts SET started_at = clock_timestamp() - interval '3599.6 seconds'"
    )
    assert bench.worker.tick() <= 0.4

    def has_come_again() -> bool:
        bench.work()
        return statuses(bench, jobs) == {JobStatus.SUCCEEDED}

    until(has_come_again, what="the end of the span")


@pytest.mark.process
def test_two_hosts_together_run_no_more_than_the_limit_and_no_less(desk: Desk, start_host: StartHost) -> None:
    hosts = [start_host(app=APP, JOBS_MAX_GLOBAL_CONCURRENCY=3).ready(3) for _ in range(2)]
    jobs = desk.enqueue("two.at.once", count=60)

    desk.wait_until_all_ended(within=60)

    assert {desk.job(one).status for one in jobs} == {JobStatus.SUCCEEDED}
    assert desk.scalar(PEAK) == 2
    assert [host.stop() for host in hosts] == [0, 0]


@pytest.mark.process
@pytest.mark.pgbouncer
def test_a_limit_holds_behind_a_transaction_pooler(desk: Desk, start_host: StartHost, own_database: str) -> None:
    with pooler_before(own_database) as pooler:
        url = pooler.url(desk.scalar("SELECT current_database()"))
        host = start_host(app=APP, url=url, JOBS_MAX_GLOBAL_CONCURRENCY=4).ready(4)
        jobs = desk.enqueue("two.at.once", count=60)

        desk.wait_until_all_ended(within=60)

        with psycopg.connect(url) as connection:  # the lock is told by a setting that nobody else may find
            told = connection.execute("SELECT nullif(current_setting('runledger.locked_types', true), '')").fetchone()
        assert host.stop() == 0
    assert told == (None,)
    assert {desk.job(one).status for one in jobs} == {JobStatus.SUCCEEDED}
    assert desk.scalar(PEAK) == 2
