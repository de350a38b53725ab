"""Crashes at named points of the real path: a worker passes them in its slot, and the fault ends it there.

What a crash leaves in the database is what a worker that died there leaves: nothing is settled, and the lease runs out.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from runledger.runtime.slots import Slot


class CrashPoint(StrEnum):
    """Where a worker may end, in the order in which it passes."""

    AFTER_CLAIM = "after_claim"
    BEFORE_SETTLE = "before_settle"


@dataclass(frozen=True, slots=True)
class Fault:
    """The worker ends at ``point`` of the ``job``-th job it claims, counted from 1: it stops there, or, with
    ``is_killed``, runs in a process of its own that gets SIGKILL there."""

    point: CrashPoint
    job: int = 1
    is_killed: bool = False


def crash_after_claim(*, job: int = 1, kill: bool = False) -> Fault:
    """The worker ends when it has leased a job and not begun it."""
    return Fault(CrashPoint.AFTER_CLAIM, job, kill)


def crash_before_settle(*, job: int = 1, kill: bool = False) -> Fault:
    """The worker ends when the handler has done its work and nothing of its end is written: the job runs again."""
    return Fault(CrashPoint.BEFORE_SETTLE, job, kill)


class SimulatedCrash(BaseException):
    """The worker ends here. No handler and no loop catches it; ``drain`` does."""


class FaultySlot(Slot):
    """The slot of a worker that ends at a fault."""

    __slots__ = ("_claimed", "_fault")

    def __init__(self, slot: Slot, fault: Fault) -> None:
        super().__init__(slot._words, slot.index)
        self._fault = fault
        self._claimed = 0

    def hold(self, tokens: Sequence[int], claimed_at: int, *, begun: int = 0) -> None:
        super().hold(tokens, claimed_at, begun=begun)
        self._claimed += len(tokens) - begun
        if len(tokens) > begun:
            self._pass(CrashPoint.AFTER_CLAIM)

    def end(self) -> None:
        self._pass(CrashPoint.BEFORE_SETTLE)
        super().end()

    def _pass(self, point: CrashPoint) -> None:
        if self._fault.point is point and self._claimed == self._fault.job:
            if self._fault.is_killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise SimulatedCrash
