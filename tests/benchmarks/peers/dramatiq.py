"""Dramatiq on Redis (AOF, fsync every second): two processes of one thread each (8 for jobs of 1 ms).

Keeps nothing after a job has ended; what Redis has acknowledged may be lost for a second. No bulk enqueue.
"""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main
from benchmarks.peers.redis_place import URL

dramatiq.set_broker(RedisBroker(url=URL))


@dramatiq.actor
def nothing(payload: dict[str, object]) -> None:
    board.work()


class Dramatiq(Adapter):
    def one(self) -> None:
        nothing.send(PAYLOAD)

    def work(self, concurrency: int) -> None:
        command = [sys.executable, "-P", "-m", "dramatiq", "benchmarks.peers.dramatiq", "--processes", "2"]
        os.execv(sys.executable, [*command, "--threads", str(concurrency)])


if __name__ == "__main__":
    main(Dramatiq)
