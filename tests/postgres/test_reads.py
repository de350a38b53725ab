"""Reads: pages that cover each row once, limits that are checked before any SQL, figures that add up."""

import json
from datetime import timedelta
from uuid import UUID

import pytest

from runledger.core.errors import InvalidPagination, InvalidRequest, JobNotFound
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, LogLevel
from runledger.postgres.definitions import set_definition_enabled, set_definition_paused
from runledger.postgres.job_logs import insert_job_log
from runledger.postgres.leases import write_logs
from runledger.postgres.reads import (
    get_job,
    list_dead_letters,
    list_job_attempts,
    list_job_events,
    list_job_logs,
    list_jobs,
)
from runledger.postgres.settle import settle_jobs
from runledger.postgres.stats import get_queue_stats, has_unfinished_work
from runledger.testing.factories import (
    a_definition,
    a_job,
    a_leased_job,
    claim_one,
    dead_lettered,
    failed,
    snoozed,
    succeeded,
)

ANY = Scope.any()
JOB = "0190a5a4-0000-7000-8000-000000000000"
LISTS = {
    "jobs": lambda connection, limit: list_jobs(connection, scope=ANY, limit=limit),
    "attempts": lambda connection, limit: list_job_attempts(connection, JOB, scope=ANY, limit=limit),
    "events": lambda connection, limit: list_job_events(connection, JOB, scope=ANY, limit=limit),
    "logs": lambda connection, limit: list_job_logs(connection, JOB, scope=ANY, limit=limit),
    "dead letters": lambda connection, limit: list_dead_letters(connection, scope=ANY, limit=limit),
}


