"""How long each list takes beside many finished jobs: ``python -m benchmarks.reads --jobs 1000000``.

Works in a database of its own on the server of RUNLEDGER_TEST_DATABASE_URL, which is dropped afterwards.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from runledger import (
    JobStatus,
    MetricsBy,
    Scope,
    get_job,
    get_job_metrics,
    list_dead_letters,
    list_job_attempts,
    list_job_events,
    list_jobs,
)
from runledger.database import migrate
from runledger.postgres.metrics_rollup import roll_up_metrics
from runledger.testing import databases, server_choice

TENANT = UUID(int=7)
ROUNDS = 15
FILL = """
INSERT INTO runledger.job_queue (id, job_type, organization_id, payload, priority, max_attempts, timeout_seconds,
    created_at, tags, attempt, final_status, finished_at, last_error_code)
SELECT encode(substr(int8send(ms), 3) || '\\x7000'::bytea || '\\x80'::bytea
              || substr(uuid_send(gen_random_uuid()), 1, 7), 'hex')::uuid,
       'type.' || n %% 20, CASE WHEN n %% 1000 = 0 THEN %(tenant)s::uuid END, '{"n": 1}', 0, 3, 300,
       to_timestamp(ms / 1000.0), CASE WHEN n %% 100000 = 0 THEN ARRAY['rare'] END, 1,
       (CASE n %% 100 WHEN 0 THEN 'DEAD_LETTERED' WHEN 1 THEN 'CANCELED' ELSE 'SUCCEEDED' END)::runledger.job_status,
       to_timestamp(ms / 1000.0), CASE WHEN n %% 100 = 0 THEN 'code.' || n / 100 %% 7 END
FROM (SELECT n, (extract(epoch FROM now()) * 1000)::bigint - (%(jobs)s - n) * 60 AS ms
      FROM generate_series(1, %(jobs)s) n) AS made
"""
FILL_REST = """
INSERT INTO runledger.job_definitions (job_type, queue)
SELECT 'type.' || n, 'queue.' || n % 4 FROM generate_series(0, 19) n;
INSERT INTO runledger.job_attempts (job_id, lease_token, run_number, attempt, next_run_at, leased_at, started_at,
    finished_at, outcome, worker_id)
SELECT id, row_number() OVER (ORDER BY id), 1, 1, finished_at - interval '1 s' - exp(9 * random()) * interval '1 ms',
    finished_at - interval '1 s', finished_at - exp(6 * random()) * interval '1 ms', finished_at,
    CASE final_status WHEN 'SUCCEEDED' THEN 'SUCCEEDED'::runledger.job_outcome ELSE 'TERMINAL' END,
    'worker-' || right(id::text, 1)
FROM runledger.job_queue;
INSERT INTO runledger.job_dead_letters (job_id, run_number, attempt, job_type, organization_id, error_code,
    payload_snapshot, failed_at)
