"""A steady load, and the watch over what the killed held."""

import random
import threading
import time
from typing import Any

import psycopg
from chaos.app import EFFECT
from chaos.hosts import Place

from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_jobs

JOBS_PER_SECOND = 160
BATCH_SECONDS = 0.05
LARGEST_BACKLOG = 3_000
"""Above it the load waits: a soak on a slow machine is to measure recovery, not a backlog."""

MIX = {"chaos.brief": 45, EFFECT: 10, "chaos.nothing": 35, "chaos.fails_once": 10}
COUNT_READY = "SELECT count(*) FROM runledger.job_ready"
STILL_HELD = "SELECT DISTINCT worker_id FROM runledger.job_leases WHERE worker_id = ANY(%s)"
LOOK_EVERY_SECONDS = 0.01


class Load(threading.Thread):
    """Enqueues until told to stop. ``acknowledged`` are the jobs whose commit was answered."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(name="load", daemon=True)
        self._url = url
        self._chance = random.Random(seed)
        self._is_over = threading.Event()
        self.acknowledged: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._is_over.wait(BATCH_SECONDS):
                    self._enqueue(connection)
        except BaseException as error:  # told to the soak, which fails by it
            self.failure = error

    def _enqueue(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute(COUNT_READY).fetchone()
        if row is None or row[0] > LARGEST_BACKLOG:
            return
        kinds = self._chance.choices(list(MIX), list(MIX.values()), k=round(JOBS_PER_SECOND * BATCH_SECONDS))
        requests = [JobRequest(kind, {"ms": self._chance.randint(5, 50)}) for kind in kinds]
        with connection.transaction():
            stored = enqueue_jobs(connection, requests)
        self.acknowledged.extend(str(job.job_id) for job in stored)

    def stop(self) -> None:
        self._is_over.set()
        self.join(30)


class RecoveryWatch(threading.Thread):
    """How long after its death a worker's leases are settled and its slot has a ready worker again."""

    def __init__(self, url: str) -> None:
        super().__init__(name="recovery-watch", daemon=True)
        self._url = url
        self._open: list[tuple[str, Place, int, float]] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self.seconds: list[float] = []

    def killed(self, worker_id: str, place: Place, slot: int) -> None:
        with self._lock:
            self._open.append((worker_id, place, slot, time.time()))

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._is_over.wait(LOOK_EVERY_SECONDS):
                with self._lock:
                    waiting = list(self._open)
                if waiting:
                    self._look(connection, waiting)

    def _look(self, connection: psycopg.Connection[Any], waiting: list[tuple[str, Place, int, float]]) -> None:
        ids = [worker_id for worker_id, *_ in waiting]
        held = {worker_id for (worker_id,) in connection.execute(STILL_HELD, (ids,)).fetchall()}
        for one in waiting:
            worker_id, place, slot, killed_at = one
            place.tail.read()
            if worker_id not in held and place.tail.ready_at.get(slot, 0.0) > killed_at:
                self.seconds.append(time.time() - killed_at)
                with self._lock:
                    self._open.remove(one)

    @property
    def unrecovered(self) -> list[str]:
        return [worker_id for worker_id, *_ in self._open]

    def stop(self) -> None:
        """What has not recovered by now, never did."""
        self._is_over.set()
        self.join(30)
