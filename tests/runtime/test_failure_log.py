"""How often a process says that its ticks fail."""

from itertools import pairwise
from typing import Any

import pytest

from runledger.core.errors import DatabaseUnavailable, LockNotAvailable
from runledger.runtime import loop
from runledger.runtime.loop import LONGEST_SILENCE_SECONDS, FailureLog

Said = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    lines: Said = []
    monkeypatch.setattr(loop, "log", lambda level, event, **fields: lines.append((event, fields)))
    return lines


def test_an_outage_is_told_at_once_and_then_less_and_less_often(said: Said) -> None:
    failures = FailureLog()
    told_at: list[float] = []
    for tick in range(10 * 3_600):
        now = 1_000.0 + tick / 10
        before = len(said)
        failures.note(DatabaseUnavailable("away"), 0.1, now)
        told_at += [now] * (len(said) - before)

    pauses = [round(later - earlier) for earlier, later in pairwise(told_at)]
    assert told_at[0] == 1_000.0
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {LONGEST_SILENCE_SECONDS}
    assert said[1][1]["failures"] == 11, "how many there were in all"


def test_another_kind_of_failure_is_told_at_once(said: Said) -> None:
    failures = FailureLog()

    for now in (0.0, 0.1, 0.2):
        failures.note(DatabaseUnavailable("away"), 0.1, now)
        failures.note(LockNotAvailable("locked"), 0.1, now)

    assert [fields["code"] for _, fields in said] == [DatabaseUnavailable.code, LockNotAvailable.code]


def test_the_end_of_an_outage_is_told_once_and_the_next_one_at_once(said: Said) -> None:
    failures = FailureLog()
    for now in (0.0, 0.1, 0.2):
        failures.note(DatabaseUnavailable("away"), 0.1, now)
    for now in (0.3, 0.4):
        failures.end(now)
    failures.note(DatabaseUnavailable("away"), 0.1, 0.5)
    failures.end(0.6)

    assert [event for event, _ in said] == ["tick.failed", "tick.recovered", "tick.failed"]
    assert said[1][1] == {"failures": 3, "after": "0.3s"}
