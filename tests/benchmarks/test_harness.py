"""The benchmarks run and count right, with sizes that say nothing about speed."""

import os
import time

import pytest

from benchmarks import check, churn, enqueues, growth, limits
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


@pytest.mark.process
def test_a_drain_with_limits_ends(server_url: str) -> None:
    with ledger_database(server_url) as url:
        for run in limits.contest(url, 20).contenders.values():
            assert run()["jobs/s"] > 0


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


def test_a_ratio_is_worse_only_beyond_its_margin() -> None:
    baseline = {"c | jobs/s | ours": 1.0, "c | WAL B/job | ours": 1.0, "c | p50 ms | ours": 1.0}
    near = {"c | jobs/s | ours": 0.8, "c | WAL B/job | ours": 1.04, "c | p50 ms | ours": 9.0, "c | jobs/s | new": 0.1}
    assert check.regressions(near, baseline) == []
    far = check.regressions({"c | jobs/s | ours": 0.7, "c | WAL B/job | ours": 1.2}, baseline)
    assert [str(one) for one in far] == [
        "c | jobs/s | ours: 0.70 x floor, was 1.00",
        "c | WAL B/job | ours: 1.20 x floor, was 1.00",
    ]


def test_what_looks_worse_is_measured_again_and_pairs_are_compared() -> None:
    speeds = iter([1.0, 10.0, 10.0])
    contest = Contest("c", {"floor": lambda: {"jobs/s": 10.0}, "ours": lambda: {"jobs/s": next(speeds)}})
    assert check.judge([contest], {"c | jobs/s | ours": 1.0}, repeats=1) == []
    assert check.ratios([contest]) == {"c | jobs/s | ours": 1.0}


def test_samples_tell_how_long_each_job_waited(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(board.DIRECTORY_VARIABLE, str(tmp_path))
    counter = board.Counter()
    samples = board.Samples(str(tmp_path))
    found = []
    for _ in range(2):
        for _ in range(100):
            counter.begin(time.monotonic_ns() - 5_000_000)
        found.append(samples.new())
    assert [len(some) for some in found] == [96, 96]
    assert all(wait >= 5_000_000 for some in found for _, wait in some)
    assert found[0][-1][0] < found[1][0][0]


def test_the_steps_of_a_churn_are_summed_up_by_phase() -> None:
    step = {"jobs/s": 10.0, "p50 ms": 1.0, "p95 ms": 2.0, "server µs/job": 3.0, "dead rows": 4}
    steps = [{"phase": "before"} | step, *({"phase": "pinned"} | step | {"p50 ms": float(n)} for n in range(8))]
    assert churn.phases(steps)["pinned"]["p50 ms"] == 6.5
    assert "| runledger | 2,000 | before | 10 |" in churn.table({"runledger": steps})


def test_growth_is_measured_with_small_sizes(server_url: str) -> None:
    with ledger_database(server_url) as url:
        assert growth.waiting_jobs(url, 300)["claim ms"] > 0
        assert growth.job_types(url, 3)["claim ms"] > 0
