"""What a limit costs: a drain of jobs that do nothing, whose type may run so many at once, or start so often."""

from collections.abc import Mapping
from functools import partial

import psycopg

from benchmarks import app, framework
from benchmarks.ground import count_succeeded, fill
from benchmarks.report import Contest

CATALOGS = {
    "no limit": "unlimited",
    "beside a limited type": "beside_a_limit",
    "100 at once": "at_once_100",
    "2 at once": "at_once_2",
    "1 at once": "at_once_1",
    "10,000 a second": "at_a_rate",
}
"""Of ``benchmarks.app``; a worker stores its limits when it starts."""


def contest(url: str, jobs: int = 4_000) -> Contest:
    runs = {name: partial(_drained, url, jobs, catalog) for name, catalog in CATALOGS.items()}
    return Contest("drain with limits, 2 workers, batch 100", runs)


def _drained(url: str, jobs: int, catalog: str) -> Mapping[str, float]:
    fill(url, jobs)
    try:
        seconds = framework.drain(url, processes=2, batch=100, catalog=catalog)
    finally:
        with psycopg.connect(url) as connection:
            app.catalog.sync_definitions(connection)  # without a limit, for whoever measures next
    if count_succeeded(url) != jobs:
        raise RuntimeError(f"not every one of {jobs} jobs succeeded")
    return {"jobs/s": jobs / seconds}
