"""The reaper, one tick at a time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from runtime.benches import scalar
from runtime.hosts import Connection, until

from runledger import JobsConfig, JobStatus, Scope, get_job, list_jobs, list_operator_actions
from runledger.postgres import retention
from runledger.postgres.connection import borrow
from runledger.postgres.locks import try_lock_reaper
from runledger.postgres.operator_actions import record_operator_action
from runledger.postgres.settle import settle_jobs
from runledger.runtime.link import DatabaseLink
from runledger.runtime.reaper import Reaper
from runledger.testing.factories import a_job, a_leased_job, age_lease, dead_lettered, succeeded

OpenLink = Callable[..., DatabaseLink]
CONFIG = JobsConfig(max_global_concurrency=1, reaper_interval_seconds=7)


def test_a_lapsed_lease_is_reaped_and_a_live_one_is_not(connection: Connection, open_link: OpenLink) -> None:
    lapsed, live = a_leased_job(connection, "lapsed"), a_leased_job(connection, "live")
    age_lease(connection, lapsed, seconds=61)

    pause = Reaper(open_link(), CONFIG).tick()

    assert pause == 7.0
    assert get_job(connection, lapsed.job_id, scope=Scope.any()).status is JobStatus.PENDING
    assert get_job(connection, live.job_id, scope=Scope.any()).status is JobStatus.LEASED


def test_one_reaper_at_a_time_does_the_work(connection: Connection, open_link: OpenLink, database_url: str) -> None:
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=61)
    reaper = Reaper(open_link(), CONFIG)

    with psycopg.connect(database_url) as other:
        assert try_lock_reaper(borrow(other))
        assert reaper.tick() == 7.0
        assert get_job(connection, job.job_id, scope=Scope.any()).status is JobStatus.LEASED
    reaper.tick()

    assert get_job(connection, job.job_id, scope=Scope.any()).status is JobStatus.PENDING


def test_a_lapsed_last_attempt_goes_to_the_dead_letters(connection: Connection, open_link: OpenLink) -> None:
    job = a_leased_job(connection, max_attempts=1)
    age_lease(connection, job, seconds=61)

    Reaper(open_link(), CONFIG).tick()

    assert get_job(connection, job.job_id, scope=Scope.any()).status is JobStatus.DEAD_LETTERED


def test_a_tick_counts_what_attempts_took_and_two_reapers_count_it_once(
    connection: Connection, open_link: OpenLink
) -> None:
    settle_jobs(connection, [succeeded(a_leased_job(connection))])
    connection.execute("UPDATE runledger.job_attempts SET finished_at = finished_at - interval '1 day'")
    reapers = [Reaper(open_link(), CONFIG), Reaper(open_link(), CONFIG)]

    is_far = "SELECT counted_until > now() - interval '2 h' FROM runledger.job_metrics_progress"

    def are_counted() -> bool:
        for reaper in reapers:
            reaper.tick()
        return bool(scalar(connection, is_far))

    until(are_counted)
    counted = "SELECT sum(attempts) FROM runledger.job_metrics_rollup WHERE series = 'any' AND measure = 'SUCCEEDED'"
    assert scalar(connection, counted) == 1


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ({}, {"succeeded", "dead", "young", "waiting"}),
        ({"retention_days": 30}, {"dead", "young", "waiting"}),
        ({"dead_letter_retention_days": 30}, {"succeeded", "young", "waiting"}),
        ({"retention_days": 30, "dead_letter_retention_days": 30}, {"young", "waiting"}),
    ],
)
def test_what_ended_long_ago_leaves_by_itself(
    connection: Connection,
    open_link: OpenLink,
    monkeypatch: pytest.MonkeyPatch,
    kept: dict[str, int],
    left: set[str],
) -> None:
    monkeypatch.setattr(retention, "_SLACK", timedelta(days=60))  # the rows are aged, their ids cannot be
    settle_jobs(connection, [succeeded(a_leased_job(connection, "succeeded"))])
    settle_jobs(connection, [dead_lettered(a_leased_job(connection, "dead"))])
    connection.execute("UPDATE runledger.job_queue SET finished_at = finished_at - interval '31 days'")
    settle_jobs(connection, [succeeded(a_leased_job(connection, "young"))])
    a_job(connection, "waiting")
    for _ in range(2):
        record_operator_action(connection, "prune", selection={}, affected=1)
        connection.execute("UPDATE runledger.operator_actions SET occurred_at = occurred_at - interval '20 days'")
    reaper = Reaper(open_link(), replace(CONFIG, **kept))

    until(lambda: reaper.tick() == CONFIG.reaper_interval_seconds)

    assert {job.job_type for job in list_jobs(connection, scope=Scope.any())} == left
    assert len(list_operator_actions(connection)) == (1 if "retention_days" in kept else 2)


def test_a_reaper_that_is_told_to_stop_ends(open_link: OpenLink) -> None:
    reaper = Reaper(open_link(), CONFIG)
    reaper.is_stopping = True

    assert reaper.tick() is None
