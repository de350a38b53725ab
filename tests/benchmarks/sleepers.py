"""Jobs that sleep for a millisecond, in sixteen processes: how much of their time is left for them.

The machine itself is the ceiling: processes that do nothing but sleep wake up late, and take turns on the processors.
"""

from collections.abc import Mapping
from functools import partial
from multiprocessing.synchronize import Barrier

import psycopg

from benchmarks import framework
from benchmarks.app import SLEEP_JOB_TYPE, sleep
from benchmarks.floor import run_by_hand, together
from benchmarks.ground import fill
from benchmarks.report import Contest

PROCESSES = 16
JOBS = 40_000
PER_EXCHANGE = 10
"""Jobs that a hand-written loop runs between two commits: as many as fit into the delay that is our default."""

STEADY_RATE = """
SELECT count(*) FILTER (WHERE finished_at > cuts.early AND finished_at <= cuts.late)
    / extract(epoch FROM cuts.late - cuts.early)
FROM runledger.job_attempts, (
    SELECT percentile_disc(0.2) WITHIN GROUP (ORDER BY finished_at) AS early,
        percentile_disc(0.8) WITHIN GROUP (ORDER BY finished_at) AS late
    FROM runledger.job_attempts
) AS cuts
GROUP BY cuts.early, cuts.late
"""
"""Jobs a second of the three fifths in the middle, because sixteen processes do not start at once."""


def contest(url: str) -> Contest:
    return Contest(
        f"1 ms jobs, {PROCESSES} workers",
        {
            "sleeping, no queue": sleeping,
            "hand-written loop": partial(hand_written, url),
            "runledger worker": partial(ours, url, settle_delay_ms=10),
            "JOBS_SETTLE_DELAY_MS=100": partial(ours, url, settle_delay_ms=100),
        },
    )


def sleeping() -> Mapping[str, float]:
    return {"jobs/s": JOBS / together(_sleep_only, "", PROCESSES, JOBS // PROCESSES)}


def hand_written(url: str) -> Mapping[str, float]:
    fill(url, JOBS, SLEEP_JOB_TYPE)
    loop = partial(run_by_hand, SLEEP_JOB_TYPE, sleep)
    return {"jobs/s": JOBS / together(loop, url, PROCESSES, PER_EXCHANGE)}


def ours(url: str, *, settle_delay_ms: int) -> Mapping[str, float]:
    fill(url, JOBS, SLEEP_JOB_TYPE)
    framework.drain(url, processes=PROCESSES, batch=500, JOBS_SETTLE_DELAY_MS=str(settle_delay_ms))
    with psycopg.connect(url) as connection:
        row = connection.execute(STEADY_RATE).fetchone()
    assert row is not None
    return {"jobs/s": float(row[0])}


def _sleep_only(_: str, times: int, barrier: Barrier) -> None:
    barrier.wait(30)
    for _time in range(times):
        sleep()