@pytest.mark.parametrize("limit", [0, -1, 1001, 10**9, True, "10", 1.5, None])
@pytest.mark.parametrize("name", LISTS)
def test_a_page_outside_the_limits_is_refused_before_any_sql(connect, name, limit):
    closed = connect()
    closed.close()

    with pytest.raises(InvalidPagination) as refused:
        LISTS[name](closed, limit)

    assert refused.value.code == "job.invalid_pagination"


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_ledger_has_empty_pages(connection, name):
    assert LISTS[name](connection, 1) == LISTS[name](connection, 1000) == []


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_pages_of_jobs_cover_each_once_newest_first(connection, size):
    jobs = [a_job(connection).job_id for _ in range(7)]

    seen = []
    while page := list_jobs(connection, scope=ANY, limit=size, before=seen[-1] if seen else None):
        seen += [job.job_id for job in page]

    assert seen == jobs[::-1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_of_dead_letters_cover_each_once_even_when_they_failed_together(connection, size):
    jobs = [a_leased_job(connection) for _ in range(5)]
    settle_jobs(connection, [dead_lettered(job) for job in jobs])
    connection.execute("UPDATE runledger.job_dead_letters SET failed_at = now()")

    seen = []
    while page := list_dead_letters(connection, scope=ANY, limit=size, before=seen[-1] if seen else None):
        seen += page

    assert len(seen) == 5
    assert {str(letter.job_id) for letter in seen} == {job.job_id for job in jobs}


def test_dead_letters_are_listed_latest_first_and_by_type(connection):
    for job_type in ("type.a", "type.b", "type.a"):
        settle_jobs(connection, [dead_lettered(a_leased_job(connection, job_type))])

    letters = list_dead_letters(connection, scope=ANY)

    assert [letter.job_type for letter in letters] == ["type.a", "type.b", "type.a"]
    assert [letter.failed_at for letter in letters] == sorted((one.failed_at for one in letters), reverse=True)
    assert len(list_dead_letters(connection, scope=ANY, job_type="type.a")) == 2


def test_pages_of_logs_cover_each_once(connection):
    job = a_leased_job(connection)
    write_logs(connection, job.job_id, job.lease_token, [(LogLevel.INFO, str(n), "{}") for n in range(7)])

    seen = []
    while page := list_job_logs(connection, job.job_id, scope=ANY, limit=3, after=seen[-1].log_id if seen else 0):
        seen += page

    assert [log.message for log in seen] == [str(n) for n in range(7)]


def test_jobs_are_listed_by_type_and_status(connection):
    done = a_leased_job(connection, "type.a")
    settle_jobs(connection, [succeeded(done)])
    waiting, other = a_job(connection, "type.a"), a_job(connection, "type.b")

    assert [job.job_id for job in list_jobs(connection, scope=ANY, job_type="type.b")] == [other.job_id]
    pending = list_jobs(connection, scope=ANY, status=JobStatus.PENDING)
    assert [job.job_id for job in pending] == [other.job_id, waiting.job_id]
    both = list_jobs(connection, scope=ANY, job_type="type.a", status=JobStatus.SUCCEEDED)
    assert [str(job.job_id) for job in both] == [done.job_id]
    assert list_jobs(connection, scope=ANY, job_type="type") == []


def test_a_job_is_found_by_its_id_as_text_or_uuid(connection):
    job = a_job(connection)

    assert get_job(connection, str(job.job_id).upper(), scope=ANY).job_id == job.job_id
    with pytest.raises(JobNotFound):
        get_job(connection, UUID(int=5), scope=ANY)


def test_a_poisoned_value_is_shown_as_its_text(connection):
    job = a_job(connection)
    digits = "9" * 5000
    connection.execute("UPDATE runledger.job_queue SET payload = %s::jsonb", (digits,))

    assert get_job(connection, job.job_id, scope=ANY).payload == digits


def test_times_are_in_utc_whatever_the_session_says(connection):
    job = a_job(connection, delay=60)
    connection.execute("SET TIME ZONE 'Asia/Kathmandu'")

    stored = get_job(connection, job.job_id, scope=ANY)

    assert stored.created_at.utcoffset() == timedelta(0)
    assert stored.next_run_at - stored.created_at == timedelta(seconds=60)


def test_progress_is_shown_in_percent_when_both_sides_are_known(connection):
    job = a_leased_job(connection)
    for done, total, percent in ((1, 3, 33.33), (3, 3, 100.0), (0, 0, None), (None, 5, None)):
        connection.execute("UPDATE runledger.job_leases SET progress_done = %s, progress_total = %s", (done, total))
        assert get_job(connection, job.job_id, scope=ANY).progress_percent == percent


def test_the_figures_of_a_queue_add_up(connection):
    a_definition(connection, "type.a", queue="mail")
    a_definition(connection, "type.b")
    set_definition_paused(connection, "type.b", is_paused=True)
    set_definition_enabled(connection, "type.b", is_enabled=False)
    a_job(connection, "type.a")
    a_job(connection, "type.a")
    a_job(connection, "type.a", delay=60)
    claim_one(connection, "type.a")

    [mine, other] = get_queue_stats(connection)

    assert (mine.job_type, mine.queue, mine.ready, mine.scheduled, mine.leased) == ("type.a", "mail", 1, 1, 1)
    assert (mine.is_enabled, mine.is_paused, other.is_enabled, other.is_paused) == (True, False, False, True)
    assert mine.oldest_ready_seconds >= 0
    assert type(mine.oldest_ready_seconds) is float
    assert (other.ready, other.scheduled, other.leased, other.oldest_ready_seconds) == (0, 0, 0, None)


def test_work_is_unfinished_while_something_is_due_running_or_waits_for_a_retry(connection):
    def is_busy():
        return has_unfinished_work(connection, ["test.job"])

    a_job(connection, "other")
    assert not is_busy()
    a_job(connection, delay=600)
    assert not is_busy()
    job = a_job(connection)
    assert is_busy()
    leased = claim_one(connection)
    assert is_busy()
    settle_jobs(connection, [failed(leased)])
    assert is_busy()
    connection.execute("DELETE FROM runledger.job_scheduled WHERE job_id = %s", (job.job_id,))
    assert not is_busy()


def test_a_first_run_that_was_snoozed_is_still_work(connection):
    settle_jobs(connection, [snoozed(a_leased_job(connection), seconds=0)])

    assert has_unfinished_work(connection, ["test.job"])


def test_json_values_of_every_kind_come_back(connection):
    for value in ({"a": [1, 2.5, None, True]}, [], "text", 7, 1.5, False):
        job = a_job(connection, payload=value)
        assert get_job(connection, job.job_id, scope=ANY).payload == value
        assert json.dumps(value)


def test_a_log_line_from_outside_stands_under_the_present_attempt(connection):
    job = a_leased_job(connection)

    first = insert_job_log(connection, job.job_id, scope=ANY, level="warning", message="seen\0", fields={"by": "ada"})

    [line] = list_job_logs(connection, job.job_id, scope=ANY)
    assert (line.log_id, line.level, line.message, line.fields) == (first, LogLevel.WARNING, "seen", {"by": "ada"})
    assert (line.run_number, line.attempt) == (1, 1)


def test_a_log_line_for_nobody_or_out_of_limits_is_refused(connection):
    job = a_job(connection)

    with pytest.raises(JobNotFound):
        insert_job_log(connection, job.job_id, scope=Scope.organization(UUID(int=1)), level="INFO", message="x")
    with pytest.raises(InvalidRequest):
        insert_job_log(connection, job.job_id, scope=ANY, level="LOUD", message="x")
    with pytest.raises(InvalidRequest):
        insert_job_log(connection, job.job_id, scope=ANY, level="INFO", message="x", fields={"y": "z" * 20_000})
    assert list_job_logs(connection, job.job_id, scope=ANY) == []
