"""Figures of attempts: what the roll-up and its tail say together is what a plain count of all attempts says."""

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from postgres.observing import count, scalar, until

from runledger.core.errors import InvalidRequest
from runledger.core.jobs import Scope
from runledger.core.metrics import MetricsBy, percentiles, window_of
from runledger.core.states import Outcome
from runledger.postgres.metrics import get_job_metrics
from runledger.postgres.metrics_rollup import prune_metrics, roll_up_metrics
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_definition,
    a_job,
    a_leased_job,
    age_lease,
    claim_one,
    dead_lettered,
    failed,
    succeeded,
)

ANY = Scope.any()
TENANT = UUID(int=7)
DAY = timedelta(days=1)
NOON = datetime(2026, 11, 22, 12, 34, 56, tzinfo=UTC)
WITHIN = 2 ** (1 / 8) - 1
COUNTED_UNTIL = "SELECT counted_until FROM runledger.job_metrics_progress"
SAFE = "SELECT safe_until FROM runledger.job_metrics_progress"
COUNTED = """
SELECT coalesce(sum(attempts), 0)::bigint FROM runledger.job_metrics_rollup
WHERE series = 'any' AND measure NOT IN ('WAIT', 'DURATION')
"""
SPREAD = """
INSERT INTO runledger.job_attempts
    (job_id, lease_token, run_number, attempt, next_run_at, leased_at, started_at, finished_at, outcome, worker_id)
SELECT %(job_id)s, nextval('runledger.lease_token'), 1, 1, leased - %(wait)s, leased, started,
       clock_timestamp() - %(ago)s, %(outcome)s, %(worker)s
FROM (SELECT clock_timestamp() - %(ago)s - %(duration)s AS leased,
             clock_timestamp() - %(ago)s - %(duration)s AS started) AS made
"""


def rolled_up(connection, *, step=timedelta(days=40)):
    """Steps until all that finished a minute ago is counted, however long other transactions of the server take; the
    steps that counted."""
    began = scalar(connection, "SELECT clock_timestamp()")
    steps = []

    def is_counted():
        steps.append(roll_up_metrics(connection, step=step))
        return scalar(connection, COUNTED_UNTIL) >= began - timedelta(seconds=60)

    until(is_counted)
    return [one.attempts for one in steps if one.attempts]


def many_attempts(connection, *, seed, attempts=300, oldest=10_800.0):
    """Attempts of the last hours; answers with what each was."""
    chance = random.Random(seed)
    jobs = [
        (job_type, tenant, a_job(connection, job_type, organization_id=tenant).job_id)
        for job_type in ("a", "b")
        for tenant in (None, TENANT)
    ]
    made = []
    for _ in range(attempts):
        job_type, tenant, job_id = chance.choice(jobs)
        one = {
            "job_id": job_id,
            "wait": timedelta(milliseconds=10 ** chance.uniform(-1, 6)),
            "duration": timedelta(milliseconds=10 ** chance.uniform(-1, 5)),
            "ago": timedelta(seconds=chance.uniform(0, oldest)),
            "outcome": chance.choice(["SUCCEEDED", "RETRYABLE", "TIMEOUT", "CANCELED"]),
            "worker": chance.choice(["w1", "w2"]),
        }
        connection.execute(SPREAD, one)
        made.append(one | {"type": job_type, "tenant": tenant})
    return made


def assert_same(metrics, expected):
    """The line says what a plain count of these attempts says, percentiles within their width."""
    assert metrics.attempts == len(expected)
    counted = {outcome.value: number for outcome, number in metrics.outcomes.items() if number}
    assert counted == dict(Counter(one["outcome"] for one in expected))
    for name in ("wait", "duration"):
        known = sorted(one[name].total_seconds() for one in expected)
        for share in (50, 95, 99):
            exact = known[math.ceil(share / 100 * len(known)) - 1]
            assert getattr(getattr(metrics, name), f"p{share}") == pytest.approx(exact, rel=WITHIN + 1e-3, abs=0.001)


