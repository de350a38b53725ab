"""What a worker claims, gives back, and leaves to others: ticks over a real database and without any process."""

import time
from collections.abc import Callable
from typing import Any

from runtime.benches import Bench, grow_prefetch, returning
from runtime.hosts import until

from runledger import (
    JobCatalog,
    JobContext,
    JobStatus,
)
from runledger.runtime.slots import SlotState

MakeBench = Callable[..., Bench]


def test_a_job_that_waited_too_long_behind_another_goes_back(make_bench: MakeBench) -> None:
    catalog = JobCatalog()
    ran: list[str] = []

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        ran.append(str(context.job_id))
        if len(ran) == 1:
            time.sleep(0.6)

    bench = make_bench(catalog)
    grow_prefetch(bench, to=3)
    jobs = [bench.enqueue("test") for _ in range(3)]

    assert bench.worker.tick() == 0.0

    assert ran == jobs[:1]
    bench.worker.tick()
    released = bench.scalar("SELECT count(*) FROM runledger.job_events WHERE event_type = 'RELEASED'")
    assert released == 2
    until(
        lambda: bench.work() or len(ran) == len(jobs), what="their turn"
    )  # it is below the waterline, if there is one
    assert sorted(ran) == sorted(jobs)
    assert {bench.job(one).attempt for one in jobs} == {1}


def test_a_stopping_worker_gives_back_what_it_has_not_begun(make_bench: MakeBench) -> None:
    catalog = JobCatalog()

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        bench.worker.stop()
        assert context.is_stopping

    bench = make_bench(catalog)
    grow_prefetch(bench, to=3)
    first, *others = [bench.enqueue("test") for _ in range(3)]

    assert bench.worker.tick() == 0.0
    assert bench.worker.tick() is None

    assert bench.job(first).status is JobStatus.SUCCEEDED
    assert {(bench.job(one).status, bench.job(one).attempt) for one in others} == {(JobStatus.PENDING, 0)}
    assert bench.slot.state is SlotState.LEAVING
    assert bench.scalar("SELECT count(*) FROM runledger.job_leases") == 0


def test_a_worker_that_is_told_to_stop_claims_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None))
    job_id = bench.enqueue("test")
    bench.worker.stop()

    assert bench.worker.tick() is None

    assert bench.job(job_id).status is JobStatus.PENDING


def test_a_quiet_worker_claims_nothing_and_stays(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None))
    job_id = bench.enqueue("test")
    bench.slot.set_quiet(True)
    assert (bench.worker.tick() or 0.0) > 0.0
    assert bench.job(job_id).status is JobStatus.PENDING

    bench.slot.set_quiet(False)
    bench.work()

    assert bench.job(job_id).status is JobStatus.SUCCEEDED


def test_a_worker_claims_only_what_its_catalog_has(make_bench: MakeBench) -> None:
    catalog = returning(None)
    bench = make_bench(catalog)
    other = JobCatalog()
    other.job("foreign")(lambda context, payload: None)
    other.sync_definitions(bench.connection)
    foreign = bench.enqueue("foreign")

    own = bench.run("test")

    assert bench.job(own).status is JobStatus.SUCCEEDED
    assert bench.job(foreign).status is JobStatus.PENDING


def test_a_draining_worker_leaves_when_nothing_is_left(make_bench: MakeBench) -> None:
    bench = make_bench(returning(None), is_draining=True)
    bench.enqueue("test")
    assert bench.worker.tick() == 0.0

    assert bench.worker.tick() is None

    assert bench.slot.state is SlotState.LEAVING


def test_a_draining_worker_waits_for_a_retry_that_is_still_to_come(make_bench: MakeBench) -> None:
    bench = make_bench(returning(ValueError("again")), is_draining=True)

    bench.run("test")

    assert bench.worker.tick() is not None
