"""The registry of worker processes: who is announced, who is taken off, who counts as lost."""

import json

import pytest
from postgres.observing import Connection

from runledger.core.errors import InvalidPagination
from runledger.core.workers import WorkerAnnouncement, WorkerHost, WorkerState
from runledger.postgres.workers import announce_workers, list_workers, withdraw_workers
from runledger.testing.factories import a_leased_job

HOST = WorkerHost("host-a", "box-1", "shop.jobs:catalog", "0.1.0", ("mail",))


def a_worker(worker_id: str = "host-a.0.1", *, state: WorkerState = WorkerState.IDLE, **given) -> WorkerAnnouncement:
    values = {
        "pid": 4_711,
        "job_types": json.dumps(["mail.receipt", "order.ship"]),
        "started_ago": 60.0,
        "running_token": None,
        "jobs_done": 7,
        "rss_kb": 51_200,
    }
    return WorkerAnnouncement(worker_id, state=state, **(values | given))


def announce(connection: Connection, *workers: WorkerAnnouncement, host: WorkerHost = HOST) -> None:
    announce_workers(connection, host, workers, ttl_seconds=60)


def expire(connection: Connection, seconds: int) -> None:
    connection.execute(
        "UPDATE runledger.job_workers SET expires_at = clock_timestamp() - make_interval(secs => %s)", (seconds,)
    )


def test_an_announced_worker_is_listed_with_all_it_said(connection: Connection) -> None:
    announce(connection, a_worker())

    [found] = list_workers(connection)

    assert (found.worker_id, found.host_id, found.host_name, found.pid) == ("host-a.0.1", "host-a", "box-1", 4_711)
    assert (found.app, found.version, found.queues) == ("shop.jobs:catalog", "0.1.0", ("mail",))
    assert found.job_types == ("mail.receipt", "order.ship")
    assert (found.state, found.is_live, found.jobs_done, found.rss_kb) == (WorkerState.IDLE, True, 7, 51_200)
    assert (found.seen_at - found.started_at).total_seconds() == pytest.approx(60, abs=1)
    assert (found.expires_at - found.seen_at).total_seconds() == pytest.approx(60, abs=1)
    assert (found.job_id, found.lease_count) == (None, 0)


def test_a_worker_of_unknown_types_and_all_queues_says_so(connection: Connection) -> None:
    announce(connection, a_worker(job_types=None), host=WorkerHost("host-a", "box", "app:catalog", "0", None))

    [found] = list_workers(connection)

    assert (found.job_types, found.queues) == (None, None)


def test_the_job_that_a_worker_runs_is_the_one_of_its_running_token(connection: Connection) -> None:
    first = a_leased_job(connection, "first", worker_id="host-a.0.1")
    second = a_leased_job(connection, "second", worker_id="host-a.0.1")
    announce(connection, a_worker(running_token=second.lease_token), a_worker("host-a.1.2"))

    running, idle = list_workers(connection)

    assert (str(running.job_id), running.lease_count) == (second.job_id, 2)
    assert (idle.job_id, idle.lease_count) == (None, 0)
    announce(connection, a_worker(running_token=None))
    assert str(list_workers(connection)[0].job_id) == first.job_id


def test_a_worker_that_claimed_a_job_since_its_host_spoke_is_busy(connection: Connection) -> None:
    announce(connection, a_worker(), a_worker("host-a.1.2"), a_worker("host-a.2.3", state=WorkerState.LEAVING))
    for worker_id in ("host-a.0.1", "host-a.2.3"):
        a_leased_job(connection, f"of-{worker_id}", worker_id=worker_id)

    states = {one.worker_id: one.state for one in list_workers(connection)}

    assert states == {
        "host-a.0.1": WorkerState.BUSY,
        "host-a.1.2": WorkerState.IDLE,
        "host-a.2.3": WorkerState.LEAVING,
    }


def test_a_worker_that_its_host_names_no_more_is_gone_and_other_hosts_keep_theirs(connection: Connection) -> None:
    announce(connection, a_worker("host-a.0.1"), a_worker("host-a.1.2"))
    announce(connection, a_worker("host-b.0.1"), host=WorkerHost("host-b", "box-2", "app:catalog", "0", None))

    announce(connection, a_worker("host-a.1.2"), a_worker("host-a.0.3"))

    assert [one.worker_id for one in list_workers(connection)] == ["host-a.0.3", "host-a.1.2", "host-b.0.1"]


def test_a_clean_stop_leaves_no_row_of_the_host(connection: Connection) -> None:
    announce(connection, a_worker())
    announce(connection, a_worker("host-b.0.1"), host=WorkerHost("host-b", "box-2", "app:catalog", "0", None))

    withdraw_workers(connection, "host-a")

    assert [one.worker_id for one in list_workers(connection)] == ["host-b.0.1"]


def test_a_worker_whose_host_is_silent_is_not_live_and_is_live_again_when_heard(connection: Connection) -> None:
    announce(connection, a_worker())
    expire(connection, 1)
    assert list_workers(connection)[0].is_live is False

    announce(connection, a_worker())

    assert list_workers(connection)[0].is_live is True


def test_a_lost_host_is_forgotten_after_a_day_by_whoever_speaks_next(connection: Connection) -> None:
    other = WorkerHost("host-b", "box-2", "app:catalog", "0", None)
    announce(connection, a_worker())
    expire(connection, 86_000)
    announce(connection, a_worker("host-b.0.1"), host=other)
    assert len(list_workers(connection)) == 2

    connection.execute(
        "UPDATE runledger.job_workers SET expires_at = expires_at - interval '1 day' WHERE host_id = 'host-a'"
    )
    announce(connection, a_worker("host-b.0.1"), host=other)

    assert [one.worker_id for one in list_workers(connection)] == ["host-b.0.1"]


def test_a_page_begins_after_the_last_worker_of_the_one_before(connection: Connection) -> None:
    announce(connection, *(a_worker(f"host-a.{number}.1") for number in range(3)))

    first = list_workers(connection, limit=2)
    rest = list_workers(connection, after=first[-1].worker_id, limit=2)

    assert [one.worker_id for one in (*first, *rest)] == ["host-a.0.1", "host-a.1.1", "host-a.2.1"]
    with pytest.raises(InvalidPagination):
        list_workers(connection, limit=0)
