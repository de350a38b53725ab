"""Oban for Python: two processes on uvloop, a limit of 100 jobs at once each (8 for jobs of 1 ms), pool of 10.

Keeps the row of a job until its pruner deletes it; handlers are coroutines; attempts are a counter and some errors.
Its batching of acknowledgements is part of a paid edition, which is not measured here.
"""

import asyncio

import uvloop
from oban import Oban, worker
from oban.schema import install

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main


@worker(queue="default")
class Nothing:
    async def process(self, job):
        board.begin(job.args.get(board.SENT))
        if board.WORK_SECONDS:
            await asyncio.sleep(board.WORK_SECONDS)


class ObanAdapter(Adapter):
    def setup(self) -> None:
        uvloop.run(self._setup())

    async def _setup(self) -> None:
        pool = await Oban.create_pool(self.url)
        await install(pool)
        await pool.close()

    def open(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.oban = Oban(pool=await Oban.create_pool(self.url), leadership=False, metrics=False)

    def one(self) -> None:
        self.loop.run_until_complete(self.oban.enqueue(Nothing.new(PAYLOAD)))

    def many(self, count: int) -> None:
        for start in range(0, count, 1_000):
            jobs = [Nothing.new(PAYLOAD) for _ in range(min(1_000, count - start))]
            self.loop.run_until_complete(self.oban.enqueue_many(jobs))

    def work(self, concurrency: int) -> None:
        uvloop.run(self._work(concurrency))

    async def _work(self, concurrency: int) -> None:
        pool = await Oban.create_pool(self.url, max_size=10)
        async with Oban(pool=pool, queues={"default": concurrency}, metrics=False):
            await asyncio.Event().wait()


if __name__ == "__main__":
    main(ObanAdapter)
