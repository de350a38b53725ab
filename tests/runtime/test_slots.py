"""The shared slots, also across a fork."""

import os
from collections.abc import Callable

from runledger.runtime.slots import LARGEST_BATCH, Slot, SlotState, SlotTable


def in_a_child(action: Callable[[], None]) -> int:
    """The exit status of a child that did it: 0, or 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_a_child_writes_its_parent_reads() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(3, 11)

    def live() -> None:
        slot.set_pid(os.getpid())
        slot.hold([7, 8, 9], 100)
        slot.begin(1, 8, 200, 300)
        slot.turn(SlotState.BUSY, 250)

    assert in_a_child(live) == 0

    assert slot.pid not in (0, os.getpid())
    assert (slot.incarnation, slot.spawned_at, slot.state, slot.turn_at) == (3, 11, SlotState.BUSY, 250)
    assert (slot.running_token, slot.started_at, slot.hard_deadline, slot.claimed_at) == (8, 200, 300, 100)
    assert slot.tokens() == ([7, 8], [9])


def test_what_a_parent_asks_its_child_sees() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    slot.interrupt(2**62)
    slot.ask_to_leave()
    slot.set_quiet(True)

    def look() -> None:
        assert (slot.interrupted_token, slot.is_asked_to_leave, slot.is_quiet) == (2**62, True, True)

    assert in_a_child(look) == 0


def test_a_new_process_inherits_nothing_from_the_one_before() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    slot.hold([5], 1)
    slot.begin(0, 5, 1, 2)
    slot.ask_to_leave()
    slot.interrupt(5)

    slot.reset(2, 9)

    assert slot.tokens() == ([], [])
    assert (slot.state, slot.incarnation, slot.running_token, slot.hard_deadline) == (SlotState.BOOTING, 2, 0, 0)
    assert (slot.is_asked_to_leave, slot.interrupted_token, slot.jobs_done) == (False, 0, 0)


def test_neighbours_do_not_share_a_word() -> None:
    first, second, third = SlotTable(3).slots
    for slot in (first, third):
        slot.reset(1, 1)
        slot.hold([-1] * LARGEST_BATCH, -1)
        slot.begin(LARGEST_BATCH - 1, -1, -1, -1)

    assert (second.pid, second.state, second.tokens()) == (0, SlotState.EMPTY, ([], []))


def test_an_ended_job_leaves_its_lease_among_those_that_have_begun() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    slot.hold([4, 5], 1)
    slot.begin(0, 4, 1, 2)
    slot.end()

    assert (slot.running_token, slot.hard_deadline, slot.jobs_done) == (0, 0, 1)
    assert slot.tokens() == ([4], [5])


def test_a_cleared_slot_is_empty_and_has_no_deadline_left() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    slot.set_pid(17)
    slot.hold([4], 1)
    slot.begin(0, 4, 1, 2)

    slot.clear()

    assert (slot.pid, slot.state) == (0, SlotState.EMPTY)
    assert slot.hard_deadline == 0, "a deadline of nobody keeps the supervisor awake"


def test_a_slot_of_the_largest_batch_holds_every_token() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    tokens = list(range(1, LARGEST_BATCH + 1))
    slot.hold(tokens, 1)

    assert slot.tokens() == ([], tokens)
    assert isinstance(slot, Slot)
