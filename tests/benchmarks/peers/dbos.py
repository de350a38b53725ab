"""DBOS Transact: two processes, a queue polled every 50 ms, 50 workflows at once each (8 for jobs of 1 ms).

A job is a workflow without steps, a chain a workflow of ten steps. Keeps a row for each workflow and for each step.
Enqueues by ``DBOSClient``; in bulk within one transaction.
"""

import os
import threading

import sqlalchemy
from dbos import DBOS, DBOSClient

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main

VERSION = "bench"


@DBOS.workflow(name="nothing")
def nothing(payload: dict[str, object]) -> None:
    board.work()


@DBOS.step()
def step() -> None:
    board.work()


@DBOS.workflow(name="chain")
def chain() -> None:
    for _ in range(10):
        step()


def _launch(url: str, executor: str) -> None:
    config = {"name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": VERSION}
    DBOS(config=config | {"executor_id": executor, "sys_db_pool_size": 20})
    DBOS.launch()


class Dbos(Adapter):
    def setup(self) -> None:
        _launch(self.url, "setup")
        DBOS.register_queue("bench", worker_concurrency=50, polling_interval_sec=0.05)
        os._exit(0)

    def open(self) -> None:
        self.client = DBOSClient(system_database_url=self.url)
        self.engine = sqlalchemy.create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))

    def one(self) -> None:
        self.client.enqueue({"queue_name": "bench", "workflow_name": "nothing", "app_version": VERSION}, PAYLOAD)

    def many(self, count: int) -> None:
        options = {"queue_name": "bench", "workflow_name": "nothing", "app_version": VERSION}
        with self.engine.begin() as connection:
            for _ in range(count):
                self.client.enqueue_in_transaction(connection, options, PAYLOAD)

    def chains(self, count: int) -> None:
        options = {"queue_name": "bench", "workflow_name": "chain", "app_version": VERSION}
        with self.engine.begin() as connection:
            for _ in range(count):
                self.client.enqueue_in_transaction(connection, options)

    def work(self, concurrency: int) -> None:
        _launch(self.url, str(os.getpid()))
        DBOS.register_queue("bench", worker_concurrency=concurrency, polling_interval_sec=0.05)
        threading.Event().wait()


if __name__ == "__main__":
    main(Dbos)
