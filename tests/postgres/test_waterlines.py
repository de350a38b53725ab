"""Waterlines: from where a claim may start without missing what can be seen."""

from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres.observing import scalar

from runledger.postgres import waterlines
from runledger.postgres.waterlines import find_waterlines
from runledger.testing.factories import a_definition, a_job

SLACK = timedelta(seconds=waterlines.SLACK_SECONDS)


@pytest.fixture
def transaction(connection):
    """An open transaction, so that its start is the same for every statement."""
    with connection.transaction():
        yield connection


def waterline(connection, job_type="test.job", **options):
    found = find_waterlines(connection, [job_type], **options).get(job_type)
    return None if found is None else datetime.fromisoformat(found)


def test_the_waterline_lies_below_the_earliest_ready_job_of_every_priority(transaction):
    now = scalar(transaction, "SELECT now()")
    for priority, seconds in ((9, 1), (0, 40), (0, 90), (-3, 60)):
        a_job(transaction, priority=priority, next_run_at=now - timedelta(seconds=seconds))

    assert waterline(transaction) == now - timedelta(seconds=90) - SLACK


def test_without_ready_jobs_it_lies_below_now(transaction):
    a_definition(transaction, "test.job")

    assert waterline(transaction) == scalar(transaction, "SELECT now()") - SLACK


def test_each_type_has_its_own(transaction):
    now = scalar(transaction, "SELECT now()")
    a_job(transaction, next_run_at=now - timedelta(seconds=90))
    a_definition(transaction, "test.other")

    found = find_waterlines(transaction, ["test.job", "test.other", "test.job"])

    assert datetime.fromisoformat(found["test.job"]) == now - timedelta(seconds=90) - SLACK
    assert datetime.fromisoformat(found["test.other"]) == now - SLACK


def test_raising_it_does_not_look_below_where_it_was(transaction):
    now = scalar(transaction, "SELECT now()")
    a_job(transaction, next_run_at=now - timedelta(seconds=90))
    a_job(transaction, priority=-1, next_run_at=now - timedelta(seconds=20))

    raised = waterline(transaction, start={"test.job": str(now - timedelta(seconds=30))})

    assert raised == now - timedelta(seconds=20) - SLACK


def test_a_type_of_very_many_priorities_has_none(transaction, monkeypatch):
    monkeypatch.setattr(waterlines, "MOST_PRIORITIES", 3)
    for priority in range(3):
        a_job(transaction, priority=priority)

    assert find_waterlines(transaction, ["test.job"]) == {}


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-50, -1)), max_size=12))
def test_nothing_that_can_be_seen_lies_below(database_url, jobs):
    with psycopg.connect(database_url) as connection, connection.transaction(force_rollback=True):
        now = scalar(connection, "SELECT now()")
        a_definition(connection, "test.many")
        for priority, seconds in jobs:
            due = now + timedelta(seconds=seconds)
            a_job(connection, job_type="test.many", priority=priority, next_run_at=due)
        found = waterline(connection, "test.many")
        assert all(found <= now + timedelta(seconds=seconds) for _, seconds in jobs)
