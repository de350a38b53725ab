"""Those who look on while everything breaks: how fast the killed are replaced, and whether the rules hold meanwhile."""

import contextlib
import threading
import time
from typing import Any

import psycopg
from chaos.hosts import Place
from chaos.invariants import ALWAYS, broken
from chaos.told import Line

STILL_HELD = "SELECT DISTINCT worker_id FROM runledger.job_leases WHERE worker_id = ANY(%s)"
LOOK_EVERY_SECONDS = 0.02


class RecoveryWatch(threading.Thread):
    """How long after its death a worker's leases are settled and its slot has a ready worker again."""

    def __init__(self, url: str) -> None:
        super().__init__(name="recovery-watch", daemon=True)
        self._line = Line(url)
        self._open: list[tuple[str, Place, int, float]] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self.seconds: list[float] = []

    def killed(self, worker_id: str, place: Place, slot: int) -> None:
        with self._lock:
            self._open.append((worker_id, place, slot, time.time()))

    def run(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_SECONDS):
            with self._lock:
                waiting = list(self._open)
            if waiting:
                try:
                    self._look(self._line.connection(), waiting)
                except psycopg.OperationalError:
                    self._line.close()
        self._line.close()

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


class RuleWatch(threading.Thread):
    """The rules that must hold at any moment, checked in one snapshot again and again. ``found`` names those that did
    not, ``snapshots`` how often all were asked."""

    def __init__(self, url: str, every_seconds: float) -> None:
        super().__init__(name="rule-watch", daemon=True)
        self._line = Line(url)
        self._every_seconds = every_seconds
        self._is_over = threading.Event()
        self.snapshots = 0
        self.found: list[str] = []

    def run(self) -> None:
        while not self._is_over.wait(self._every_seconds):
            with contextlib.suppress(psycopg.OperationalError):
                self._check()
        self._line.close()

    def _check(self) -> None:
        try:
            connection = self._line.connection()
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                found = broken(connection, ALWAYS)
        except psycopg.OperationalError:
            self._line.close()
            raise
        self.snapshots += 1
        self.found.extend(f"meanwhile, {one}" for one in found)

    def stop(self) -> None:
        self._is_over.set()
        self.join(60)
