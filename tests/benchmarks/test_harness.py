"""The benchmarks run and count right, with sizes that say nothing about speed."""

import os
import time

import pytest

from benchmarks import enqueues
from benchmarks.drains import Drain
from benchmarks.floor import hand_loop
from benchmarks.ground import ledger_database
from benchmarks.peers import board, pages
from benchmarks.peers.measure import Sizes, measured_round
from benchmarks.peers.registry import OURS, PEERS
from benchmarks.report import Contest

TINY = Sizes(singles=5, share=0.001, slow_jobs=20, samples=2, chains=2, seconds=20)


@pytest.mark.process
def test_a_round_of_our_own_measures_every_column(server_url: str) -> None:
    figures = measured_round(OURS, server_url, None, TINY)
    missing = {figure for figure, _ in pages.COLUMNS} - set(pages.medians([figures])) - {"statements/job"}
    assert not missing
    assert all(value >= 0 for value in figures.values())


@pytest.mark.process
def test_the_floor_drains_what_it_is_given(server_url: str) -> None:
    with ledger_database(server_url) as url:
        assert Drain(url, 20, 2, 5).run(hand_loop)["jobs/s"] > 0
        assert enqueues.measured(url, 3, enqueues.one)["WAL B/job"] > 0


def test_a_contest_gives_medians_of_what_each_contender_said() -> None:
    said = iter([1.0, 9.0, 2.0])
    contest = Contest("one", {"floor": lambda: {"x": next(said)}})
    for turn in range(3):
        contest.run_once(turn)
    assert contest.medians("x") == {"floor": 2.0}


def test_the_board_counts_jobs_and_times(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(board.DIRECTORY_VARIABLE, str(tmp_path))
    assert board.read(str(tmp_path)) == (0, 0, 0)
    before = time.monotonic_ns()
    counter = board.Counter()
    counter.begin()
    counter.begin()
    state = board.read(str(tmp_path))
    assert state.begun == 2
    assert before <= state.first_ns <= state.last_ns
    assert (tmp_path / str(os.getpid())).exists()


def test_the_table_names_who_could_not_be_measured() -> None:
    result = {"rounds": {OURS.name: [{"drain jobs/s": 10.0}]}, "versions": {}, "failed": {"rq": "no\nRedis | here"}}
    assert "| rq | " in pages.kept(result)
    assert "no Redis / here" in pages.kept(result)
    assert len(pages.kept(result).splitlines()) == len(PEERS) + 2
    assert "**runledger**" in pages.table(result)
