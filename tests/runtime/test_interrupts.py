"""Exceptions from outside reach user code only, and only the attempt they are meant for."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from runledger import JobCancelled, JobTimeout
from runledger.runtime.interrupts import ARM_AGAIN_SECONDS, CANCEL_SIGNAL, Interrupts
from runledger.runtime.slots import Slot, SlotTable

pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture
def slot() -> Slot:
    [made] = SlotTable(1).slots
    made.reset(1, 1)
    return made


@pytest.fixture
def interrupts(slot: Slot) -> Iterator[Interrupts]:
    made = Interrupts(slot)
    yield made
    made.leave()
    signal.setitimer(signal.ITIMER_REAL, 0)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def cancel(slot: Slot, token: int) -> None:
    slot.interrupt(token)
    os.kill(os.getpid(), CANCEL_SIGNAL)


def test_the_timeout_is_raised_in_user_code(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)

    with pytest.raises(JobTimeout):
        spin(2.0)


def test_the_timeout_of_an_ended_attempt_is_raised_nowhere(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)
    interrupts.leave()

    spin(0.1)


def test_the_timeout_of_an_ended_attempt_does_not_hit_the_next(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)
    interrupts.leave()
    interrupts.enter(2, 30)

    spin(0.1)


def test_an_alarm_that_was_set_for_an_earlier_attempt_serves_the_next(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.2)
    interrupts.leave()
    began_at = time.monotonic()
    interrupts.enter(2, 0.3)

    with pytest.raises(JobTimeout):
        spin(2.0)

    assert time.monotonic() - began_at >= 0.29


def test_a_shorter_timeout_does_not_wait_for_an_alarm_that_is_set(interrupts: Interrupts) -> None:
    interrupts.enter(1, 30)
    interrupts.leave()
    interrupts.enter(2, 0.05)

    with pytest.raises(JobTimeout):
        spin(2.0)


def test_an_alarm_between_two_attempts_is_set_again_for_the_next(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)
    interrupts.leave()
    spin(0.1)
    interrupts.enter(2, 0.05)

    with pytest.raises(JobTimeout):
        spin(2.0)


def test_an_alarm_that_a_handler_took_away_is_set_again(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.3)
    signal.setitimer(signal.ITIMER_REAL, 0)
    interrupts.leave()
    spin(ARM_AGAIN_SECONDS * 1.5)
    interrupts.enter(2, 0.3)

    with pytest.raises(JobTimeout):
        spin(2.0)


def test_a_timeout_inside_framework_code_follows_at_its_end(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)
    reached: list[str] = []

    with pytest.raises(JobTimeout):
        with interrupts.shielded():
            spin(0.1)
            reached.append("the end of the framework's part")
        reached.append("user code")

    assert reached == ["the end of the framework's part"]


def test_an_error_of_framework_code_does_not_swallow_the_timeout(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)

    with pytest.raises(JobTimeout) as raised, interrupts.shielded():
        spin(0.1)
        raise ValueError("the write failed")

    assert isinstance(raised.value.__context__, ValueError)


def test_a_nested_shield_holds_until_the_outer_end(interrupts: Interrupts) -> None:
    interrupts.enter(1, 0.05)
    reached: list[str] = []

    with pytest.raises(JobTimeout), interrupts.shielded():
        with interrupts.shielded():
            spin(0.1)
        reached.append("between")

    assert reached == ["between"]


def test_a_cancel_is_raised_for_its_own_token(interrupts: Interrupts, slot: Slot) -> None:
    interrupts.enter(7, 30)

    with pytest.raises(JobCancelled):
        cancel(slot, 7)


def test_a_cancel_for_an_earlier_attempt_is_not_raised(interrupts: Interrupts, slot: Slot) -> None:
    interrupts.enter(8, 30)

    cancel(slot, 7)
    spin(0.01)


def test_a_cancel_between_two_attempts_is_not_raised(interrupts: Interrupts, slot: Slot) -> None:
    interrupts.enter(7, 30)
    interrupts.leave()

    cancel(slot, 7)
    interrupts.enter(8, 30)
    spin(0.01)


def test_a_stray_signal_cancels_nothing(interrupts: Interrupts) -> None:
    interrupts.enter(7, 30)

    os.kill(os.getpid(), CANCEL_SIGNAL)
    spin(0.01)
