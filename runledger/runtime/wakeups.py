"""Wake-ups of a host: while its workers are idle it listens, and whoever hears of a job wakes them.

A host says that it listens only while it is idle, and an enqueue notifies only while some host has said so: a busy
system sends nothing. Polling stays the truth; this only makes an idle host look sooner.
"""

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Sequence

from runledger.core.errors import RunledgerError
from runledger.postgres.expressions import WAKE_CHANNEL
from runledger.postgres.listeners import announce_listener, withdraw_listener
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.slots import Slot, SlotState

LOOK_EVERY_SECONDS = 0.05
"""At the slots of a host that does not listen yet, so that it does as soon as it is idle; that asks nobody else."""

STAY_SECONDS = 1.0
LISTEN_SECONDS = 30.0
LISTEN_AGAIN_SECONDS = 300.0
"""Pause after an echo that did not come: a pooler stands in between, and polling does the work."""

IDLE_SECONDS = 3.0
"""A host counts as idle for so long after a worker was seen idle: one that happens to look, or to run a short job, at
this very moment is no reason to stop listening for a second."""

BUSY_JOBS_PER_SECOND = 200.0
"""Above this rate a host looks for itself often enough; notifications would only cost."""

MOST_HEARD_PER_SECOND = 200.0
DEAF_SECONDS = 10.0
"""A host that hears so much more than it runs is woken by jobs of types or queues that it does not serve. Each of them
costs whoever enqueues it, so the host polls for a while; eight clients at once enqueued at half their speed."""

RATE_SECONDS = 1.0
"""The rate is that of the last second."""


class WakeUps:
    """What the keeper knows about idle workers, and the ear that it has in the database."""

    def __init__(self, link: DatabaseLink, slots: Sequence[Slot], pipes: Sequence[int], *, host_id: str) -> None:
        self._link = link
        self._slots = slots
        self._pipes = pipes
        self._host_id = host_id
        self.look_at = 0.0
        self._announced_at = self._idle_until = 0.0
        self._is_listening = False
        self._heard, self._heard_since, self._done_before = 0, time.monotonic(), self._jobs_done()
        self._counts = deque([(time.monotonic(), self._jobs_done())])

    def look_when_due(self, now: float) -> None:
        """The host listens if a worker was idle lately and jobs are few, and else does not."""
        if now < self.look_at:
            return
        self.look_at = now + (STAY_SECONDS if self._is_listening else LOOK_EVERY_SECONDS)
        if any(slot.state is SlotState.IDLE for slot in self._slots):
            self._idle_until = now + IDLE_SECONDS
        if self._hears_too_much(now):
            self.look_at = now + DEAF_SECONDS
            self.withdraw()
        elif self._rate(now) < BUSY_JOBS_PER_SECOND and now < self._idle_until:
            self._announce(now)
        else:
            self.withdraw()

    def pass_on(self) -> None:
        """If a notification has come, the idle workers look."""
        if self._is_listening:
            heard = self._link.take_notifications().count(self._link.schema)
            self._heard += heard
            if heard:
                self.wake_idle()
            if self._heard > MOST_HEARD_PER_SECOND:
                self.look_at = 0.0  # not only when the second is over: meanwhile each of them costs somebody

    def wake_idle(self) -> None:
        """Every idle worker looks for a job now."""
        for slot in self._slots:
            if slot.state is SlotState.IDLE:
                wake(self._pipes[slot.index])

    def withdraw(self) -> None:
        """Nobody notifies for this host's sake any more."""
        if not self._is_listening:
            return
        self._is_listening = False
        try:
            with self._link.autocommit() as ledger:
                withdraw_listener(ledger, self._host_id)
        except RunledgerError as error:
            log(logging.INFO, "listener.not_withdrawn", code=error.code)  # its row ends by itself

    def _announce(self, now: float) -> None:
        if self._is_listening and self._link.is_listening and now < self._announced_at + LISTEN_SECONDS / 3:
            return
        if not self._link.listen(WAKE_CHANNEL):
            self.look_at = now + LISTEN_AGAIN_SECONDS
            log(logging.WARNING, "listener.unavailable", reason="no notification came back; polling instead")
            return
        with self._link.autocommit() as ledger:
            announce_listener(ledger, self._host_id, listen_seconds=LISTEN_SECONDS)
        self._announced_at = now
        if not self._is_listening:
            self._is_listening = True
            self.look_at = now + STAY_SECONDS
            self.wake_idle()  # a job may have come before anybody listened

    def _hears_too_much(self, now: float) -> bool:
        """Whether most of what was heard since the last look was no work for this host."""
        done = self._jobs_done()
        in_vain = self._heard - max(0, done - self._done_before)  # a fresh worker counts from zero again
        seconds = now - self._heard_since
        self._heard, self._heard_since, self._done_before = 0, now, done
        return in_vain > MOST_HEARD_PER_SECOND * max(seconds, RATE_SECONDS)

    def _rate(self, now: float) -> float:
        """Jobs that ended each second on this host, over the last one."""
        done = self._jobs_done()
        while len(self._counts) > 1 and self._counts[0][0] <= now - RATE_SECONDS:
            self._counts.popleft()
        since, before = self._counts[0]
        self._counts.append((now, done))
        return max(0, done - before) / max(now - since, RATE_SECONDS)

    def _jobs_done(self) -> int:
        return sum(slot.jobs_done for slot in self._slots)


def wake(pipe: int) -> None:
    """Whoever waits on the pipe looks again; when it is full, enough wake-ups wait already."""
    with contextlib.suppress(BlockingIOError):
        os.write(pipe, b"w")
