"""``max_running``: how many jobs of a type have a lease at a time, whoever claims and however attempts end."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest
from postgres.conftest import Connect
from postgres.observing import Connection, count

from runledger.core.definitions import JobDefinition, check_definition
from runledger.core.errors import InvalidDefinition
from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.states import JobStatus
from runledger.postgres.claim import claim_jobs
from runledger.postgres.connection import borrow
from runledger.postgres.definition_reads import get_job_definition
from runledger.postgres.definitions import set_definition_paused, sync_definitions
from runledger.postgres.explain import explain_job
from runledger.postgres.limits import LOCK_LIMITED_TYPES, lock_parameters
from runledger.postgres.operations import cancel_job
from runledger.postgres.reads import get_job
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_definition, a_job, expired, failed, released, succeeded

TYPE, OTHER = "test.limited", "test.free"
LIMIT, WORKERS, JOBS = 3, 6, 150


def claim(
    connection: Connection, limit: int = 100, *, types: Sequence[str] = (TYPE,), queues: Sequence[str] | None = None
) -> list[ClaimedJob]:
    with connection.transaction():
        return claim_jobs(connection, worker_id="w", job_types=types, limit=limit, lease_ttl_seconds=60, queues=queues)


def waiting(connection: Connection, jobs: int, job_type: str = TYPE) -> None:
    for _ in range(jobs):
        a_job(connection, job_type)


def test_one_claim_takes_half_of_what_is_free_and_leaves_the_rest_to_others(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=10)
    waiting(connection, 20)

    taken = [len(claim(connection)) for _ in range(6)]

    assert taken == [5, 3, 1, 1, 0, 0]


@pytest.mark.parametrize(("limit", "taken"), [(1, 1), (2, 1), (3, 2)])
def test_the_last_free_place_is_taken_too(connection: Connection, limit: int, taken: int) -> None:
    a_definition(connection, TYPE, max_running=limit)
    waiting(connection, 5)

    assert len(claim(connection)) == taken
    while claim(connection):
        pass
    assert count(connection, "job_leases") == limit


def test_a_place_is_free_when_a_lease_is_gone_whichever_way(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=1)
    waiting(connection, 5)

    for end in (succeeded, failed, released):
        [job] = claim(connection)
        assert claim(connection) == []
        settle_jobs(connection, [end(job)])
    [job] = claim(connection)
    cancel_job(connection, job.job_id, scope=Scope.any())
    [job] = claim(connection)
    connection.execute("UPDATE runledger.job_leases SET lease_expires_at = now() - interval '1 second'")
    assert claim(connection) == []  # its handler may still run
    reap_lapsed_leases(connection)
    assert len(claim(connection)) == 1


def test_a_settle_in_the_same_transaction_frees_the_place(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=1)
    waiting(connection, 2)
    [job] = claim(connection)

    with connection.transaction():
        settle_jobs(connection, [succeeded(job)])
        assert len(claim(connection)) == 1


def test_other_types_are_claimed_beside_it_in_the_order_of_all(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2)
    a_definition(connection, OTHER)
    for priority, job_type in ((5, OTHER), (4, TYPE), (3, OTHER), (2, TYPE), (1, OTHER)):
        a_job(connection, job_type, priority=priority)

    assert [job.job_type for job in claim(connection, types=(TYPE, OTHER))] == [OTHER, TYPE, OTHER, OTHER]


def test_without_a_transaction_no_place_can_be_taken_and_other_types_are(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2)
    a_definition(connection, OTHER)
    waiting(connection, 1)
    waiting(connection, 1, OTHER)

    [job] = claim_jobs(connection, worker_id="w", job_types=[TYPE, OTHER], limit=5, lease_ttl_seconds=60)

    assert job.job_type == OTHER


def test_while_one_transaction_claims_another_takes_none_and_knows_why(
    connection: Connection, connect: Connect
) -> None:
    a_definition(connection, TYPE, max_running=10)
    waiting(connection, 4)
    other = connect()

    with connection.transaction():
        assert len(claim(connection, limit=1)) == 1
        assert claim(other) == []
        asked = borrow(other).fetch(LOCK_LIMITED_TYPES, lock_parameters("runledger", [TYPE], None))
        assert asked == [("{}", 1, None)]

    assert len(claim(other)) == 3
    asked = borrow(other).fetch(LOCK_LIMITED_TYPES, lock_parameters("runledger", [TYPE], None))
    assert asked == [("{}", 0, None)]  # nothing waits


def test_another_schema_is_not_in_the_way(connection: Connection, connect: Connect) -> None:
    a_definition(connection, TYPE, max_running=1)
    waiting(connection, 1)
    other = connect()

    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1818848628, hashtext('tenant:' || %s))", (TYPE,))
        assert len(claim(other)) == 1


def test_a_snapshot_of_before_the_lock_takes_none(connection: Connection) -> None:
    """It would not see the leases of claims that were committed since."""
    a_definition(connection, TYPE, max_running=2)
    waiting(connection, 1)

    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert claim_jobs(connection, worker_id="w", job_types=[TYPE], limit=5, lease_ttl_seconds=60) == []
    assert len(claim(connection)) == 1


def test_paused_types_and_other_queues_are_left_alone(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2, queue="slow")
    waiting(connection, 1)

    assert claim(connection, queues=["default"]) == []
    set_definition_paused(connection, TYPE, is_paused=True)
    assert claim(connection) == []
    set_definition_paused(connection, TYPE, is_paused=False)
    assert len(claim(connection, queues=["slow"])) == 1


def test_a_limit_that_is_lowered_lets_what_runs_end_and_one_that_is_lifted_lets_all_run(
    connection: Connection,
) -> None:
    a_definition(connection, TYPE, max_running=8)
    waiting(connection, 12)
    running = claim(connection)
    assert len(running) == 4

    assert sync_definitions(connection, [JobDefinition(TYPE, max_running=2)]) == (TYPE,)
    assert claim(connection) == []
    settle_jobs(connection, [succeeded(job) for job in running[:3]])
    assert len(claim(connection)) == 1

    assert sync_definitions(connection, [JobDefinition(TYPE)]) == (TYPE,)
    assert len(claim(connection)) == 7


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.5, "3", True])
def test_a_limit_is_a_whole_number_above_zero(value: object) -> None:
    with pytest.raises(InvalidDefinition, match="max_running"):
        check_definition(JobDefinition(TYPE, max_running=value))  # type: ignore[arg-type]


def test_explain_says_that_the_limit_is_reached(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2)
    waiting(connection, 2)
    last = a_job(connection, TYPE)
    while claim(connection):
        pass

    told = explain_job(connection, last.job_id, scope=Scope.any())

    assert "2 of at most 2 jobs of its type run" in told.verdict
    assert f"runledger job list --type {TYPE} --stage running" in told.advice


def test_claims_that_race_never_have_more_leases_than_allowed(
    connection: Connection, connect: Connect, in_background: Callable[..., "Future[None]"]
) -> None:
    a_definition(connection, TYPE, max_running=LIMIT)
    waiting(connection, JOBS)
    start = threading.Barrier(WORKERS)

    def work(worker: Connection) -> None:
        start.wait(10)
        while count(worker, "job_ready"):
            settle_jobs(worker, [succeeded(job) for job in claim(worker, limit=1)])

    for one in [in_background(work, connect()) for _ in range(WORKERS)]:
        one.result(300)

    history = connection.execute("SELECT leased_at, finished_at FROM runledger.job_attempts").fetchall()
    steps = sorted([(ended, -1) for _, ended in history] + [(began, 1) for began, _ in history])
    running = peak = 0
    for _, step in steps:
        running += step
        peak = max(peak, running)
    assert len(history) == JOBS
    assert 1 < peak <= LIMIT
    assert count(connection, "job_ready") == 0


def test_a_job_of_a_limited_type_ends_like_any_other(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=1)
    job = a_job(connection, TYPE)
    [claimed] = claim(connection)
    settle_jobs(connection, [succeeded(claimed)])

    assert get_job(connection, job.job_id, scope=Scope.any()).status is JobStatus.SUCCEEDED


def test_no_more_start_in_the_span_than_the_rate_allows(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="5/h")
    waiting(connection, 9)

    claims = [claim(connection, limit=2) for _ in range(4)]
    assert [len(jobs) for jobs in claims] == [2, 2, 1, 0]
    settle_jobs(connection, [succeeded(job) for jobs in claims for job in jobs])
    assert claim(connection) == []  # it counts starts, whatever became of them

    connection.execute(
        "UPDATE runledger.job_starts SET started_at = started_at - interval '1 hour' WHERE ctid IN"
        " (SELECT ctid FROM runledger.job_starts ORDER BY started_at LIMIT 3)"
    )
    assert len(claim(connection)) == 3
    assert count(connection, "job_starts") == 5  # those that are too old to count are gone


def test_the_lock_says_when_the_next_may_start(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="2/m")
    waiting(connection, 3)
    claim(connection)
    connection.execute("UPDATE runledger.job_starts SET started_at = started_at - interval '45 seconds'")

    [(locked, busy, free_in)] = borrow(connection).fetch(LOCK_LIMITED_TYPES, lock_parameters("runledger", [TYPE], None))

    assert (locked, busy) == ("{}", 0)
    assert 5 < free_in <= 15


def test_both_limits_hold_together(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2, rate_limit="3/h")
    waiting(connection, 9)

    first = claim(connection) + claim(connection)
    assert (len(first), claim(connection)) == (2, [])
    settle_jobs(connection, [succeeded(job) for job in first])
    assert (len(claim(connection)), claim(connection)) == (1, [])


def test_a_rate_is_stored_and_read_as_it_is_written(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="60/60s", max_running=4)

    stored = get_job_definition(connection, TYPE).definition

    assert (stored.rate_limit, stored.max_running) == ("60/m", 4)
    assert sync_definitions(connection, [replace(stored, rate_limit="60/1m")]) == ()
    assert sync_definitions(connection, [replace(stored, rate_limit="61/m")]) == (TYPE,)


def test_explain_says_that_the_rate_is_used_up(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="1/h")
    waiting(connection, 1)
    last = a_job(connection, TYPE)
    claim(connection)

    told = explain_job(connection, last.job_id, scope=Scope.any())

    assert "1 of at most 1 jobs of its type started in the last 3,600 s" in told.verdict


def test_claims_that_race_never_start_more_than_the_rate_allows(
    connection: Connection, connect: Connect, in_background: Callable[..., "Future[None]"]
) -> None:
    """In any second of the history, not only in those that begin at a round time; fewer, where a claim takes long."""
    a_definition(connection, TYPE, rate_limit="20/s")
    waiting(connection, 50)
    start = threading.Barrier(WORKERS)

    def work(worker: Connection) -> None:
        start.wait(10)
        while count(worker, "job_ready"):
            settle_jobs(worker, [succeeded(job) for job in claim(worker, limit=3)])

    for one in [in_background(work, connect()) for _ in range(WORKERS)]:
        one.result(300)

    [(worst,)] = connection.execute(
        "SELECT max((SELECT count(*) FROM runledger.job_attempts b"
        " WHERE b.leased_at > a.leased_at - interval '1 second' AND b.leased_at <= a.leased_at))"
        " FROM runledger.job_attempts a"
    ).fetchall()
    assert 1 < worst <= 20
    assert count(connection, "job_attempts") == 50


def test_what_runs_when_a_limit_is_set_counts(connection: Connection) -> None:
    a_definition(connection, TYPE)
    waiting(connection, 9)
    assert len(claim(connection, limit=4)) == 4

    a_definition(connection, TYPE, max_running=5)

    assert (len(claim(connection)), claim(connection)) == (1, [])


def test_what_starts_when_a_rate_is_set_counts_from_the_next_claim_on(connection: Connection) -> None:
    a_definition(connection, TYPE)
    waiting(connection, 9)
    assert len(claim(connection, limit=3)) == 3

    a_definition(connection, TYPE, rate_limit="5/h")

    assert len(claim(connection, limit=1)) == 1
    assert count(connection, "job_starts") == 4
    assert (len(claim(connection)), claim(connection)) == (1, [])


def test_the_largest_limit_is_a_limit(connection: Connection) -> None:
    a_definition(connection, TYPE, max_running=2**31 - 1)
    waiting(connection, 3)

    assert len(claim(connection)) == 3


def test_what_goes_back_unbegun_is_no_start(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="3/h")
    waiting(connection, 5)
    first, second, third = claim(connection)

    settle_jobs(connection, [released(first), expired(second), succeeded(third)])

    assert count(connection, "job_starts") == 1
    assert (len(claim(connection)), claim(connection)) == (2, [])


def test_two_claims_in_one_transaction_note_each_start_once(connection: Connection) -> None:
    a_definition(connection, TYPE, rate_limit="9/h")
    waiting(connection, 4)

    with connection.transaction():
        assert [len(claim(connection, limit=2)) for _ in range(2)] == [2, 2]
    assert count(connection, "job_starts") == 4


@pytest.mark.parametrize("name", ["NULL", "{}", "{a,b}", 'a"b', "a'b", "a\\b", "a,b", "%s", "größe", "a:b"])
def test_a_type_may_have_any_name(connection: Connection, name: str) -> None:
    a_definition(connection, name, max_running=1)
    waiting(connection, 2, name)

    assert len(claim(connection, types=[name])) == 1
    assert claim(connection, types=[name]) == []
