"""Some callers stepped statement by statement on a real server, in every order.

Each caller has a connection and a thread of its own, and stops before each statement and before its commit. A caller
whose statement waits for a lock is seen by ``pg_blocking_pids``; then only the others can go on.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from runledger import RunledgerError
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.statements import Parameters, Row, Statement

Connection = psycopg.Connection[Any]
Operation = Callable[[PsycopgConnection], Any]
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.002
BLOCKERS = "SELECT cardinality(pg_blocking_pids(%s))"
READY, BLOCKED, DONE = "READY", "BLOCKED", "DONE"


class SteppedConnection(PsycopgConnection):
    """Waits for its turn before each statement."""

    __slots__ = ("wait_for_turn",)

    def __init__(self, driver: Connection, wait_for_turn: Callable[[], None]) -> None:
        super().__init__(driver, "runledger")
        self.wait_for_turn = wait_for_turn

    def _execute(self, statement: Statement, parameters: Parameters) -> list[Row]:
        self.wait_for_turn()
        return super()._execute(statement, parameters)


class Caller:
    """One transaction of one caller. ``told`` is what it was answered: the operation's value, or an error's code."""

    def __init__(self, driver: Connection, operation: Operation) -> None:
        self.driver = driver
        self._operation = operation
        self._turns: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.steps = 0
        self.told: Any = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.state = self._said.get(timeout=PATIENCE_SECONDS)

    def _run(self) -> None:
        ledger = SteppedConnection(self.driver, self._wait_for_turn)
        try:
            try:
                self.told = self._operation(ledger)
            except RunledgerError as error:
                self.told = error.code
                self.driver.rollback()
            else:
                self._wait_for_turn()
                self.driver.commit()
        except BaseException as error:  # told by the explorer, which fails by it
            self.failure = error
            self.driver.rollback()
        finally:
            self._said.put(DONE)

    def _wait_for_turn(self) -> None:
        self._said.put(READY)
        self._turns.get(timeout=PATIENCE_SECONDS)

    def step(self, watcher: Connection) -> None:
        """Its next statement has run, or waits for a lock of another."""
        self.steps += 1
        self._turns.put(True)
        self._follow(watcher)

    def look(self, watcher: Connection) -> None:
        """A caller that waited for a lock may have got it meanwhile."""
        if self.state == BLOCKED:
            self._follow(watcher)

    def _follow(self, watcher: Connection) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.state = self._said.get(timeout=LOOK_SECONDS)
                return
            except queue.Empty:
                row = watcher.execute(BLOCKERS, (self.driver.info.backend_pid,)).fetchone()
                if row is not None and row[0]:
                    self.state = BLOCKED
                    return
        raise AssertionError("a statement neither ended nor waited for a lock")


def interleave(
    drivers: Sequence[Connection], operations: Sequence[Operation], watcher: Connection, order: list[int]
) -> tuple[list[Any], list[int], list[list[int]]]:
    """All operations, in the order given as far as it goes and in any other then. Answers with what each was told, the
    order that was taken, and who could have gone at each turn."""
    callers = [Caller(driver, operation) for driver, operation in zip(drivers, operations, strict=False)]
    taken: list[int] = []
    choices: list[list[int]] = []
    while any(one.state != DONE for one in callers):
        able = [number for number, one in enumerate(callers) if one.state == READY]
        if not able:
            raise AssertionError(f"all wait for each other after {taken}")
        number = order[len(taken)] if len(taken) < len(order) and order[len(taken)] in able else able[0]
        choices.append(able)
        taken.append(number)
        callers[number].step(watcher)
        for other in callers:
            if other is not callers[number]:
                other.look(watcher)
    for one in callers:
        if one.failure is not None:
            raise one.failure
    return [one.told for one in callers], taken, choices


def every_order(run: Callable[[list[int]], tuple[list[int], list[list[int]]]], *, most: int) -> Iterator[list[int]]:
    """Runs once for each order there is, at most ``most`` times; yields the orders taken."""
    waiting: list[list[int]] = [[]]
    runs = 0
    while waiting and runs < most:
        prefix = waiting.pop()
        taken, choices = run(prefix)
        runs += 1
        yield taken
        for position in range(len(prefix), len(taken)):
            for other in choices[position]:
                if other != taken[position]:
                    waiting.append([*taken[:position], other])
