"""When the outcome of a job is written, and what becomes of it when it cannot be."""

import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench, grow_prefetch, returning

from runledger import (
    DatabaseUnavailable,
    JobCatalog,
    JobContext,
    Outcome,
)
from runledger.postgres.recovery import reap_lapsed_leases, settle_dead_worker
from runledger.runtime import exchange
from runledger.runtime.obituary import write_obituary
from runledger.testing.factories import age_lease, claim_one

MakeBench = Callable[..., Bench]


def test_an_outcome_waits_no_longer_than_the_delay_while_the_next_job_runs(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    waited: list[float] = []

    @catalog.job("quick")
    def quick(context: JobContext, payload: Any) -> None:
        pass

    @catalog.job("long", priority=-1)
    def long(context: JobContext, payload: Any) -> None:
        began = time.monotonic()
        while time.monotonic() < began + 5:
            left = bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL")
            if left == 1:
                waited.append(time.monotonic() - began)
                return
            time.sleep(0.002)

    bench = make_bench(catalog, settle_delay_ms=10)
    grow_prefetch(bench, to=8)
    for _ in range(4):
        bench.enqueue("quick")
    bench.enqueue("long")

    bench.work()

    assert waited
    assert waited[0] < 1.0


def test_without_a_delay_each_outcome_is_written_at_once(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    unfinished: list[int] = []

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        unfinished.append(bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"))

    bench = make_bench(catalog, settle_delay_ms=0)
    grow_prefetch(bench, to=4)
    unfinished.clear()
    for _ in range(4):
        bench.enqueue("test")

    bench.work()

    assert unfinished == [4, 3, 2, 1]


def _end_session(bench: Bench, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'runledger:worker-0' AND datname = current_database()"
        )


def test_an_outcome_survives_the_end_of_the_session(make_bench: MakeBench, database_url: str) -> None:
    bench = make_bench(returning("kept"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    assert bench.attempts(job_id) == []

    _end_session(bench, database_url)
    with pytest.raises(DatabaseUnavailable):
        bench.worker.tick()
    bench.work()

    assert bench.job(job_id).output == "kept"
    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.SUCCEEDED]


def test_a_late_outcome_of_a_reaped_job_is_refused(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(returning("late"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    age_lease(bench.connection, job_id, seconds=120)
    with bench.connection.transaction():
        reap_lapsed_leases(bench.connection)

    bench.worker.tick()

    assert [one.outcome for one in bench.attempts(job_id)] == [Outcome.LEASE_EXPIRED]
    assert bench.job(job_id).output is None


def test_a_refused_outcome_is_not_logged_as_confirmed(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, str, object]] = []
    monkeypatch.setattr(exchange, "log", lambda level, event, **fields: said.append((level, event, fields["recorded"])))
    bench = make_bench(returning("late"), settle_delay_ms=10_000)
    job_id = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    age_lease(bench.connection, job_id, seconds=120)
    with bench.connection.transaction():
        reap_lapsed_leases(bench.connection)

    bench.worker.tick()

    assert said == [(logging.WARNING, "job.lease_lost", "LEASE_EXPIRED")]


def test_a_lease_that_is_lost_before_its_handler_began_is_called_harmless(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[int, str, str]] = []
    monkeypatch.setattr(exchange, "log", lambda level, event, **fields: said.append((level, event, fields["meaning"])))
    bench = make_bench(returning("once"), settle_delay_ms=10_000)
    bench.work()
    bench.enqueue("test")
    job = claim_one(bench.connection, "test", worker_id="test.0.1")
    bench.worker._give_back([job], time.monotonic())
    bench.connection.execute("DELETE FROM runledger.job_leases")

    bench.worker.tick()

    [(level, event, meaning)] = said
    assert (level, event) == (logging.INFO, "job.lease_lost")
    assert meaning.startswith("harmless: ")


def test_a_lease_that_somebody_has_locked_holds_up_no_other_job(
    make_bench: MakeBench, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LOCKED_AGAIN_SECONDS", 0.0)
    bench = make_bench(returning("done"), settle_delay_ms=10_000)
    locked = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    other = bench.enqueue("test")
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT FROM runledger.job_leases WHERE job_id = %s FOR UPDATE", (locked,))
        for _ in range(10):
            bench.worker.tick()
        assert [one.outcome for one in bench.attempts(other)] == [Outcome.SUCCEEDED]
        assert bench.attempts(locked) == []

    bench.work()

    assert [one.outcome for one in bench.attempts(locked)] == [Outcome.SUCCEEDED]


def test_a_worker_that_dies_with_an_outcome_set_aside_leaves_a_row_of_that_attempt(
    make_bench: MakeBench, database_url: str
) -> None:
    bench = make_bench(returning("done"), settle_delay_ms=10_000)
    locked = bench.enqueue("test")
    assert bench.worker.tick() == 0.0
    with psycopg.connect(database_url) as somebody:
        somebody.execute("SELECT FROM runledger.job_leases WHERE job_id = %s FOR UPDATE", (locked,))
        bench.worker.tick()
    bench.enqueue("test")
    assert bench.worker.tick() == 0.0, "the next job is claimed and run meanwhile"
    obituary = write_obituary(
        bench.worker._slot, "test.0.1", cause="crash", wait_status=signal.SIGKILL, cpu_seconds=0.0, max_rss_kb=0
    )

    with bench.connection.transaction():
        settle_dead_worker(bench.connection, obituary.death())

    [attempt] = bench.attempts(locked)
    assert (attempt.attempt, attempt.error_code) == (1, "job.outcome_lost")
    assert len(obituary.begun) == 2


def test_what_was_claimed_is_run_although_a_lost_outcome_cannot_be_looked_up(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes and claim are one commit: whatever goes wrong after it, the claimed jobs are this worker's."""

    def refuse(*_: object) -> None:
        raise DatabaseUnavailable("gone for a moment")

    bench = make_bench(returning("done"), settle_delay_ms=10_000)
    lost = bench.enqueue("test")
    bench.worker.tick()  # its outcome waits for the next exchange
    age_lease(bench.connection, lost, seconds=3_600)
    reap_lapsed_leases(bench.connection, retry_after_seconds=3_600)
    job_id = bench.enqueue("test")
    monkeypatch.setattr(exchange, "stored_attempts", refuse)

    bench.work()

    assert bench.job(job_id).output == "done"
