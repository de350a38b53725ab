"""What the supervisor tells the keeper of a dead worker."""

import os
import signal

import pytest

from runledger import Outcome
from runledger.runtime.obituary import Obituary, write_obituary
from runledger.runtime.slots import SlotTable


def a_wait_status(*, exits: int | None = None, killed_by: int | None = None) -> int:
    """The wait status of a real child that ended so."""
    pid = os.fork()
    if pid == 0:
        if killed_by is not None:
            os.kill(os.getpid(), killed_by)
        os._exit(exits or 0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("cause", ["crash", "timeout", "canceled", "memory", "wedged", "shutdown"])
@pytest.mark.parametrize(("running", "started_ago"), [(0, None), (9, 1.25)])
def test_a_line_says_all_of_it(cause: str, running: int, started_ago: float | None) -> None:
    told = Obituary("høst\n.0.1", cause, 0, 9, running, [7, 8, 9], started_ago, 12, 34)

    line = told.to_line()

    assert line.count(b"\n") == 1
    assert Obituary.from_line(line) == told


def test_the_slot_of_the_dead_says_what_it_was_doing() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)
    slot.hold([7, 8, 9], 1)
    slot.begin(1, 8, 1, 2)

    told = write_obituary(
        slot, "w", cause="crash", wait_status=a_wait_status(killed_by=signal.SIGKILL), cpu_seconds=0.5, max_rss_kb=64
    )

    assert (told.exit_signal, told.exit_status, told.running, told.begun) == (signal.SIGKILL, 0, 8, [7, 8])
    death = told.death()
    assert (death.running, death.ran_unsettled, death.cpu_ms) == (8, [7], 500)
    assert death.failure is not None
    assert death.failure.outcome is Outcome.PANICKED
    assert "SIGKILL" in death.failure.message


def test_an_exit_of_its_own_is_told_with_its_status() -> None:
    [slot] = SlotTable(1).slots
    slot.reset(1, 1)

    told = write_obituary(slot, "w", cause="crash", wait_status=a_wait_status(exits=3), cpu_seconds=0.0, max_rss_kb=0)

    assert (told.exit_signal, told.exit_status, told.running, told.started_ago) == (None, 3, 0, None)
    failure = told.death().failure
    assert failure is not None
    assert "exit status 3" in failure.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGRTMIN + 3], ids=["SIGKILL", "a signal without a name"])
def test_every_signal_can_be_told(number: int) -> None:
    told = Obituary("w", "crash", 0, int(number), 1, [1], 0.1, 0, 0)

    failure = told.death().failure

    assert failure is not None
    assert failure.exit_signal == number


def test_a_shutdown_is_no_failure() -> None:
    assert Obituary("w", "shutdown", 0, 9, 1, [1], 0.1, 0, 0).death().failure is None


def test_who_was_killed_behind_a_lost_lease_did_not_crash() -> None:
    """Should the lease still be there, lapsed and not reaped: the crash budget of the job is untouched."""
    failure = Obituary("w", "canceled", 0, signal.SIGKILL, 9, [9], 1.0, 12, 34).death().failure

    assert failure is not None
    assert (failure.outcome, failure.code) == (Outcome.LEASE_EXPIRED, "job.lease_expired")