SELECT id, 1, 1, job_type, organization_id, last_error_code, payload, finished_at
FROM runledger.job_queue WHERE final_status = 'DEAD_LETTERED' ORDER BY id;
INSERT INTO runledger.job_events (job_id, run_number, event_type, occurred_at)
SELECT id, 1, 'CANCELED', finished_at FROM runledger.job_queue WHERE final_status = 'CANCELED' ORDER BY id;
"""
Connection = psycopg.Connection[Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    options = parser.parse_args()
    with server_choice.test_server() as server, databases.ephemeral_database(server) as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(FILL.encode(), {"jobs": options.jobs, "tenant": TENANT})
            for statement in FILL_REST.split(";\n")[:-1]:
                connection.execute(statement.encode())
            connection.execute("VACUUM ANALYZE")
            roll_up(connection)
            return report(connection)


def roll_up(connection: Connection) -> None:
    """All but the last seventy-five seconds, which are the tail of a read."""
    connection.execute(
        "INSERT INTO runledger.job_metrics_progress (id, counted_until, safe_until, seen_at, seen_xid)"
        " SELECT 1, min(finished_at), now() - interval '75 s', now(), 0 FROM runledger.job_attempts"
    )
    connection.execute("UPDATE runledger.job_metrics_progress SET seen_xid = 9e18::bigint")  # the horizon stands still
    slowest, steps = 0.0, 0
    for _ in range(10_000):
        began = time.perf_counter()
        steps += 1
        counted = roll_up_metrics(connection, step=timedelta(minutes=10))
        slowest = max(slowest, time.perf_counter() - began)
        if not counted.is_behind:
            break
    rows = connection.execute("SELECT count(*) FROM runledger.job_metrics_rollup").fetchone()
    sys.stdout.write(f"roll-up: {steps} steps, the slowest took {slowest:.2f} s; {rows[0] if rows else 0} rows\n")


def report(connection: Connection) -> int:
    any_scope, tenant = Scope.any(), Scope.organization(TENANT)
    some = list_jobs(connection, scope=any_scope, limit=1)[0].job_id
    middle = list_jobs(connection, scope=any_scope, created_before=datetime.now(UTC) - timedelta(hours=8), limit=1)
    lists: dict[str, Callable[[], Any]] = {
        "job": lambda: get_job(connection, some, scope=any_scope),
        "jobs": lambda: list_jobs(connection, scope=any_scope),
        "jobs, a middle page": lambda: list_jobs(connection, scope=any_scope, before=middle[0].job_id),
        "jobs, type": lambda: list_jobs(connection, scope=any_scope, job_type="type.3"),
        "jobs, unknown type": lambda: list_jobs(connection, scope=any_scope, job_type="nobody"),
        "jobs, queue": lambda: list_jobs(connection, scope=any_scope, queue="queue.1"),
        "jobs, unknown queue": lambda: list_jobs(connection, scope=any_scope, queue="nobody"),
        "jobs, tag (1 in 100,000)": lambda: list_jobs(connection, scope=any_scope, tag="rare"),
        "jobs, error code": lambda: list_jobs(connection, scope=any_scope, error_code="code.3"),
        "jobs, unknown error code": lambda: list_jobs(connection, scope=any_scope, error_code="nobody"),
        "jobs, organization (1 in 1,000)": lambda: list_jobs(connection, scope=tenant),
        "jobs, no organization": lambda: list_jobs(connection, scope=Scope.global_only()),
        "jobs, an hour of yesterday": lambda: list_jobs(
            connection,
            scope=any_scope,
            created_after=datetime.now(UTC) - timedelta(hours=9),
            created_before=datetime.now(UTC) - timedelta(hours=8),
        ),
        **{
            f"jobs, {status}": lambda status=status: list_jobs(connection, scope=any_scope, status=status)  # type: ignore[misc]
            for status in JobStatus
        },
        "jobs, DEAD_LETTERED, error code": lambda: list_jobs(
            connection, scope=any_scope, status=JobStatus.DEAD_LETTERED, error_code="code.3"
        ),
        "jobs, DEAD_LETTERED, unknown code": lambda: list_jobs(
            connection, scope=any_scope, status=JobStatus.DEAD_LETTERED, error_code="nobody"
        ),
        "dead letters": lambda: list_dead_letters(connection, scope=any_scope),
        "dead letters, type": lambda: list_dead_letters(connection, scope=any_scope, job_type="type.0"),
        "dead letters, unknown code": lambda: list_dead_letters(connection, scope=any_scope, error_code="nobody"),
        "figures of a day by type": lambda: get_job_metrics(connection, scope=any_scope),
        "figures of a day by worker": lambda: get_job_metrics(connection, scope=any_scope, by=MetricsBy.WORKER),
        "figures of a day, organization": lambda: get_job_metrics(connection, scope=tenant),
        "figures of an hour by type": lambda: get_job_metrics(
            connection, scope=any_scope, since=datetime.now(UTC) - timedelta(hours=1)
        ),
        "attempts of a job": lambda: list_job_attempts(connection, some, scope=any_scope),
        "events of a job": lambda: list_job_events(connection, some, scope=any_scope),
    }
    slow = 0
    for name, call in lists.items():
        seconds = [_timed(call) for _ in range(ROUNDS)]
        median = statistics.median(seconds) * 1_000
        slow += median > 20
        sys.stdout.write(f"{median:8.2f} ms  {name}\n")
    return min(slow, 1)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
