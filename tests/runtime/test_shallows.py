"""When claims start at waterlines, and when they look at the whole line again."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from runledger.runtime import shallows
from runledger.runtime.shallows import Shallows

LINE = {"a": "2026-01-01 00:00:00+00"}
WORKERS = 3
LONGEST, SHORTEST = 1.25, 0.75
"""Of the spread between the looks of different workers."""

HIGHER = {"a": "2026-01-02 00:00:00+00"}


class Database:
    """Answers in as many seconds as it is told, fewer above the line, on a clock of its own; notes where to start."""

    def __init__(self) -> None:
        self.now, self.seconds, self.seconds_above = 1_000.0, 0.0, 0.0
        self.starts: list[Any] = []

    def monotonic(self) -> float:
        return self.now

    @contextlib.contextmanager
    def autocommit(self) -> Iterator[None]:
        yield

    @property
    def whole_looks(self) -> int:
        return self.starts.count(None)

    def find(self, ledger: Any, job_types: Any, *, start: Any = None) -> dict[str, str]:
        self.starts.append(start)
        self.now += self.seconds if start is None else self.seconds_above
        return LINE if start is None else HIGHER


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(shallows, "time", made)
    monkeypatch.setattr(shallows, "find_waterlines", made.find)
    return made


@pytest.fixture
def one(database: Any) -> Shallows:
    return Shallows(database, ["a"], workers=WORKERS)


def test_quick_exchanges_ask_nothing(one: Shallows, database: Database) -> None:
    one.learn(0.009)
    assert one.waterlines() == {}
    assert database.starts == []


def test_a_slow_exchange_whose_look_is_quick_changes_nothing_and_is_not_repeated_at_once(one, database) -> None:
    one.learn(1.0)
    assert one.waterlines() == {}
    assert one.waterlines() == {}
    assert database.starts == [None]


def test_a_slow_look_makes_claims_start_at_waterlines_that_rise(one, database) -> None:
    one.learn(1.0)
    database.seconds = 0.030
    assert one.waterlines() == LINE
    database.now += 0.4
    assert one.waterlines() == LINE
    database.now += 0.2
    assert one.waterlines() == HIGHER
    assert database.starts == [None, LINE, LINE]


def test_a_machine_on_which_every_look_is_slow_claims_from_the_head_of_the_line(one, database) -> None:
    one.learn(1.0)
    database.seconds, database.seconds_above = 0.030, 0.020
    assert one.waterlines() == {}
    assert database.starts == [None, LINE]


def test_the_whole_line_is_looked_at_again_and_waterlines_are_given_up_when_that_is_quick(one, database) -> None:
    one.learn(1.0)
    database.seconds = 0.030
    one.waterlines()
    one.learn(0.001)
    database.now += LONGEST * shallows.LOOK_EVERY_SECONDS
    assert one.waterlines() == LINE
    assert database.whole_looks == 2
    database.seconds = 0.001
    database.now += LONGEST * shallows.LOOK_EVERY_SECONDS
    assert one.waterlines() == {}


@pytest.mark.parametrize(("seconds", "wait"), [(0.2, 10.0), (5.0, WORKERS * shallows.LONGEST_WAIT_SECONDS)])
def test_looks_take_a_fiftieth_of_the_time_and_a_host_waits_half_a_minute_at_most(
    one, database, seconds: float, wait: float
) -> None:
    one.learn(1.0)
    database.seconds = seconds
    one.waterlines()
    ended_at = database.now
    one._raise_at = float("inf")
    for after, looks in ((SHORTEST * wait - 0.1, 1), (LONGEST * wait + 0.1, 2)):
        database.now = ended_at + after
        one.waterlines()
        assert database.whole_looks == looks
