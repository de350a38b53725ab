"""pgqueuer: two processes on uvloop and asyncpg, batches of 1,000, at most 2,000 tasks at once (8 for jobs of 1 ms).

Deletes a job when it ends and writes one row to its log; handlers are coroutines. No fence, no history of attempts.
"""

import asyncio
import json
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main


class PgQueuerAdapter(Adapter):
    def open(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.queries = Queries(AsyncpgDriver(self.loop.run_until_complete(asyncpg.connect(self.url))))

    def setup(self) -> None:
        self.open()
        self.loop.run_until_complete(self.queries.install())

    def one(self) -> None:
        self.loop.run_until_complete(self.queries.enqueue("nothing", json.dumps(PAYLOAD).encode()))

    def many(self, count: int) -> None:
        data = [json.dumps(PAYLOAD).encode() for _ in range(count)]
        self.loop.run_until_complete(self.queries.enqueue(["nothing"] * count, data, [0] * count))

    def work(self, concurrency: int) -> None:
        uvloop.run(_work(self.url, concurrency))


async def _work(url: str, concurrency: int) -> None:
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @pgq.entrypoint("nothing")
    async def nothing(job: Job) -> None:
        board.begin(json.loads(job.payload).get(board.SENT))
        if board.WORK_SECONDS:
            await asyncio.sleep(board.WORK_SECONDS)

    batch = 1_000 if concurrency > 100 else max(1, concurrency // 2)
    await pgq.run(batch_size=batch, max_concurrent_tasks=concurrency, dequeue_timeout=timedelta(seconds=5))


if __name__ == "__main__":
    main(PgQueuerAdapter)
