"""The floor: what a hand-written psycopg loop reaches on our tables with our statements, without the framework.

Each process settles what it ran and claims the next batch in one pipeline and one transaction, as a worker does.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

import psycopg

from benchmarks.app import JOB_TYPE
from runledger.core.results import Succeeded
from runledger.postgres.claim import CLAIM_JOBS, claim_jobs, claim_parameters
from runledger.postgres.outcomes import succeeded_parameters
from runledger.postgres.settle import SETTLE_SUCCEEDED, settle_jobs

SCHEMA = "runledger"
LEASE_TTL_SECONDS = 60.0

Loop = Callable[[str, int, Barrier], None]
"""What one process does with a URL and a number of jobs, after all of them have met at the barrier."""


def drain_with(loop: Loop, url: str, *, processes: int, batch: int) -> float:
    """Seconds from the first claim to the last settle of ``processes`` processes that drain the queue."""
    return together(loop, url, processes, batch)


def together(loop: Loop, url: str, processes: int, size: int) -> float:
    """Seconds from the moment at which all of ``processes`` are ready until the last has ended."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes + 1)
    children = [context.Process(target=loop, args=(url, size, barrier)) for _ in range(processes)]
    for child in children:
        child.start()
    barrier.wait(30)
    began = time.monotonic()
    for child in children:
        child.join()
    seconds = time.monotonic() - began
    if any(child.exitcode for child in children):
        raise RuntimeError("a process of the floor failed")
    return seconds


def hand_loop(url: str, batch: int, barrier: Barrier) -> None:
    """The texts of our statements, sent by hand."""
    run_by_hand(JOB_TYPE, None, url, batch, barrier)


def run_by_hand(job_type: str, work: Callable[[], None] | None, url: str, batch: int, barrier: Barrier) -> None:
    """The same for another type of job; ``work`` is called for each."""
    claim, settle = CLAIM_JOBS.text(SCHEMA).encode(), SETTLE_SUCCEEDED.text(SCHEMA).encode()
    wanted = claim_parameters(
        worker_id=f"floor-{os.getpid()}",
        job_types=[job_type],
        limit=batch,
        lease_ttl_seconds=LEASE_TTL_SECONDS,
        queues=None,
    )
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        barrier.wait(30)
        jobs = connection.execute(claim, wanted).fetchall()
        while jobs:
            if work is not None:
                for _ in jobs:
                    work()
            ended = succeeded_parameters([Succeeded(job[0], job[1], None, 0.001, 0.0, 0, None) for job in jobs])
            with connection.pipeline(), connection.transaction():
                settled, claimed = connection.execute(settle, ended), connection.execute(claim, wanted)
            if len(settled.fetchall()) != len(jobs):
                raise RuntimeError("a lease was lost")
            jobs = claimed.fetchall()


def functions_loop(url: str, batch: int, barrier: Barrier) -> None:
    """The same through ``claim_jobs`` and ``settle_jobs``: two round trips and the objects of the framework."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        barrier.wait(30)
        while True:
            with connection.transaction():
                jobs = claim_jobs(
                    connection,
                    worker_id=f"floor-{os.getpid()}",
                    job_types=[JOB_TYPE],
                    limit=batch,
                    lease_ttl_seconds=LEASE_TTL_SECONDS,
                )
            if not jobs:
                return
            with connection.transaction():
                settle_jobs(connection, [Succeeded(job.job_id, job.lease_token, None, 0.001) for job in jobs])
