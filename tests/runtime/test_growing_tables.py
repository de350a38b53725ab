"""A worker keeps its plans while its tables grow: one made over an empty queue does not last behind a backlog."""

from collections.abc import Callable

import pytest
from runtime.benches import Bench
from runtime.hosts import Connection

from runledger import JobCatalog, JobRequest, enqueue_jobs
from runledger.runtime import link as links

JOBS = 4_000
MOST_READ = 20
"""Records that are read for each job: some for the claim, some for the settle."""
RECORDS_READ = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'job_queue'"
NO_ANALYZE = "ALTER TABLE runledger.job_queue SET (autovacuum_enabled = off)"
catalog = JobCatalog()


@catalog.job("plans.nothing")
def nothing(context: object, payload: object) -> None:
    """The tables alone are of interest."""


@pytest.fixture
def database_url(own_database: str) -> str:
    """Nobody else's statistics."""
    return own_database


def test_plans_made_over_an_empty_queue_are_replaced_behind_a_backlog(
    connection: Connection, make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FIRST_PLANS_LAST_SECONDS", 0.0)
    monkeypatch.setattr(links, "SLOW_SECONDS", 0.0)
    connection.execute(NO_ANALYZE)
    bench = make_bench(catalog)
    bench.run("plans.nothing")
    connection.execute("VACUUM ANALYZE runledger.job_queue")
    bench.run("plans.nothing")  # every statement has its plan, for a table of one row
    with connection.transaction():
        enqueue_jobs(connection, [JobRequest("plans.nothing") for _ in range(JOBS)])

    while bench.worker.tick() == 0.0:  # as many as the speed of the machine makes of them
        pass

    assert bench.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'") == JOBS + 2
    bench.link.close()  # what a session has counted shows when it ends
    assert bench.scalar(RECORDS_READ) / JOBS < MOST_READ
