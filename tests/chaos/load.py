"""A steady load: those who enqueue, and what they were told."""

import itertools
import random
import threading
import time

from chaos.app import EFFECT
from chaos.told import Line, Told, Witness, ask

from runledger import Ledger, UnavailableError
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_jobs

JOBS_PER_SECOND = 100.0
ENQUEUERS = 2
BATCH_SECONDS = 0.1
LONGEST_BATCH_SECONDS = 2.0
KEYED_SHARE = 0.1
KEYED_TRIES = 40
NEW_KEY_CHANCE = 0.4
REPLAYED_AMONG = 40
"""A keyed request repeats one of this many newest keys."""

LARGEST_BACKLOG = 2_000
"""Above it the load waits: a soak on a slow machine is to measure recovery, not a backlog."""

MIX = {
    "chaos.brief": 4_000,
    "chaos.nothing": 3_700,
    "chaos.limited": 300,
    "chaos.rated": 300,
    "chaos.fails_once": 800,
    EFFECT: 900,
    "chaos.fails": 250,
    "chaos.terminal": 200,
    "chaos.snoozes": 100,
    "chaos.continues": 60,
    "chaos.exits": 15,
    "chaos.hangs": 8,
    "chaos.slow": 7,
    "chaos.hog": 7,
}
COUNT_READY = "SELECT count(*) FROM runledger.job_ready"


class Keys:
    """Numbers that all enqueuers draw from, so that several use the same key at the same time."""

    def __init__(self) -> None:
        self._next = itertools.count(1)
        self._newest = 0

    def draw(self, chance: random.Random) -> int:
        """The next number, or one of the newest again."""
        if self._newest == 0 or chance.random() < NEW_KEY_CHANCE:
            self._newest = next(self._next)
        return max(1, self._newest - chance.randrange(REPLAYED_AMONG))


class Enqueuer(threading.Thread):
    """Enqueues batches through its line, and keyed jobs through a ``Ledger`` as an application would, until told to
    stop. ``failure`` is what ended it before its time."""

    def __init__(
        self,
        index: int,
        url: str,
        is_pooled: bool,
        witness: Witness,
        keys: "Keys",
        *,
        seed: int,
        jobs_per_second: float,
    ) -> None:
        super().__init__(name=f"enqueuer-{index}", daemon=True)
        self._index = index
        self._line = Line(url, is_pooled=is_pooled)
        self._ledger = Ledger(url, pool_size=1)
        self._witness = witness
        self._keys = keys
        self._chance = random.Random(f"{seed}-{index}")
        self._jobs_per_second = jobs_per_second / ENQUEUERS
        self._owed = 0.0
        self._paid_until = time.monotonic()
        self._batches = 0
        self._is_over = threading.Event()
        self._is_full = False
        self._look_at = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._is_over.wait(BATCH_SECONDS):
                size = self._due()
                if size and not self._has_too_many():
                    self._enqueue(size)
                    if self._chance.random() < KEYED_SHARE * size:
                        self._enqueue_keyed()
        except BaseException as error:  # told to the soak, which fails by it
            self.failure = error
        finally:
            self._line.close()
            self._ledger.close()

    def stop(self) -> None:
        self._is_over.set()
        self.join(60)

    def _due(self) -> int:
        """How many jobs the passed time asks for, at most those of two seconds."""
        now = time.monotonic()
        self._owed += min(now - self._paid_until, LONGEST_BATCH_SECONDS) * self._jobs_per_second
        self._paid_until = now
        size, self._owed = int(self._owed), self._owed % 1
        return size

    def _has_too_many(self) -> bool:
        if time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + 1.0
            row = ask(self._line, lambda connection: connection.execute(COUNT_READY).fetchone()).answer
            self._is_full = row is not None and row[0] > LARGEST_BACKLOG
        return self._is_full

    def _enqueue(self, size: int) -> None:
        self._batches += 1
        name = f"{self._index}-{self._batches}"
        requests = [self._request(name) for _ in range(size)]
        asked = ask(self._line, lambda connection: enqueue_jobs(connection, requests))
        if asked.error is not None and not isinstance(asked.error, UnavailableError):
            self._witness.surprise("enqueue", asked.error)
        self._witness.batch(name, [str(job.job_id) for job in asked.answer or []], size, asked.told)

    def _request(self, batch: str) -> JobRequest:
        [kind] = self._chance.choices(list(MIX), list(MIX.values()))
        payload = {"ms": self._chance.randint(0, 20), "seconds": self._chance.randint(11, 16), "batch": batch}
        delay = self._chance.uniform(0.1, 4.0) if self._chance.random() < 0.04 else None
        return JobRequest(kind, payload, priority=self._chance.choice((0, 0, 0, 5)), delay=delay)

    def _enqueue_keyed(self) -> None:
        """Asks again under the same key until it is told an id, as whoever has an event to process would."""
        number = self._keys.draw(self._chance)
        key = f"event-{number}"
        for _ in range(KEYED_TRIES):
            try:
                job = self._ledger.enqueue("chaos.brief", {"ms": number % 20, "event": number}, idempotency_key=key)
            except UnavailableError:
                self._witness.note("keyed", Told.UNKNOWN, key=key)
                if self._is_over.wait(BATCH_SECONDS):
                    return
            else:
                self._witness.keyed.setdefault(key, set()).add(str(job.job_id))
                self._witness.note("keyed", Told.DONE, key=key, job=job.job_id)
                return