@pytest.mark.parametrize("seed", range(4))
def test_roll_up_and_tail_agree_with_a_plain_count(connection, seed):
    made = many_attempts(connection, seed=seed)
    assert sum(rolled_up(connection)) > 250
    made += many_attempts(connection, seed=seed + 100, attempts=50, oldest=50.0)

    lines = {one.name: one for one in get_job_metrics(connection, scope=ANY)}
    assert set(lines) == {"a", "b"}
    for name, line in lines.items():
        assert_same(line, [one for one in made if one["type"] == name])
    for scope, tenant in ((Scope.organization(TENANT), TENANT), (Scope.global_only(), None)):
        for line in get_job_metrics(connection, scope=scope):
            assert_same(line, [one for one in made if one["type"] == line.name and one["tenant"] == tenant])
    for line in get_job_metrics(connection, scope=ANY, by=MetricsBy.WORKER):
        assert_same(line, [one for one in made if one["worker"] == line.name])
    [queue] = get_job_metrics(connection, scope=ANY, by=MetricsBy.QUEUE)
    assert_same(queue, made)


def test_a_window_is_whole_hours(connection):
    made = many_attempts(connection, seed=1)
    now = scalar(connection, "SELECT clock_timestamp()")
    rolled_up(connection)
    window = window_of(now - timedelta(hours=2), now - timedelta(hours=1), now=now)

    [queue] = get_job_metrics(connection, scope=ANY, since=window.since, until=window.until, by=MetricsBy.QUEUE)

    inside = connection.execute(
        "SELECT count(*) FROM runledger.job_attempts WHERE finished_at >= %s AND finished_at < %s",
        [window.since, window.until],
    ).fetchone()[0]
    assert 0 < queue.attempts == inside < len(made)


def test_each_attempt_is_counted_once_however_often_it_is_looked_at(connection):
    many_attempts(connection, seed=2)
    aged = scalar(connection, "SELECT count(*) FROM runledger.job_attempts WHERE finished_at < now() - interval '60 s'")

    assert sum(rolled_up(connection)) == scalar(connection, COUNTED) >= aged
    assert sum(rolled_up(connection)) <= 5  # those of the last seconds


def test_short_steps_come_to_the_same_end(connection):
    many_attempts(connection, seed=3)
    roll_up_metrics(connection, step=timedelta(0))
    connection.execute("UPDATE runledger.job_metrics_progress SET counted_until = now() - interval '5 hours'")

    steps = rolled_up(connection, step=timedelta(hours=1))

    assert len(steps) >= 3
    assert sum(steps) == scalar(connection, COUNTED) > 250


def test_a_crash_before_the_commit_counts_nothing(connection, connect):
    many_attempts(connection, seed=4)
    until(lambda: (roll_up_metrics(connection, step=timedelta(0)), scalar(connection, SAFE) > NOON)[1])
    dying = connect(autocommit=False)
    assert roll_up_metrics(dying, step=timedelta(days=40)).attempts > 250
    dying.rollback()

    assert scalar(connection, COUNTED) == 0
    assert sum(rolled_up(connection)) == scalar(connection, COUNTED) > 250


def test_the_watermark_waits_for_whoever_may_still_commit_an_attempt(connection, connect):
    job = a_leased_job(connection)
    writer = connect(autocommit=False)
    settle_jobs(writer, [succeeded(job)])
    finished_at = scalar(writer, "SELECT finished_at FROM runledger.job_attempts")
    for _ in range(5):
        roll_up_metrics(connection, step=timedelta(days=40))
        connection.execute("UPDATE runledger.job_metrics_progress SET seen_at = seen_at + interval '1 hour'")

    assert scalar(connection, COUNTED_UNTIL) < finished_at
    writer.commit()
    until(lambda: (roll_up_metrics(connection, step=timedelta(days=40)), scalar(connection, COUNTED) == 1)[1])
    assert get_job_metrics(connection, scope=ANY)[0].attempts == 1


