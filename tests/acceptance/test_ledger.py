"""The client of applications."""

import threading
import time

import pytest

from runledger import (
    DatabaseUnavailable,
    InvalidConfiguration,
    InvalidRequest,
    JobNotFound,
    JobRequest,
    JobStatus,
    Ledger,
    Scope,
    WaitTimedOut,
    cancel_job,
    enqueue_job,
)
from runledger.testing import scoped_environment


def test_each_enqueue_is_committed_when_it_returns(shop_url: str) -> None:
    with Ledger(shop_url) as ledger, Ledger(shop_url) as other:
        job = ledger.enqueue("mail.receipt", {"order": 7}, priority=3, tags=["a"])
        assert other.get_job(job.job_id).priority == 3


def test_many_are_enqueued_together(shop_url: str) -> None:
    with Ledger(shop_url) as ledger:
        jobs = ledger.enqueue_many([JobRequest("mail.receipt", {"n": n}) for n in range(3)])
        assert [ledger.get_job(job.job_id).payload["n"] for job in jobs] == [0, 1, 2]


def test_what_was_enqueued_in_a_transaction_that_fails_never_was(shop_url: str) -> None:
    class Regret(Exception):
        pass

    with Ledger(shop_url) as ledger:
        with pytest.raises(Regret), ledger.begin() as connection:
            job = enqueue_job(connection, JobRequest("mail.receipt"))
            raise Regret
        with pytest.raises(JobNotFound):
            ledger.get_job(job.job_id)
        with pytest.raises(JobNotFound) as missing:
            ledger.wait_for_job(job.job_id, 10)
        assert "committed" in str(missing.value.hint)


def test_waiting_ends_when_the_job_does(shop_url: str) -> None:
    with Ledger(shop_url) as ledger:
        job = ledger.enqueue("mail.receipt")

        def cancel() -> None:
            with ledger.begin() as connection:
                cancel_job(connection, job.job_id, scope=Scope.any())

        canceller = threading.Timer(0.1, cancel)
        canceller.start()
        assert ledger.wait_for_job(job.job_id, 10, poll_seconds=0.02).status == JobStatus.CANCELED
        canceller.join()


def test_waiting_longer_than_allowed_raises_and_leaves_the_job_alone(shop_url: str) -> None:
    with Ledger(shop_url) as ledger:
        job = ledger.enqueue("mail.receipt")
        began = time.monotonic()
        with pytest.raises(WaitTimedOut, match="still PENDING"):
            ledger.wait_for_job(job.job_id, timeout_seconds=0.05)
        assert time.monotonic() - began < 5
        assert ledger.get_job(job.job_id).status == JobStatus.PENDING


@pytest.mark.parametrize(("timeout", "poll"), [(-1, 0.1), (1, 0), (float("nan"), 0.1), (1, -2)])
def test_a_patience_that_makes_no_sense_is_refused(shop_url: str, timeout: float, poll: float) -> None:
    with Ledger(shop_url) as ledger, pytest.raises(InvalidRequest):
        ledger.wait_for_job("01900000-0000-7000-8000-000000000000", timeout, poll)


def test_the_environment_names_the_database(shop_url: str) -> None:
    with scoped_environment(RUNLEDGER_DATABASE_URL=None, DATABASE_URL=shop_url), Ledger.from_env() as ledger:
        assert ledger.enqueue("mail.receipt").is_new
    with scoped_environment(RUNLEDGER_DATABASE_URL=" ", DATABASE_URL=None), pytest.raises(InvalidConfiguration):
        Ledger.from_env()


def test_an_unusable_database_raises_without_the_password() -> None:
    with Ledger("postgresql://me:canary@localhost:1/x") as ledger, pytest.raises(DatabaseUnavailable) as caught:
        ledger.enqueue("mail.receipt")
    assert "canary" not in f"{caught.value!r}{caught.value}{caught.value.internal_message}"
