"""Procrastinate: two processes on uvloop, concurrency 30 each (8 for jobs of 1 ms), LISTEN/NOTIFY on.

Keeps the row of a job and a row for each change of its status; handlers are coroutines.
"""

import asyncio
import logging

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main


def _app(url: str) -> App:
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="nothing")
    async def nothing(payload: dict[str, object]) -> None:
        board.begin(payload.get(board.SENT))
        if board.WORK_SECONDS:
            await asyncio.sleep(board.WORK_SECONDS)

    return app


class Procrastinate(Adapter):
    def open(self) -> None:
        logging.disable(logging.CRITICAL)
        self.loop = uvloop.new_event_loop()
        self.app = _app(self.url)
        self.loop.run_until_complete(self.app.open_async())
        self.task = self.app.tasks["nothing"]

    def setup(self) -> None:
        self.open()
        self.loop.run_until_complete(self.app.schema_manager.apply_schema_async())

    def one(self) -> None:
        self.loop.run_until_complete(self.task.defer_async(payload=PAYLOAD))

    def many(self, count: int) -> None:
        self.loop.run_until_complete(self.task.batch_defer_async(*({"payload": PAYLOAD} for _ in range(count))))

    def work(self, concurrency: int) -> None:
        logging.disable(logging.CRITICAL)
        uvloop.run(self._work(concurrency))

    async def _work(self, concurrency: int) -> None:
        app = _app(self.url)
        async with app.open_async():
            await app.run_worker_async(concurrency=concurrency, fetch_job_polling_interval=0.5)


if __name__ == "__main__":
    main(Procrastinate)
