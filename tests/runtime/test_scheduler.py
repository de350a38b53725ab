"""The scheduler, one tick at a time; and once as a process of a host."""

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from runtime.benches import Bench, scalar
from runtime.hosts import Connection, Host, until

from runledger import JobCatalog, JobsConfig, ScheduleRequest, get_job_schedule, upsert_job_schedule
from runledger.postgres.connection import borrow
from runledger.postgres.locks import try_lock_scheduler
from runledger.runtime.link import DatabaseLink
from runledger.runtime.scheduler import Scheduler
from runledger.testing.factories import TEST_TYPE, a_definition

OpenLink = Callable[..., DatabaseLink]
CONFIG = JobsConfig(max_global_concurrency=1, schedule_poll_interval_seconds=7)


def a_schedule(connection: Connection, name: str = "nightly", *, due_in_seconds: float = -1.0, **given: Any) -> None:
    """A schedule whose next firing lies this far ahead; its row is moved, not the clock."""
    a_definition(connection)
    upsert_job_schedule(connection, ScheduleRequest(name, **({"cron": "@yearly", "job_type": TEST_TYPE} | given)))
    connection.execute(
        "UPDATE runledger.job_schedules SET (next_slot_at, next_fire_at) ="
        " (now() + %s * interval '1 s', now() + %s * interval '1 s') WHERE name = %s",
        (due_in_seconds, due_in_seconds, name),
    )


def fired(connection: Connection) -> int:
    return int(scalar(connection, "SELECT count(*) FROM runledger.job_queue WHERE schedule_id IS NOT NULL"))


def test_a_due_schedule_fires_and_the_next_tick_waits_for_the_next(connection: Connection, open_link: OpenLink) -> None:
    a_schedule(connection)
    scheduler = Scheduler(open_link(), CONFIG)

    assert scheduler.tick() == 0.0
    assert scheduler.tick() == 7.0
    assert fired(connection) == 1


@pytest.mark.parametrize(("due_in_seconds", "low", "high"), [(2.0, 1.5, 2.01), (60.0, 7.0, 7.0), (0.2, 0.0, 0.21)])
def test_a_tick_waits_until_the_next_schedule_but_no_longer_than_the_poll_interval(
    connection: Connection, open_link: OpenLink, due_in_seconds: float, low: float, high: float
) -> None:
    scheduler = Scheduler(open_link(), CONFIG)
    assert scheduler.tick() == 7.0  # no schedule at all
    a_schedule(connection, due_in_seconds=due_in_seconds)

    pause = scheduler.tick()

    assert pause is not None
    assert low <= pause <= high
    assert fired(connection) == 0


def test_one_scheduler_at_a_time_does_the_work(connection: Connection, open_link: OpenLink, database_url: str) -> None:
    a_schedule(connection)
    scheduler = Scheduler(open_link(), CONFIG)

    with psycopg.connect(database_url) as other:
        assert try_lock_scheduler(borrow(other))
        assert scheduler.tick() == 7.0
        assert fired(connection) == 0
    scheduler.tick()

    assert fired(connection) == 1


def test_after_a_long_pause_the_missed_slot_fires_once(connection: Connection, open_link: OpenLink) -> None:
    a_schedule(connection, cron="0 * * * *", due_in_seconds=-100_000)

    Scheduler(open_link(), CONFIG).tick()

    [age] = connection.execute("SELECT extract(epoch FROM now() - scheduled_for) FROM runledger.job_queue").fetchall()
    assert 100_000 <= age[0] < 100_100
    assert scalar(connection, "SELECT next_fire_at > now() FROM runledger.job_schedules")


def test_a_schedule_that_cannot_fire_is_told_and_stops_no_other(
    connection: Connection, open_link: OpenLink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_definition(connection, "test.off")
    a_schedule(connection, "bad", job_type="test.off")
    a_schedule(connection, "good")
    past_the_guard = "UPDATE runledger.job_definitions SET is_enabled = false WHERE job_type = 'test.off'"
    connection.execute(past_the_guard)
    said: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("runledger.runtime.scheduler.log", lambda level, event, **fields: said.append((event, fields)))

    Scheduler(open_link(), CONFIG).tick()

    assert [(event, fields["schedule"]) for event, fields in said] == [
        ("schedule.fired", "good"),
        ("schedule.deferred", "bad"),
    ]
    assert get_job_schedule(connection, "bad").last_error_code == "job_schedule.definition_not_found_or_disabled"


def test_a_scheduler_that_is_told_to_stop_ends(open_link: OpenLink) -> None:
    scheduler = Scheduler(open_link(), CONFIG)
    scheduler.is_stopping = True

    assert scheduler.tick() is None


def test_a_worker_stores_the_schedules_of_its_catalog_and_keeps_a_pause(
    connection: Connection, make_bench: Callable[..., Bench]
) -> None:
    catalog = JobCatalog()
    catalog.job("test")(lambda context, payload: None)
    catalog.schedule("nightly", cron="0 3 * * *", job_type="test")

    for _ in range(2):
        make_bench(catalog).worker.tick()
        connection.execute("UPDATE runledger.job_schedules SET is_active = false")

    assert not get_job_schedule(connection, "nightly").is_active


@pytest.mark.process
def test_a_host_fires_every_second_and_each_slot_once(own_database: str, start_host: Callable[..., Host]) -> None:
    hosts = [start_host(app="scheduled_jobs:catalog") for _ in range(2)]
    with psycopg.connect(own_database, autocommit=True) as connection:
        done = "SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'"
        until(lambda: scalar(connection, done) >= 3, what="three beats")
        late = "SELECT max(created_at - scheduled_for) < interval '30 s' FROM runledger.job_queue"
        assert scalar(connection, late)
        twice = "SELECT count(*) - count(DISTINCT payload #>> '{_schedule,scheduled_for}') FROM runledger.job_queue"
        assert scalar(connection, twice) == 0
        output = "SELECT bool_and(output #>> '{}' = payload #>> '{_schedule,scheduled_for}') FROM runledger.job_queue" \
                 " WHERE final_status = 'SUCCEEDED'"  # fmt: skip
        assert scalar(connection, output)
    for host in hosts:
        host.send(signal.SIGTERM)
    assert [host.wait() for host in hosts] == [0, 0]


@pytest.mark.process
@pytest.mark.parametrize("options", [{"with_scheduler": False}, {"is_draining": True}])
def test_a_host_without_a_scheduler_fires_nothing(
    own_database: str, start_host: Callable[..., Host], options: dict[str, Any]
) -> None:
    host = start_host(app="scheduled_jobs:catalog", **options)
    host.wait_for_event("schedules.synchronised")
    if options.get("is_draining"):
        assert host.wait() == 0
    else:
        assert len(host.ready().children()) == 3
        assert host.stop() == 0
    assert host.events("schedule.fired") == []
