"""The assertion finds what the connection sees, and its text says how the nearest jobs differ."""

from typing import Any

import psycopg
import pytest

from runledger import JobRequest, enqueue_job
from runledger.testing import assert_enqueued
from runledger.testing.factories import a_definition

Connection = psycopg.Connection[Any]


def enqueue(connection: Connection, payload: Any = None, job_type: str = "test.mail") -> None:
    a_definition(connection, job_type)
    enqueue_job(connection, JobRequest(job_type, payload))


def test_it_answers_with_the_matching_jobs_the_oldest_first(runledger_tx: Connection) -> None:
    for number in (1, 2, 3):
        enqueue(runledger_tx, {"to": {"name": "ada", "n": number}, "kind": "a" if number < 3 else "b"})

    found = assert_enqueued(runledger_tx, "test.mail", payload_contains={"kind": "a", "to": {"name": "ada"}}, count=2)

    assert [job.payload["to"]["n"] for job in found] == [1, 2]
    assert len(assert_enqueued(runledger_tx, "test.mail")) == 3
    assert assert_enqueued(runledger_tx, "test.other", count=0) == []


def test_a_transaction_that_rolls_back_leaves_nothing(runledger_tx: Connection) -> None:
    assert_enqueued(runledger_tx, "test.mail", count=0)


def test_it_shows_how_the_nearest_jobs_differ(runledger_tx: Connection) -> None:
    enqueue(runledger_tx, {"to": "bob", "order": {"n": 1}})
    enqueue(runledger_tx, {})

    with pytest.raises(AssertionError) as failed:
        assert_enqueued(runledger_tx, "test.mail", payload_contains={"to": "ada", "order": {"n": 1, "paid": True}})

    lines = str(failed.value).splitlines()
    assert lines[0].startswith("expected at least one job of type 'test.mail'")
    assert lines[0].endswith("0 of 2 match")
    assert '    payload.to: expected "ada", stored "bob"' in lines
    assert "    payload.order.paid: expected true, and it is missing" in lines


def test_it_shows_how_many_there_were(runledger_tx: Connection) -> None:
    for _ in range(7):
        enqueue(runledger_tx)

    with pytest.raises(AssertionError, match=r"expected 1 job of type 'test.mail'; 7 of 7 match[\s\S]*and 2 more"):
        assert_enqueued(runledger_tx, "test.mail", count=1)


def test_it_names_the_types_that_were_enqueued_instead(runledger_tx: Connection) -> None:
    enqueue(runledger_tx, job_type="test.male")

    with pytest.raises(AssertionError, match=r"job types that were enqueued: test\.male"):
        assert_enqueued(runledger_tx, "test.mail")


@pytest.mark.parametrize(("wanted", "stored"), [(True, 1), (0, False), ([1], [1, 2]), ({"a": None}, {})])
def test_near_is_not_equal(runledger_tx: Connection, wanted: Any, stored: Any) -> None:
    enqueue(runledger_tx, {"value": stored})

    with pytest.raises(AssertionError):
        assert_enqueued(runledger_tx, "test.mail", payload_contains={"value": wanted})
