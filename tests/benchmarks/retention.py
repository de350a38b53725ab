"""A drain at full speed while what ended long ago is pruned, at the pace of the reaper; beside the same drain alone."""

import multiprocessing
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import framework, ground
from benchmarks.app import JOB_TYPE, PAYLOAD
from benchmarks.growth import ATTEMPTS
from benchmarks.report import Contest
from runledger.core.jobs import Scope
from runledger.postgres.retention import PRUNED_BY_DEFAULT, Retention, prune_jobs
from runledger.runtime.sweep import BATCH_PAUSE_SECONDS

JOBS = 60_000
OLD_JOBS = 200_000
KEPT = Retention(timedelta(days=7), PRUNED_BY_DEFAULT)
HISTORY = """
INSERT INTO runledger.job_queue (id, job_type, payload, priority, max_attempts, timeout_seconds, created_at,
    finished_at, final_status, attempt)
SELECT (lpad(to_hex((extract(epoch FROM now() - interval '10 days') * 1000)::bigint + n / 100), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 5, 15))::uuid,
    %s, %s, 0, 3, 300, now() - interval '10 days', now() - interval '10 days', 'SUCCEEDED', 1
FROM generate_series(1, %s) AS n
"""
"""Ids are of that time too: pruning walks along them."""


def contest(url: str) -> Contest:
    return Contest("drain beside pruning", {"alone": partial(drain, url), "pruning": partial(drain_and_prune, url)})


def drain(url: str) -> Mapping[str, float]:
    """Jobs a second of two workers, beside a history that stays."""
    _fill(url)
    return {"jobs/s": JOBS / framework.drain(url, processes=2, batch=500)}


def drain_and_prune(url: str) -> Mapping[str, float]:
    """The same while the history leaves, and how fast it does."""
    _fill(url)
    context = multiprocessing.get_context("fork")
    stop, pruned = context.Event(), context.SimpleQueue()
    pruner = context.Process(target=_prune, args=(url, stop, pruned))
    pruner.start()
    try:
        seconds = framework.drain(url, processes=2, batch=500)
    finally:
        stop.set()
        pruner.join()
    return {"jobs/s": JOBS / seconds, "pruned/s": pruned.get()}


def _fill(url: str) -> None:
    ground.fill(url, 0)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(HISTORY, (JOB_TYPE, Jsonb(PAYLOAD), OLD_JOBS))
        connection.execute(ATTEMPTS)
        connection.execute("VACUUM ANALYZE runledger.job_queue, runledger.job_attempts")
        connection.execute(ground.FILL, (JOB_TYPE, Jsonb(PAYLOAD), JOBS))
        connection.execute("CHECKPOINT")


def _prune(url: str, stop: Event, pruned: "SimpleQueue[float]") -> None:
    """Batch after batch with the reaper's pause between them, until told to stop or nothing is left."""
    jobs, after, began = 0, None, time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.wait(BATCH_PAUSE_SECONDS):
            with connection.transaction():
                batch = prune_jobs(connection, KEPT, scope=Scope.any(), after=after)
            jobs, after = jobs + batch.jobs, batch.next_after
            if after is None:
                break
    pruned.put(jobs / (time.monotonic() - began))