def test_places_dead_letters_and_outcomes_are_those_of_now(connection):
    a_definition(connection, "idle")
    lapsed = a_leased_job(connection, "busy", worker_id="w")
    age_lease(connection, lapsed, seconds=600)
    a_job(connection, "busy")
    a_job(connection, "busy", delay=60)
    settle_jobs(connection, [dead_lettered(claim_one(connection, "busy"))])
    a_job(connection, "busy")
    settle_jobs(connection, [failed(claim_one(connection, "busy"), retry_seconds=50)])
    a_job(connection, "busy", organization_id=TENANT)

    busy, idle = get_job_metrics(connection, scope=ANY)

    assert (idle.name, idle.ready, idle.attempts, idle.wait, idle.success_rate) == ("idle", 0, 0, None, None)
    assert (busy.ready, busy.scheduled, busy.leased, busy.stale_leases, busy.dead_lettered) == (1, 2, 1, 1, 1)
    assert busy.outcomes[Outcome.TERMINAL] == busy.outcomes[Outcome.RETRYABLE] == 1
    assert busy.success_rate == 0.0
    assert busy.oldest_due_seconds is not None
    theirs = get_job_metrics(connection, scope=Scope.organization(TENANT))[0]
    assert (theirs.ready, theirs.scheduled, theirs.leased, theirs.dead_lettered) == (1, 0, 0, 0)
    [worker, _] = get_job_metrics(connection, scope=ANY, by=MetricsBy.WORKER)
    assert (worker.name, worker.leased, worker.stale_leases) == ("w", 1, 1)


def test_a_wait_runs_from_due_to_leased(connection):
    a_job(connection)
    connection.execute("UPDATE runledger.job_ready SET next_run_at = next_run_at - interval '100 s'")
    settle_jobs(connection, [succeeded(claim_one(connection))])

    [line] = get_job_metrics(connection, scope=ANY)

    assert line.wait.p50 == pytest.approx(100, rel=WITHIN + 0.05)


def test_figures_outlive_the_attempts_and_leave_after_a_month(connection):
    many_attempts(connection, seed=5)
    rolled_up(connection)
    [before] = get_job_metrics(connection, scope=ANY, by=MetricsBy.QUEUE)
    connection.execute(f"DELETE FROM runledger.job_attempts WHERE finished_at < ({COUNTED_UNTIL})".encode())
    [after] = get_job_metrics(connection, scope=ANY, by=MetricsBy.QUEUE)
    assert (after.outcomes, after.wait, after.duration) == (before.outcomes, before.wait, before.duration)

    connection.execute("UPDATE runledger.job_metrics_rollup SET slot = slot - interval '32 days'")
    assert prune_metrics(connection) > 0
    assert count(connection, "job_metrics_rollup") == 0


def test_what_cannot_be_asked_is_refused(connection):
    with pytest.raises(InvalidRequest):
        get_job_metrics(connection, scope=Scope.global_only(), by=MetricsBy.WORKER)
    for since, end in ((NOON, NOON), (NOON + DAY, NOON), (NOON.replace(tzinfo=None), None)):
        with pytest.raises(InvalidRequest):
            get_job_metrics(connection, scope=ANY, since=since, until=end)


def test_windows_and_percentiles():
    day = window_of(None, None, now=NOON)
    assert (day.since, day.until) == (NOON.replace(minute=0, second=0) - DAY, NOON.replace(hour=13, minute=0, second=0))
    assert percentiles({}) is None
    assert percentiles({0: 1}).p50 == 0.0005
    assert percentiles({1: 98, 41: 2}).p95 == pytest.approx(0.001 * 2 ** (1 / 8))
    assert percentiles({1: 98, 41: 2}).p99 == pytest.approx(1.024 * 2 ** (1 / 8))
