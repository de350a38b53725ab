"""Who leaves next while the workers of a host are replaced."""

import time

import pytest

from runledger.runtime.replacing import LONG_SECONDS, Replacement
from runledger.runtime.slots import Slot, SlotState, SlotTable

SECOND = 1_000_000_000


@pytest.fixture
def slots() -> tuple[Slot, ...]:
    """Four idle workers."""
    made = SlotTable(4).slots
    for slot in made:
        arrive(slot)
    return made


def arrive(slot: Slot) -> None:
    slot.reset(slot.incarnation + 1, 0)
    slot.set_pid(1_000 + slot.index)
    slot.turn(SlotState.IDLE, 0)


def run_since(slot: Slot, began_at: int) -> None:
    slot.turn(SlotState.BUSY, began_at)
    slot.hold([7], began_at)
    slot.begin(0, 7, began_at, began_at + 600 * SECOND)


def indexes(slots: list[Slot]) -> list[int]:
    return [slot.index for slot in slots]


def test_one_leaves_after_the_other_each_when_all_slots_are_ready(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    now = time.monotonic_ns()
    assert replacement.begin() == 4

    for expected in range(4):
        assert indexes(replacement.next_to_leave(now)) == [expected]
        assert replacement.next_to_leave(now) == [], "it has not left yet"
        slots[expected].clear()
        assert replacement.next_to_leave(now) == [], "nobody has come in its place yet"
        arrive(slots[expected])

    assert replacement.next_to_leave(now) == []


def test_who_runs_nothing_leaves_before_who_runs_a_short_job(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    now = time.monotonic_ns()
    replacement.begin()
    for slot in slots[:3]:
        run_since(slot, now)

    assert indexes(replacement.next_to_leave(now)) == [3]
    slots[3].clear()
    arrive(slots[3])
    assert indexes(replacement.next_to_leave(now)) == [0]


def test_long_jobs_hold_nobody_up_and_their_workers_leave_when_they_end(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    now = time.monotonic_ns()
    replacement.begin()
    for slot in slots[:2]:
        run_since(slot, now - round((LONG_SECONDS + 1) * SECOND))

    assert indexes(replacement.next_to_leave(now)) == [2, 0, 1]
    slots[2].clear()
    arrive(slots[2])
    assert indexes(replacement.next_to_leave(now)) == [3]


def test_a_worker_whose_job_grows_long_is_not_waited_for(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    began_at = time.monotonic_ns()
    replacement.begin()
    for slot in slots:
        run_since(slot, began_at)
    assert indexes(replacement.next_to_leave(began_at)) == [0]
    for slot in slots[1:]:
        run_since(slot, began_at + round(LONG_SECONDS * SECOND))

    assert indexes(replacement.next_to_leave(began_at + round((LONG_SECONDS + 1) * SECOND))) == [1]


def test_with_two_slots_empty_those_in_long_jobs_stay_until_one_is_ready(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    now = time.monotonic_ns()
    replacement.begin()
    for slot in slots:
        run_since(slot, now - 60 * SECOND)
    assert indexes(replacement.next_to_leave(now)) == [0, 1, 2, 3]
    slots[0].clear()
    assert replacement.next_to_leave(now) == []
    slots[1].clear()

    assert replacement.next_to_leave(now) == []
    assert [slot.is_asked_to_leave for slot in slots[2:]] == [False, False]
    arrive(slots[0])
    assert indexes(replacement.next_to_leave(now)) == [2, 3]


def test_a_replacement_that_is_stopped_asks_nobody_and_lets_everybody_stay(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    replacement.begin()
    [asked] = replacement.next_to_leave(time.monotonic_ns())

    replacement.stop()

    assert not asked.is_asked_to_leave
    assert replacement.next_to_leave(time.monotonic_ns()) == []


def test_slots_that_stay_empty_on_purpose_hold_nobody_up(slots: tuple[Slot, ...]) -> None:
    replacement = Replacement(slots)
    slots[0].clear()
    replacement.begin()

    assert replacement.next_to_leave(time.monotonic_ns()) == []
    assert indexes(replacement.next_to_leave(time.monotonic_ns(), {0})) == [1]
