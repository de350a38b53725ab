"""What graphs cost: to enqueue, and to advance from step to step, in one process."""

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psycopg

from benchmarks.app import JOB_TYPE
from benchmarks.ground import EMPTY, statement_calls
from benchmarks.report import Contest
from runledger.core.jobs import ClaimedJob
from runledger.core.results import Succeeded
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import WorkflowRunRequest
from runledger.postgres.claim import claim_jobs
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.runtime.exchange import Exchange
from runledger.runtime.link import DatabaseLink
from runledger.runtime.outbox import Outbox
from runledger.runtime.settled import Announcer

ENQUEUED_STEPS = (10, 100, 600)
ENQUEUES = 20
BATCH = 500
LEASE_TTL_SECONDS = 60.0
MOST_ROUNDS = 100_000

Connection = psycopg.Connection[tuple[Any, ...]]


def contests(url: str) -> list[Contest]:
    """Enqueues of three sizes; chains, many and one; fan-outs, many and one."""
    shapes = {
        "workflow 1,000 chains of 10": (chain(10), 1_000),
        "workflow one chain of 100": (chain(100), 1),
        "workflow 100 of 1-100-1": (fan(100), 100),
        "workflow one of 1-1,000-1": (fan(1_000), 1),
    }
    enqueues = [
        Contest(f"workflow enqueue {steps} steps", {"enqueue_workflow_run": partial(enqueue, url, chain(steps))})
        for steps in ENQUEUED_STEPS
    ]
    drains = [
        Contest(
            name,
            {
                "claim_jobs + settle_jobs": partial(drain, url, request, runs, functions_work),
                "the exchange of a worker": partial(drain, url, request, runs, exchange_work),
            },
        )
        for name, (request, runs) in shapes.items()
    ]
    return enqueues + drains


def chain(steps: int) -> WorkflowRunRequest:
    """Each step waits for the one before."""
    builder = WorkflowDagBuilder("bench.chain").job("0", JOB_TYPE)
    for number in range(1, steps):
        builder.job(str(number), JOB_TYPE).after_success(str(number), [str(number - 1)])
    return builder.build()


def fan(width: int) -> WorkflowRunRequest:
    """One step, ``width`` behind it, and one behind all of them."""
    keys = [f"s{number}" for number in range(width)]
    builder = WorkflowDagBuilder("bench.fan").job("first", JOB_TYPE)
    for key in keys:
        builder.job(key, JOB_TYPE).after_success(key, ["first"])
    return builder.job("last", JOB_TYPE).after_success("last", keys).build()


def enqueue(url: str, request: WorkflowRunRequest) -> Mapping[str, float]:
    """One graph for each commit, over one warm connection."""
    with _emptied(url) as connection:
        calls, began = statement_calls(url), time.monotonic()
        for _ in range(ENQUEUES):
            with connection.transaction():
                enqueue_workflow_run(connection, request)
        seconds = time.monotonic() - began
    return {"ms/graph": 1_000 * seconds / ENQUEUES} | _statements(url, calls, ENQUEUES, "graph")


def drain(url: str, request: WorkflowRunRequest, runs: int, work: Callable[[str], int]) -> Mapping[str, float]:
    """Every step of ``runs`` runs, claimed and settled in batches. Raises RuntimeError when a run did not succeed."""
    steps = runs * len(request.steps)
    with _emptied(url) as connection:
        with connection.transaction():
            for _ in range(runs):
                enqueue_workflow_run(connection, request)
        connection.execute("ANALYZE")
        calls, began = statement_calls(url), time.monotonic()
        rounds = work(url)
        seconds = time.monotonic() - began
        figures = {"steps/s": steps / seconds} | _statements(url, calls, rounds, "batch")
        row = connection.execute("SELECT count(*) FROM runledger.workflow_runs WHERE status = 'SUCCEEDED'").fetchone()
    if row != (runs,):
        raise RuntimeError(f"not every one of {runs} runs succeeded")
    return figures


def functions_work(url: str) -> int:
    """Batches until nothing is due any more, a transaction for each claim and each settle; how many."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        for rounds in range(MOST_ROUNDS):
            with connection.transaction():
                jobs = claim_jobs(
                    connection,
                    worker_id="bench",
                    job_types=[JOB_TYPE],
                    limit=BATCH,
                    lease_ttl_seconds=LEASE_TTL_SECONDS,
                )
            if not jobs:
                return rounds
            with connection.transaction():
                settle_jobs(connection, [_succeeded(job) for job in jobs])
    raise RuntimeError("the steps do not end")


def exchange_work(url: str) -> int:
    """The same as a worker does it: one transaction settles a batch and claims the next."""
    outbox, link = Outbox(0.0), DatabaseLink(url, "runledger", "bench")
    exchange = Exchange(
        link,
        outbox,
        Announcer((), "bench"),
        worker_id="bench",
        job_types=[JOB_TYPE],
        queues=None,
        lease_ttl_seconds=LEASE_TTL_SECONDS,
    )
    with contextlib.closing(link):
        for rounds in range(MOST_ROUNDS):
            jobs = exchange.settle_and_claim(BATCH)
            if not jobs:
                return rounds
            for job in jobs:
                now = time.monotonic()
                outbox.add(_succeeded(job), now, now, job)
    raise RuntimeError("the steps do not end")


def _succeeded(job: ClaimedJob) -> Succeeded:
    return Succeeded(job.job_id, job.lease_token, None, 0.001, workflow_run_id=job.workflow_run_id)


def _statements(url: str, before: int | None, count: int, of: str) -> dict[str, float]:
    if before is None:
        return {}
    return {f"statements/{of}": ((statement_calls(url) or 0) - before) / max(count, 1)}


def _emptied(url: str) -> Connection:
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
    connection.execute(EMPTY)
    connection.execute("TRUNCATE runledger.workflow_runs CASCADE")
    return connection
