"""Promotion: what is due becomes ready, once, and nobody waits for it."""

from postgres.observing import place_of, scalar

from runledger.postgres.promote import Promotion, promote_due_jobs
from runledger.testing.factories import a_job


def make_all_due(connection):
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp() - interval '1 second'")


def test_what_is_due_becomes_ready_with_all_it_had(connection):
    job = a_job(connection, delay=60, priority=5)
    make_all_due(connection)
    row = "SELECT to_jsonb(p) FROM runledger.{} p"
    before = scalar(connection, row.format("job_scheduled"))

    assert promote_due_jobs(connection) == Promotion(1, None, has_ready=True)

    assert place_of(connection, job.job_id) == ["job_ready"]
    assert scalar(connection, row.format("job_ready")) == before


def test_what_is_due_later_stays_and_says_when(connection):
    a_job(connection, delay=60)
    a_job(connection, delay=30)

    promotion = promote_due_jobs(connection)

    assert (promotion.promoted, promotion.has_ready) == (0, False)
    assert 20 < promotion.next_due_seconds <= 30


def test_the_earliest_are_promoted_first_within_the_limit(connection):
    late, early = a_job(connection, delay=20), a_job(connection, delay=10)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = next_run_at - interval '1 hour'")

    assert promote_due_jobs(connection, limit=1).promoted == 1

    assert place_of(connection, early.job_id) == ["job_ready"]
    assert place_of(connection, late.job_id) == ["job_scheduled"]


def test_two_keepers_share_what_is_due(connection, connect):
    for _ in range(4):
        a_job(connection, delay=60)
    make_all_due(connection)
    first, second = connect(autocommit=False), connect(autocommit=False)

    assert promote_due_jobs(first, limit=3).promoted == 3
    assert promote_due_jobs(second).promoted == 1
    first.commit()
    second.commit()

    assert scalar(connection, "SELECT count(*) FROM runledger.job_ready") == 4


def test_an_empty_schedule_has_nothing_to_wait_for(connection):
    assert promote_due_jobs(connection) == Promotion(0, None, has_ready=False)


def test_a_promotion_says_whether_anything_is_ready(connection):
    a_job(connection)

    assert promote_due_jobs(connection) == Promotion(0, None, has_ready=True)
