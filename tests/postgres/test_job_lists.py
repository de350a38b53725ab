"""Lists of jobs by every filter: the same jobs as a plain look through all of them, each once, newest first."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from postgres.observing import scalar

from runledger.core.errors import InvalidIdentifier, InvalidRequest
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus
from runledger.postgres import job_walks
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.reads import list_dead_letters, list_job_attempts, list_job_events, list_jobs
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_definition,
    a_job,
    a_leased_job,
    claim_one,
    dead_lettered,
    failed,
    make_due,
    succeeded,
)

ANY = Scope.any()
TENANT = UUID(int=7)


@pytest.fixture
def ledger(connection):
    """Two jobs in each status, of two types, some of a tenant, some with a tag."""
    a_definition(connection, "mail", queue="post")
    a_definition(connection, "report")
    for job_type, organization_id in (("mail", TENANT), ("report", None)):
        options = {"organization_id": organization_id}
        settle_jobs(connection, [succeeded(a_leased_job(connection, job_type, **options))])
        settle_jobs(
            connection, [dead_lettered(a_leased_job(connection, job_type, **options), code=f"{job_type}.broke")]
        )
        again = a_leased_job(connection, job_type, **options)
        settle_jobs(connection, [dead_lettered(again)])
        requeue_job(connection, again.job_id, scope=ANY)
        settle_jobs(connection, [succeeded(claim_one(connection, job_type))])
        cancel_job(connection, a_job(connection, job_type, **options).job_id, scope=ANY)
        a_leased_job(connection, job_type, **options)
        a_job(connection, job_type, delay=60, tags=["late"], **options)
        a_job(connection, job_type, tags=["a", "b"], **options)
    return connection


def walked(connection, size=1, **options):
    """All pages of the list, which must end."""
    found, before = [], None
    for _ in range(100):
        page = list_jobs(connection, before=before, limit=size, **options)
        found += page
        before = page.next_before
        if before is None:
            return found
    raise AssertionError("the pages do not end")


CASES = [
    ({}, lambda job: True),
    ({"job_type": "mail"}, lambda job: job.job_type == "mail"),
    ({"queue": "post"}, lambda job: job.job_type == "mail"),
    ({"queue": "nobody"}, lambda job: False),
    ({"tag": "b"}, lambda job: "b" in job.tags),
    ({"error_code": "mail.broke"}, lambda job: job.last_error_code == "mail.broke"),
    *(({"status": status}, lambda job, status=status: job.status is status) for status in JobStatus),
    *(
        ({"status": status, "job_type": "report"}, lambda job, s=status: (job.status, job.job_type) == (s, "report"))
        for status in JobStatus
    ),
    ({"status": "PENDING", "tag": "late"}, lambda job: "late" in job.tags),
    ({"status": "DEAD_LETTERED", "error_code": "report.broke"}, lambda job: job.last_error_code == "report.broke"),
]
SCOPES = [
    (ANY, lambda job: True),
    (Scope.organization(TENANT), lambda job: job.organization_id == TENANT),
    (Scope.global_only(), lambda job: job.organization_id is None),
]


@pytest.mark.parametrize(("scope", "is_seen"), SCOPES)
@pytest.mark.parametrize("walk", [2, 10_000])
def test_every_filter_finds_what_a_look_at_all_jobs_finds(ledger, monkeypatch, scope, is_seen, walk):
    everything = list_jobs(ledger, scope=ANY, limit=1_000)
    assert len(everything) == 14
    monkeypatch.setattr(job_walks, "LONGEST_WALK", walk)
    monkeypatch.setattr(job_walks, "LONGEST_WALK_OF_PLACES", walk)

    for options, is_wanted in CASES:
        expected = [job for job in everything if is_wanted(job) and is_seen(job)]
        for size in (1, 3, 1_000):
            assert walked(ledger, size, scope=scope, **options) == expected, (options, size)


def test_a_walk_that_stopped_short_says_where_the_next_page_begins(ledger, monkeypatch):
    monkeypatch.setattr(job_walks, "LONGEST_WALK", 5)
    fifth = list_jobs(ledger, scope=ANY, limit=5)[-1]

    page = list_jobs(ledger, scope=ANY, error_code="nobody.knows")

    assert (page, page.next_before) == ([], fifth.job_id)


def test_a_time_window_is_a_range_of_ids(ledger):
    everything = list_jobs(ledger, scope=ANY, limit=1_000)
    middle = scalar(ledger, "SELECT now()")
    later = a_job(ledger, "mail")
    written_at = datetime.fromtimestamp((later.job_id.int >> 80) / 1_000, UTC)

    assert middle - timedelta(milliseconds=2) <= written_at
    assert list_jobs(ledger, scope=ANY, created_after=written_at)[0].job_id == later.job_id
    assert later.job_id not in {job.job_id for job in list_jobs(ledger, scope=ANY, created_before=written_at)}
    assert walked(ledger, scope=ANY, created_before=written_at - timedelta(days=1)) == []
    assert len(walked(ledger, scope=ANY, created_after=written_at - timedelta(days=1))) == len(everything) + 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"status": "DONE"}, InvalidRequest),
        ({"created_after": datetime(2027, 1, 1)}, InvalidRequest),  # noqa: DTZ001 - naive on purpose
        ({"tag": " "}, InvalidIdentifier),
        ({"queue": "\0"}, InvalidIdentifier),
    ],
)
def test_a_filter_that_cannot_match_is_refused_before_any_sql(connect, options, error):
    closed = connect()
    closed.close()

    with pytest.raises(error):
        list_jobs(closed, scope=ANY, **options)


def test_attempts_and_events_of_a_job_come_in_pages_that_cover_each_once(connection):
    job = a_job(connection, max_attempts=9)
    for _ in range(4):
        settle_jobs(connection, [failed(claim_one(connection))])
        make_due(connection, job)
    cancel_job(connection, job.job_id, scope=ANY)
    attempts = list_job_attempts(connection, job.job_id, scope=ANY)
    events = list_job_events(connection, job.job_id, scope=ANY)

    paged_attempts, after = [], 0
    while page := list_job_attempts(connection, job.job_id, scope=ANY, after=after, limit=3):
        paged_attempts += page
        after = page[-1].lease_token
    paged_events, last = [], None
    while page := list_job_events(connection, job.job_id, scope=ANY, after=last, limit=3):
        paged_events += page
        last = page[-1]

    assert (len(attempts), paged_attempts) == (4, attempts)
    assert (len(events), paged_events) == (1 + 4 * 3 + 1, events)


def test_dead_letters_are_found_by_code_and_time(ledger):
    everything = list_dead_letters(ledger, scope=ANY)
    latest = everything[0].failed_at

    assert [one.job_type for one in list_dead_letters(ledger, scope=ANY, error_code="mail.broke")] == ["mail"]
    assert list_dead_letters(ledger, scope=ANY, failed_after=latest) == everything[:1]
    assert list_dead_letters(ledger, scope=ANY, failed_before=latest) == everything[1:]
