"""Celery on Redis (AOF, fsync every second): two prefork processes (16 for jobs of 1 ms), prefetch 100, no results.

Keeps nothing after a job has ended and acknowledges before it runs. No bulk enqueue. A chain is a ``celery.chain``.
"""

import os
import sys

from celery import Celery, chain

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main
from benchmarks.peers.redis_place import URL

app = Celery("bench", broker=URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=100,
    task_store_errors_even_if_ignored=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="nothing")
def nothing(payload: dict[str, object]) -> None:
    board.work()


class CeleryAdapter(Adapter):
    def one(self) -> None:
        nothing.delay(PAYLOAD)

    def chains(self, count: int) -> None:
        for _ in range(count):
            chain(nothing.si(PAYLOAD) for _ in range(10)).apply_async()

    def work(self, concurrency: int) -> None:
        command = [
            sys.executable,
            "-P",
            "-m",
            "celery",
            "-A",
            "benchmarks.peers.celery:app",
            "worker",
            "--loglevel=ERROR",
        ]
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency", str(concurrency)]
        os.execv(sys.executable, [*command, *options])


if __name__ == "__main__":
    main(CeleryAdapter)
