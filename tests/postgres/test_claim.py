"""Claiming: who gets which job, in which order, and what a claim never touches."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from postgres.observing import count, place_of, scalar, snapshot, until_blocked

from runledger.core.errors import InvalidLeaseDuration
from runledger.core.jobs import Scope
from runledger.core.states import JobStage, JobStatus
from runledger.postgres.claim import CLAIM_JOBS, claim_jobs, claim_parameters
from runledger.postgres.connection import borrow
from runledger.postgres.definitions import set_definition_enabled, set_definition_paused
from runledger.postgres.leases import save_progress
from runledger.postgres.operations import cancel_job
from runledger.postgres.reads import get_job
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_definition, a_job, a_leased_job, claim_one, failed, succeeded

ANY = Scope.any()


def claim(connection, *job_types, limit=10, worker_id="worker-1", ttl=60.0, queues=None):
    return claim_jobs(
        connection,
        worker_id=worker_id,
        job_types=job_types or ["test.job"],
        limit=limit,
        lease_ttl_seconds=ttl,
        queues=queues,
    )


def ids(jobs):
    return [str(job.job_id) for job in jobs]


def test_a_claim_leases_the_job_and_counts_the_attempt(connection):
    job = a_job(connection, payload={"order": 7})

    [claimed] = claim(connection, worker_id="worker-9", ttl=30)

    assert (claimed.job_id, claimed.attempt, claimed.run_number) == (str(job.job_id), 1, 1)
    assert (claimed.max_attempts, claimed.timeout_seconds, claimed.payload) == (3, 300, '{"order": 7}')
    assert (claimed.checkpoint, claimed.organization_id, claimed.is_expired) == (None, None, False)
    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.stage, stored.worker_id) == (JobStatus.LEASED, JobStage.RUNNING, "worker-9")
    assert (stored.lease_expires_at - stored.leased_at).total_seconds() == pytest.approx(30, abs=0.001)
    assert place_of(connection, job.job_id) == ["job_leases"]


def test_a_claim_takes_the_highest_priority_first_then_the_earliest_due_then_the_oldest(connection):
    now = scalar(connection, "SELECT now()")
    late = a_job(connection, next_run_at=now - timedelta(seconds=1))
    early = a_job(connection, next_run_at=now - timedelta(seconds=9))
    first_of_two = a_job(connection, next_run_at=now - timedelta(seconds=5))
    second_of_two = a_job(connection, next_run_at=now - timedelta(seconds=5))
    urgent = a_job(connection, priority=10)
    unimportant = a_job(connection, priority=-10, next_run_at=now - timedelta(days=1))

    assert ids(claim(connection)) == ids([urgent, early, first_of_two, second_of_two, late, unimportant])


def test_the_order_holds_across_types(connection):
    jobs = [a_job(connection, f"type.{index % 3}", priority=index) for index in range(9)]

    claimed = claim(connection, "type.0", "type.1", "type.2", limit=5)

    assert ids(claimed) == ids(reversed(jobs[4:]))


def test_a_claim_takes_only_the_types_it_names(connection):
    a_job(connection, "other.job", priority=100)
    mine = a_job(connection)

    assert ids(claim(connection)) == ids([mine])


def test_a_claim_without_types_asks_nothing(connect):
    closed = connect()
    closed.close()

    assert claim_jobs(closed, worker_id="w", job_types=[], limit=5, lease_ttl_seconds=1) == []
    assert claim(closed, limit=0) == []
    assert claim(closed, limit=-1) == []


def test_a_type_named_twice_gets_no_larger_share(connection):
    first = a_job(connection, "type.a", priority=2)
    a_job(connection, "type.a", priority=0)
    second = a_job(connection, "type.b", priority=1)

    assert ids(claim(connection, "type.a", "type.a", "type.b", limit=2)) == ids([first, second])


def test_a_claim_takes_no_more_than_its_limit(connection):
    for _ in range(5):
        a_job(connection)

    assert len(claim(connection, limit=3)) == 3
    assert len(claim(connection, limit=3)) == 2
    assert claim(connection, limit=3) == []


def test_a_claim_stays_in_its_queues(connection):
    a_definition(connection, "mail.send", queue="mail")
    a_definition(connection, "report.build", queue="reports")
    mail = a_job(connection, "mail.send")
    report = a_job(connection, "report.build")
    types = ("mail.send", "report.build")

    assert claim(connection, *types, queues=["nothing"]) == []
    assert claim(connection, *types, queues=[]) == []
    assert ids(claim(connection, *types, queues=["mail"])) == ids([mail])
    assert ids(claim(connection, *types, queues=["mail", "reports"])) == ids([report])


def test_a_paused_type_is_not_claimed_until_it_is_resumed(connection):
    job = a_job(connection)
    set_definition_paused(connection, "test.job", is_paused=True)
    assert claim(connection) == []

    set_definition_paused(connection, "test.job", is_paused=False)

    assert ids(claim(connection)) == ids([job])


def test_a_disabled_type_is_still_claimed(connection):
    job = a_job(connection)
    set_definition_enabled(connection, "test.job", is_enabled=False)

    assert ids(claim(connection)) == ids([job])


def test_a_type_without_a_definition_is_not_claimed(connection):
    assert claim(connection, "nobody.knows") == []


def test_a_job_due_later_is_not_claimed(connection):
    a_job(connection, delay=60)

    assert claim(connection) == []


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_a_lease_that_ends_at_once_is_refused_before_any_sql(connection, connect, ttl):
    a_job(connection)
    before = snapshot(connection)
    closed = connect()
    closed.close()

    with pytest.raises(InvalidLeaseDuration) as refused:
        claim(closed, ttl=ttl)

    assert refused.value.code == "job.invalid_lease_duration"
    assert snapshot(connection) == before


def test_two_claims_at_once_share_the_jobs(connection, connect):
    jobs = [a_job(connection) for _ in range(4)]
    first, second = connect(autocommit=False), connect(autocommit=False)

    taken_first = claim(first, limit=2, worker_id="first")
    taken_second = claim(second, limit=4, worker_id="second")

    assert ids(taken_first) == ids(jobs[:2])
    assert ids(taken_second) == ids(jobs[2:])
    first.commit()
    second.commit()
    assert claim(connection) == []


def test_a_rolled_back_claim_leaves_the_jobs_in_line_but_not_its_tokens(connection, connect):
    a_job(connection)
    before = snapshot(connection)
    worker = connect(autocommit=False)
    [taken] = claim(worker)

    worker.rollback()

    assert snapshot(connection) == before
    assert claim_one(connection).lease_token > taken.lease_token


def test_a_claim_locks_what_it_takes_and_no_more(connection, connect):
    for _ in range(20):
        for job_type in ("type.a", "type.b", "type.c"):
            a_job(connection, job_type)
    first, second = connect(autocommit=False), connect()

    assert len(claim(first, "type.a", "type.b", "type.c", limit=6)) == 6

    assert len(claim(second, "type.a", "type.b", "type.c", limit=60)) == 54


def test_an_expired_job_is_claimed_with_a_flag(connection):
    now = datetime.now(UTC)
    a_job(connection, expires_at=now - timedelta(seconds=5), priority=2)
    a_job(connection, expires_at=now + timedelta(hours=5), priority=1)

    assert [job.is_expired for job in claim(connection)] == [True, False]


@pytest.mark.parametrize(
    "poison",
    ["9" * 5000, "[" * 3000 + "]" * 3000, '"' + "x" * 300_000 + '"', "1e300"],
    ids=["5000 digits", "3000 deep", "300 kB", "1e300"],
)
def test_a_poisoned_payload_does_not_break_the_batch_it_is_fetched_with(connection, poison):
    a_job(connection)
    poisoned = a_job(connection)
    a_job(connection)
    connection.execute(
        "UPDATE runledger.job_queue SET payload = %s::jsonb, checkpoint = %s::jsonb WHERE id = %s",
        (poison, poison, poisoned.job_id),
    )

    claimed = claim(connection)

    assert len(claimed) == 3
    assert all(isinstance(job.payload, str) for job in claimed)
    assert settle_jobs(connection, [succeeded(job) for job in claimed]) == {job.job_id for job in claimed}
    assert get_job(connection, poisoned.job_id, scope=ANY).status is JobStatus.SUCCEEDED


def test_the_next_attempt_finds_checkpoint_and_progress_of_the_last(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, done=1, total=4, checkpoint='{"page": 2}')
    settle_jobs(connection, [failed(job, retry_seconds=0)])

    again = claim_one(connection)

    assert (again.attempt, json.loads(again.checkpoint)) == (2, {"page": 2})
    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.progress_done, stored.progress_total) == (1, 4)


def test_lease_tokens_only_grow(connection):
    tokens = []
    for _ in range(5):
        a_job(connection)
        tokens.append(claim_one(connection).lease_token)

    assert tokens == sorted(set(tokens))


def test_a_job_that_is_being_cancelled_is_skipped(connection, connect):
    job = a_job(connection)
    other = a_job(connection)
    person = connect(autocommit=False)
    cancel_job(person, job.job_id, scope=ANY)

    assert ids(claim(connection)) == ids([other])
    person.commit()
    assert claim(connection) == []


def test_a_cancel_that_waited_for_a_claim_takes_the_lease_away(connection, connect, in_background):
    job = a_job(connection)
    worker, person = connect(autocommit=False), connect()
    [claimed] = claim(worker)
    cancelling = in_background(cancel_job, person, job.job_id, scope=ANY)
    until_blocked(connection, person)

    worker.commit()
    cancelling.result(10)

    assert settle_jobs(connection, [succeeded(claimed)]) == set()
    assert get_job(connection, job.job_id, scope=ANY).status is JobStatus.CANCELED
    assert count(connection, "job_leases") == 0


def test_a_claim_names_the_organization(connection):
    organization = "0190a5a4-0000-7000-8000-000000000001"
    a_job(connection, organization_id=organization)

    assert claim_one(connection).organization_id == organization


def test_a_claim_from_a_waterline_leaves_what_is_due_before_it(connection):
    now = scalar(connection, "SELECT now()")
    below = a_job(connection, priority=9, next_run_at=now - timedelta(seconds=60))
    above = a_job(connection, next_run_at=now - timedelta(seconds=10))
    wanted = claim_parameters(
        worker_id="w",
        job_types=["test.job"],
        limit=10,
        lease_ttl_seconds=60,
        queues=None,
        waterlines={"test.job": str(now - timedelta(seconds=30))},
    )

    rows = borrow(connection).fetch(CLAIM_JOBS, wanted)

    assert [row[0] for row in rows] == [str(above.job_id)]
    assert ids(claim(connection)) == [str(below.job_id)]
