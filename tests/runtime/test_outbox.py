"""The outcomes that wait to be written together."""

import time

import pytest

from runledger.core.results import Succeeded
from runledger.runtime.outbox import Outbox


def an_end(name: str) -> Succeeded:
    return Succeeded(name, 1)


def names(waiting: list) -> list[str]:  # type: ignore[type-arg]
    return [one.end.job_id for one in waiting]


def test_what_could_not_be_written_goes_before_what_came_meanwhile() -> None:
    outbox = Outbox(0.01)
    outbox.add(an_end("a"), 1.0, 2.0)
    outbox.add(an_end("b"), 2.0, 3.0)
    taken = outbox.take()
    assert len(outbox) == 0
    outbox.add(an_end("c"), 3.0, 4.0)

    outbox.put_back(taken)

    assert names(outbox.take()) == ["a", "b", "c"]
    assert outbox.take() == []


@pytest.mark.parametrize(("now", "is_due"), [(100.0, False), (100.009, False), (100.011, True), (200.0, True)])
def test_it_is_due_when_the_oldest_has_waited_for_the_delay(now: float, is_due: bool) -> None:
    outbox = Outbox(0.01)
    outbox.add(an_end("a"), None, 100.0)
    outbox.add(an_end("b"), None, 150.0)

    assert outbox.is_due(now) is is_due


def test_an_empty_one_is_never_due_and_without_a_delay_everything_is() -> None:
    outbox = Outbox(0.0)
    assert not outbox.is_due(1e9)
    outbox.add(an_end("a"), None, 5.0)
    assert outbox.is_due(5.0)


def test_ages_are_measured_when_the_outcomes_are_taken() -> None:
    outbox = Outbox(0.01)
    now = time.monotonic()
    outbox.add(an_end("run"), now - 3.0, now - 1.0)
    outbox.add(an_end("unstarted"), None, now - 2.0)

    run, unstarted = (one.end for one in outbox.take())

    assert run.started_ago == pytest.approx(3.0, abs=0.5)
    assert run.finished_ago == pytest.approx(1.0, abs=0.5)
    assert unstarted.started_ago is None
