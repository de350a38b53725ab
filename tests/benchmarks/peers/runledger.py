"""Runledger itself, through the same protocol as every peer.

Configuration: two worker processes (sixteen for jobs of 1 ms), batches of at most 1,000 whose outcomes are written
after 25 ms at the latest, attempts and records kept, wake-ups on. Enqueues on a psycopg connection in autocommit with
prepared statements; bulk by ``enqueue_jobs`` (COPY).
"""

import os
from typing import Any

import psycopg

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main
from runledger import JobCatalog, JobContext, JobRequest, enqueue_job, enqueue_jobs, enqueue_workflow_run
from runledger.database import migrate

JOB_TYPE = "bench.nothing"
catalog = JobCatalog()


@catalog.job(JOB_TYPE)
def nothing(context: JobContext, payload: Any) -> None:
    board.work(payload)


class Runledger(Adapter):
    def setup(self) -> None:
        migrate(self.url)
        with psycopg.connect(self.url) as connection:
            catalog.sync_definitions(connection)

    def open(self) -> None:
        self.connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=0)

    def one(self) -> None:
        enqueue_job(self.connection, JobRequest(JOB_TYPE, PAYLOAD))

    def many(self, count: int) -> None:
        with self.connection.transaction():
            enqueue_jobs(self.connection, [JobRequest(JOB_TYPE, PAYLOAD) for _ in range(count)])

    def chains(self, count: int) -> None:
        with self.connection.transaction():
            for _ in range(count):
                run = catalog.workflow("bench.chain").job("0", JOB_TYPE, PAYLOAD)
                for number in range(1, 10):
                    run.job(str(number), JOB_TYPE, PAYLOAD).after_success(str(number), [str(number - 1)])
                enqueue_workflow_run(self.connection, run.build())

    def work(self, concurrency: int) -> None:
        os.environ |= {"RUNLEDGER_DATABASE_URL": self.url, "JOBS_CLAIM_BATCH_SIZE": "1000"}
        os.environ["JOBS_SETTLE_DELAY_MS"] = "25"
        command = ["runledger", "worker", "--app", "benchmarks.peers.runledger:catalog", "--preload", "--processes"]
        os.execvp("runledger", [*command, str(concurrency)])


if __name__ == "__main__":
    main(Runledger)
