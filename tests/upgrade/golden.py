"""``make golden``: a dump of this release's schema with data in every state, kept for all later releases to open.

Written once, when a release is made; a dump is never changed afterwards. Needs the embedded server, for its pg_dump.
"""

import subprocess
import sys
from pathlib import Path

import psycopg

from runledger import WorkflowDagBuilder, cancel_job, enqueue_workflow_run
from runledger.core.jobs import Scope
from runledger.core.schedules import ScheduleRequest
from runledger.database import migrate
from runledger.embedded import TEST_SETTINGS, EmbeddedServer, embedded_home, running_server
from runledger.postgres.schedules import upsert_job_schedule
from runledger.postgres.settle import settle_jobs
from runledger.testing import databases
from runledger.testing.factories import a_definition, a_job, claim_one, dead_lettered, failed, succeeded
from runledger.version import package_version

GOLDEN = Path(__file__).parent / "golden"
STATES = {"waits": "PENDING", "later": "PENDING", "done": "SUCCEEDED", "dead": "DEAD_LETTERED", "gone": "CANCELED"}
"""By job type, the status of its one job in every dump."""


def fill(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """One job in each state, one that is retried, a run with an open gate, a schedule."""
    for job_type in (*STATES, "retried", "step"):
        a_definition(connection, job_type)
    a_job(connection, "waits", {"text": "é\u2028\"'\\"}, idempotency_key="one", tags=("a", "b"))
    a_job(connection, "later", delay=3_600)
    for job_type, end in (("done", succeeded), ("dead", dead_lettered), ("retried", failed)):
        a_job(connection, job_type)
        settle_jobs(connection, [end(claim_one(connection, job_type))])
    cancel_job(connection, a_job(connection, "gone").job_id, scope=Scope.any(), reason="not wanted", actor="golden")
    builder = WorkflowDagBuilder("run").job("a", "step").external("gate").after_success("gate", ["a"])
    with connection.transaction():
        enqueue_workflow_run(connection, builder.job("b", "step").after_success("b", ["gate"]).build())
    with connection.transaction():
        settle_jobs(connection, [succeeded(claim_one(connection, "step"))])
    upsert_job_schedule(connection, ScheduleRequest("nightly", cron="0 3 * * *", job_type="waits"))


def main() -> int:
    path = GOLDEN / f"{package_version()}.sql"
    if path.exists():
        print(f"{path} is there already, and a golden dump is never changed", file=sys.stderr)
        return 1
    home = embedded_home("golden")
    with (
        running_server(home, TEST_SETTINGS) as server,
        databases.ephemeral_database(server.url(), prefix="golden") as url,
    ):
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            fill(connection)
        dumped = subprocess.run(
            [EmbeddedServer(home).program("pg_dump"), "--no-owner", "--no-privileges", "--inserts", url],
            capture_output=True,
            check=True,
        )
    lines = [line for line in dumped.stdout.decode().splitlines() if not line.startswith("\\")]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
