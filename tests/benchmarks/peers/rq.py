"""RQ on Redis (AOF, fsync every second): two ``SimpleWorker`` processes (16 for jobs of 1 ms): no fork for each job.

Keeps the result of a job for 500 seconds, here for none; bulk by ``enqueue_many``.
"""

from redis import Redis
from rq import Queue, SimpleWorker

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main
from benchmarks.peers.redis_place import URL


def nothing(payload: dict[str, object]) -> None:
    board.work()


class Rq(Adapter):
    def open(self) -> None:
        self.queue = Queue("bench", connection=Redis.from_url(URL))

    def one(self) -> None:
        self.queue.enqueue("benchmarks.peers.rq.nothing", PAYLOAD, result_ttl=0)

    def many(self, count: int) -> None:
        prepared = [
            Queue.prepare_data("benchmarks.peers.rq.nothing", args=(PAYLOAD,), result_ttl=0) for _ in range(count)
        ]
        self.queue.enqueue_many(prepared)

    def work(self, concurrency: int) -> None:
        connection = Redis.from_url(URL)
        SimpleWorker([Queue("bench", connection=connection)], connection=connection).work(logging_level="ERROR")


if __name__ == "__main__":
    main(Rq)
