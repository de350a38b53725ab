"""The timeline of a job: complete and in order for every story, and at one with the table of transitions."""

import pytest
from postgres.observing import scalar

from runledger.core.jobs import Scope
from runledger.core.states import JOB_TRANSITIONS, JobStatus
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.reads import get_job, list_job_attempts, list_job_events
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_job,
    age_lease,
    claim_one,
    continued,
    dead_lettered,
    expired,
    failed,
    make_due,
    released,
    snoozed,
    succeeded,
)

ANY = Scope.any()


def claims_then(end):
    def step(connection, job):
        make_due(connection, job.job_id)
        leased = claim_one(connection)
        assert leased.job_id == str(job.job_id)
        assert settle_jobs(connection, [end(leased)]) == {leased.job_id}

    return step


def cancels(connection, job):
    cancel_job(connection, job.job_id, scope=ANY, actor="ada")
    connection.execute("UPDATE runledger.job_queue SET quiesces_at = clock_timestamp()")


def claims_and_cancels(connection, job):
    make_due(connection, job.job_id)
    claim_one(connection)
    cancels(connection, job)


def requeues(connection, job):
    requeue_job(connection, job.job_id, scope=ANY, actor="ada")


STEPS = {
    "succeed": (claims_then(succeeded), ["claim", "succeed"], JobStatus.SUCCEEDED),
    "retry": (claims_then(failed), ["claim", "retry"], JobStatus.PENDING),
    "dead_letter": (claims_then(dead_lettered), ["claim", "dead_letter"], JobStatus.DEAD_LETTERED),
    "snooze": (claims_then(snoozed), ["claim", "snooze"], JobStatus.PENDING),
    "continue": (claims_then(continued), ["claim", "continue"], JobStatus.PENDING),
    "release": (claims_then(released), ["claim", "release"], JobStatus.PENDING),
    "expire": (claims_then(expired), ["claim", "expire"], JobStatus.CANCELED),
    "cancel": (cancels, ["cancel"], JobStatus.CANCELED),
    "cancel running": (claims_and_cancels, ["claim", "cancel"], JobStatus.CANCELED),
    "requeue": (requeues, ["requeue"], JobStatus.PENDING),
}
STORIES = [
    ["succeed"],
    ["retry", "retry", "succeed"],
    ["retry", "dead_letter"],
    ["snooze", "succeed"],
    ["release", "release", "succeed"],
    ["continue", "continue", "succeed"],
    ["expire"],
    ["cancel"],
    ["cancel running"],
    ["retry", "cancel"],
    ["dead_letter", "requeue", "retry", "succeed"],
    ["cancel running", "requeue", "cancel running", "requeue", "succeed"],
    ["expire", "requeue", "snooze", "release", "continue", "retry", "dead_letter", "requeue", "cancel"],
]


@pytest.mark.parametrize("story", STORIES, ids=" then ".join)
def test_a_story_is_told_completely_and_in_order(connection, story):
    job = a_job(connection)
    expected = list(JOB_TRANSITIONS["enqueue"].events)
    for step in story:
        act, transitions, status = STEPS[step]
        act(connection, job)
        expected += [event for name in transitions for event in JOB_TRANSITIONS[name].events]
        assert JOB_TRANSITIONS[transitions[-1]].target is status
        assert get_job(connection, job.job_id, scope=ANY).status is status

    events = list_job_events(connection, job.job_id, scope=ANY)

    assert [event.event_type for event in events] == expected
    assert [event.occurred_at for event in events] == sorted(event.occurred_at for event in events)


def test_every_transition_is_part_of_a_story():
    told = {name for story in STORIES for step in story for name in STEPS[step][1]}

    assert told | {"enqueue"} == set(JOB_TRANSITIONS)


def test_a_story_names_run_attempt_worker_and_cause(connection):
    job = a_job(connection)
    claims_then(lambda leased: failed(leased, code="mail.down", message="no route"))(connection, job)
    claims_then(dead_lettered)(connection, job)
    requeues(connection, job)

    events = list_job_events(connection, job.job_id, scope=ANY)

    facts = [(event.event_type.value, event.run_number, event.attempt, event.actor) for event in events]
    assert facts == [
        ("ENQUEUED", 1, None, None),
        ("LEASED", 1, 1, "worker-1"),
        ("FAILED", 1, 1, "worker-1"),
        ("RETRY_SCHEDULED", 1, 1, None),
        ("LEASED", 1, 2, "worker-1"),
        ("FAILED", 1, 2, "worker-1"),
        ("DEAD_LETTERED", 1, 2, None),
        ("REQUEUED", 1, None, "ada"),
    ]
    assert events[0].detail == {"job_type": "test.job"}
    assert (events[2].reason, events[2].detail["code"], events[2].detail["message"]) == (
        "RETRYABLE",
        "mail.down",
        "no route",
    )
    [first, _] = list_job_attempts(connection, job.job_id, scope=ANY)
    assert scalar(connection, "SELECT %s::timestamptz", events[3].detail["retry_at"]) == first.retry_at


def test_an_open_attempt_shows_its_lease(connection):
    job = a_job(connection)
    leased = claim_one(connection)

    event = list_job_events(connection, job.job_id, scope=ANY)[-1]

    assert (event.event_type, event.detail["lease_token"]) == ("LEASED", leased.lease_token)
    assert "lease_expires_at" in event.detail


def test_a_reaped_attempt_is_told_like_a_failure(connection):
    job = a_job(connection)
    leased = claim_one(connection)
    connection.execute("UPDATE runledger.job_leases SET lease_expires_at = clock_timestamp()")
    reap_lapsed_leases(connection)

    events = list_job_events(connection, leased.job_id, scope=ANY)

    assert [event.event_type for event in events] == ["ENQUEUED", "LEASED", "FAILED", "RETRY_SCHEDULED"]
    assert (events[2].reason, events[2].detail["code"]) == ("LEASE_EXPIRED", "job.lease_expired")
    assert job.job_id == events[0].job_id


def test_two_workers_and_a_reaper_race_for_one_job(connection, connect):
    """The first worker sleeps past its lease, the reaper recovers, the second worker finishes; both late ones lose."""
    slow, quick, reaper = connect(), connect(), connect()
    job = a_job(connection)
    first = claim_one(slow, worker_id="slow")
    age_lease(connection, job, seconds=61)
    assert reap_lapsed_leases(reaper).retried == (first.job_id,)
    make_due(connection, job.job_id)
    second = claim_one(quick, worker_id="quick")

    assert settle_jobs(slow, [failed(first)]) == set()
    assert reap_lapsed_leases(reaper).retried == ()
    assert settle_jobs(quick, [succeeded(second, {"by": "quick"})]) == {second.job_id}
    assert settle_jobs(slow, [succeeded(first, {"by": "slow"})]) == set()

    stored = get_job(connection, job.job_id, scope=ANY)
    assert (stored.status, stored.output, stored.attempt) == (JobStatus.SUCCEEDED, {"by": "quick"}, 2)
    attempts = list_job_attempts(connection, job.job_id, scope=ANY)
    assert [(one.worker_id, one.outcome.value) for one in attempts] == [
        ("slow", "LEASE_EXPIRED"),
        ("quick", "SUCCEEDED"),
    ]


def test_a_promotion_leaves_no_trace(connection):
    job = a_job(connection, delay=60)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp()")

    promote_due_jobs(connection)

    assert [event.event_type for event in list_job_events(connection, job.job_id, scope=ANY)] == ["ENQUEUED"]
