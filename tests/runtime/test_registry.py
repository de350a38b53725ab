"""What a keeper tells of its workers, and when; and what a whole host leaves behind."""

import json
import os
from collections.abc import Callable

import pytest
from runtime.benches import KeeperBench, scalar
from runtime.hosts import Connection, Desk, Host, until

from runledger import WorkerState, list_workers
from runledger.runtime.registry import NOTICE_BYTES, NoticeBoard
from runledger.runtime.slots import SlotState

MakeKeeper = Callable[..., KeeperBench]
StartHost = Callable[..., Host]
ROWS = "SELECT count(*) FROM runledger.job_workers"
SEEN = "SELECT extract(epoch FROM max(seen_at)) FROM runledger.job_workers"


def test_a_notice_says_what_was_written_last_and_nothing_before() -> None:
    board = NoticeBoard(2)
    assert board.read(1) is None

    board.write(1, ["mail.receipt", "größe"])
    assert json.loads(board.read(1) or "") == ["mail.receipt", "größe"]
    board.write(1, ["mail"])

    assert (board.read(0), board.read(1)) == (None, '["mail"]')


def test_a_notice_that_is_too_long_says_nothing_and_touches_no_other() -> None:
    board = NoticeBoard(2)
    board.write(1, ["mail"])

    board.write(0, ["x" * NOTICE_BYTES])

    assert (board.read(0), board.read(1)) == (None, '["mail"]')


def test_the_keeper_announces_its_workers_at_once_and_then_only_now_and_then(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper(2)
    bench.live_in(bench.slots[0])
    bench.shared.board.write(0, ["mail.receipt"])

    bench.keeper.tick()
    [found] = list_workers(connection)
    seen = scalar(connection, SEEN)
    for _ in range(20):
        bench.keeper.tick()

    assert (found.worker_id, found.state, found.job_types) == ("test.0.1", WorkerState.IDLE, ("mail.receipt",))
    assert (found.pid, found.is_live) == (os.getpid(), True)
    assert (found.rss_kb or 0) > 1_000
    assert scalar(connection, SEEN) == seen


def test_a_worker_that_has_not_imported_its_app_serves_nothing_yet(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    bench.shared.board.write(0, ["of the worker before"])
    bench.live_in(bench.slots[0], state=SlotState.BOOTING)

    bench.keeper.tick()

    [found] = list_workers(connection)
    assert (found.state, found.job_types) == (WorkerState.STARTING, ())


def test_a_quiet_worker_is_told_as_quiet(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    bench.live_in(bench.slots[0])
    bench.slots[0].set_quiet(True)

    bench.keeper.tick()

    assert [one.state for one in list_workers(connection)] == [WorkerState.QUIET]


def test_a_keeper_that_stops_takes_its_workers_off(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    bench.live_in(bench.slots[0])
    bench.keeper.tick()

    bench.keeper.is_stopping = True

    assert bench.keeper.tick() is None
    assert list_workers(connection) == []


def test_a_database_that_refuses_the_registry_keeps_no_lease_from_being_renewed(
    connection: Connection, make_keeper: MakeKeeper, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_keeper()
    bench.live_in(bench.slots[0])
    connection.execute("ALTER TABLE runledger.job_workers ADD CONSTRAINT refuses CHECK (pid < 0) NOT VALID")
    try:
        assert bench.keeper.tick() is not None
    finally:
        connection.execute("ALTER TABLE runledger.job_workers DROP CONSTRAINT refuses")

    assert list_workers(connection) == []


def test_a_host_is_listed_with_its_job_types_and_off_the_list_after_a_clean_stop(
    start_host: StartHost, desk: Desk
) -> None:
    host = start_host().ready()
    until(lambda: any(one.job_types for one in list_workers(desk.connection)), what="a worker is announced")

    found = list_workers(desk.connection)[0]
    assert "hostile" in found.app
    assert found.state in (WorkerState.IDLE, WorkerState.BUSY)
    assert host.stop() == 0

    assert desk.scalar(ROWS) == 0
