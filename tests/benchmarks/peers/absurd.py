"""Absurd: two processes that claim 100 tasks at a time (threads for jobs of 1 ms, 8 each), polling every 50 ms.

A chain is a task of ten steps. Keeps rows for task, run and checkpoints. Bulk: spawns in one transaction.
"""

import subprocess
import sys
from pathlib import Path

import psycopg
from absurd_sdk import Absurd

from benchmarks.peers import board
from benchmarks.peers.adapter import PAYLOAD, Adapter, main


class AbsurdAdapter(Adapter):
    def setup(self) -> None:
        control = Path(sys.executable).with_name("absurdctl")
        subprocess.run([control, "init", "-d", self.url], check=True, stdout=subprocess.DEVNULL)
        Absurd(self.url, queue_name="bench").create_queue()

    def open(self) -> None:
        self.connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=0)
        self.app = _app(self.connection)

    def one(self) -> None:
        self.app.spawn("nothing", PAYLOAD)

    def many(self, count: int) -> None:
        with self.connection.transaction():
            for _ in range(count):
                self.app.spawn("nothing", PAYLOAD)

    def chains(self, count: int) -> None:
        with self.connection.transaction():
            for _ in range(count):
                self.app.spawn("chain", {})

    def work(self, concurrency: int) -> None:
        batch = 100 if concurrency == 1 else concurrency
        connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=0)
        _app(connection).start_worker(concurrency=concurrency, batch_size=batch, poll_interval=0.05)


def _app(connection: psycopg.Connection[tuple[object, ...]]) -> Absurd:
    app = Absurd(connection, queue_name="bench")

    @app.register_task("nothing")
    def nothing(params, context):
        board.work()

    @app.register_task("chain")
    def chain(params, context):
        for number in range(10):
            context.step(f"step-{number}", board.work)

    return app


if __name__ == "__main__":
    main(AbsurdAdapter)
