"""The supervisor looks at slots that their workers write at the same moment."""

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from runledger import JobsConfig
from runledger.runtime.fleet import Fleet
from runledger.runtime.slots import Slot, SlotState, SlotTable

HOUR = 3_600_000_000_000


def reason_to_kill(slot: Any, monkeypatch: pytest.MonkeyPatch) -> str | None:
    fleet: Any = Fleet.__new__(Fleet)
    monkeypatch.setattr(fleet, "_slot_of", lambda child: slot, raising=False)
    fleet._config, fleet._longest_wait_seconds = JobsConfig(), 30
    reason: str | None = fleet._reason_to_kill(SimpleNamespace(pid=os.getpid()), time.monotonic_ns())
    return reason


def a_slot(*, deadline: int) -> Slot:
    [slot] = SlotTable(1).slots
    now = time.monotonic_ns()
    slot.reset(1, now)
    slot.turn(SlotState.BUSY, now)
    slot.hold([7], now)
    slot.begin(0, 7, now, deadline)
    return slot


@pytest.mark.parametrize("name", ["hard_deadline", "interrupt_deadline"])
def test_a_deadline_that_is_taken_away_while_somebody_looks_is_no_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([time.monotonic_ns() + HOUR] + [0] * 9)
    monkeypatch.setattr(Slot, name, property(lambda slot: next(answers)))

    assert reason_to_kill(a_slot(deadline=time.monotonic_ns() + HOUR), monkeypatch) is None


def test_a_passed_deadline_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic_ns()
    interrupted = a_slot(deadline=now + HOUR)
    interrupted.interrupt(7, now - 1)
    of_an_earlier_job = a_slot(deadline=now + HOUR)
    of_an_earlier_job.interrupt(6, now - 1)

    assert reason_to_kill(a_slot(deadline=now - 1), monkeypatch) == "timeout"
    assert reason_to_kill(interrupted, monkeypatch) == "canceled"
    assert reason_to_kill(of_an_earlier_job, monkeypatch) is None
