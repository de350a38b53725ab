"""The application that the benchmarks run: jobs that do nothing, that sleep, that say when they began."""

import time
from typing import Any

import psycopg

from runledger import JobContext
from runledger.catalog import JobCatalog

JOB_TYPE = "bench.nothing"
LATENCY_JOB_TYPE = "bench.latency"
SLEEP_JOB_TYPE = "bench.sleep"
PAYLOAD = {"order_id": 123_456, "email": "someone@example.org", "note": "x" * 40}
STARTS_CHANNEL = "bench_started"

catalog = JobCatalog()
bystanders = JobCatalog()
"""Of hosts that serve none of the jobs that a bench enqueues."""

bystanders.job("bench.other")(lambda context, payload: None)


@catalog.job(JOB_TYPE)
def nothing(context: JobContext, payload: Any) -> None:
    """Takes no time, so that what is measured is the framework."""


def _only(**limit: Any) -> JobCatalog:
    only = JobCatalog()
    only.job(JOB_TYPE, **limit)(nothing)
    return only


unlimited, beside_a_limit = _only(), _only()
beside_a_limit.job("bench.limited", max_running=1)(nothing)
at_once_100, at_once_2, at_once_1 = _only(max_running=100), _only(max_running=2), _only(max_running=1)
at_a_rate = _only(rate_limit="10000/s")


def sleep() -> None:
    """What a job that waits for a millisecond does."""
    time.sleep(0.001)


@catalog.job(SLEEP_JOB_TYPE)
def sleep_for_a_millisecond(context: JobContext, payload: Any) -> None:
    sleep()


@catalog.job(LATENCY_JOB_TYPE)
def report_start(context: JobContext, payload: dict[str, str]) -> None:
    """Tells the bench, over a connection of its own, when the handler began on this machine's monotonic clock."""
    began = time.monotonic()
    with psycopg.connect(payload["url"], autocommit=True) as connection:
        connection.execute("SELECT pg_notify(%s, %s)", (STARTS_CHANNEL, str(began)))
