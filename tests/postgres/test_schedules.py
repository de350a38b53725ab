"""Schedules as they are stored: who owns which setting, and what operators may do. Firing: test_firing.py."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from postgres.observing import count, scalar, snapshot, until_blocked

from runledger import JobCatalog
from runledger.core.errors import (
    DefinitionNotFoundOrDisabled,
    InvalidCron,
    InvalidPagination,
    InvalidRequest,
    InvalidScheduleName,
    ScheduleDefinitionNotFoundOrDisabled,
    ScheduleNotFound,
)
from runledger.core.jobs import Scope
from runledger.core.schedules import ScheduleRequest, ScheduleSync
from runledger.core.states import MissedPolicy, OverlapPolicy
from runledger.postgres.definitions import set_definition_enabled
from runledger.postgres.firing import fire_due_schedules
from runledger.postgres.schedule_reads import get_job_schedule, list_job_schedules
from runledger.postgres.schedules import (
    delete_job_schedule,
    set_job_schedule_active,
    set_job_schedule_next_fire_at,
    sync_schedules,
    sync_schedules_exact,
    upsert_job_schedule,
)
from runledger.testing.factories import TEST_TYPE, a_definition

TENANT, OTHER_TENANT = uuid4(), uuid4()


@pytest.fixture(autouse=True)
def definitions(connection):
    a_definition(connection)
    a_definition(connection, "test.other")


def a_request(name="nightly", **changed):
    return ScheduleRequest(name, **({"cron": "0 3 * * *", "job_type": TEST_TYPE} | changed))


def test_a_schedule_is_stored_with_every_setting(connection):
    request = a_request(
        cron="*/5 9-17 * * mon-fri",
        payload={"kind": "daily"},
        timezone="Europe/Berlin",
        jitter_seconds=60,
        missed="all",
        overlap="skip",
        organization_id=TENANT,
        is_active=False,
    )

    stored = upsert_job_schedule(connection, request)

    assert (stored.name, stored.job_type, stored.cron) == ("nightly", TEST_TYPE, "*/5 9-17 * * mon-fri")
    assert (stored.timezone, stored.jitter_seconds, stored.payload) == ("Europe/Berlin", 60, {"kind": "daily"})
    assert (stored.missed, stored.overlap) == (MissedPolicy.ALL, OverlapPolicy.SKIP)
    assert (stored.organization_id, stored.is_active, stored.last_fired_at) == (TENANT, False, None)
    assert timedelta() <= stored.next_fire_at - stored.next_slot_at <= timedelta(seconds=60)
    assert get_job_schedule(connection, "nightly") == stored


def test_the_first_slot_is_the_next_one_on_the_clock_of_the_database(connection):
    next_hour = "SELECT date_trunc('hour', now()) + interval '1 hour'"
    before = scalar(connection, next_hour)
    stored = upsert_job_schedule(connection, a_request(cron="0 * * * *"))

    assert before <= stored.next_slot_at <= scalar(connection, next_hour)
    assert stored.next_fire_at == stored.next_slot_at


def moved_to(connection, moment):
    assert set_job_schedule_next_fire_at(connection, "nightly", moment)
    return moment


@pytest.mark.parametrize(
    ("changed", "moves"),
    [
        ({}, False),
        ({"payload": {"x": 1}}, False),
        ({"job_type": "test.other"}, False),
        ({"jitter_seconds": 30}, False),
        ({"missed": "skip"}, False),
        ({"overlap": "skip"}, False),
        ({"cron": "0 4 * * *"}, True),
        ({"timezone": "Asia/Tokyo"}, True),
        ({"cron": "0  3 * * *"}, True),
    ],
)
def test_an_upsert_moves_the_next_firing_only_with_cron_or_zone(connection, changed, moves):
    first = upsert_job_schedule(connection, a_request())
    moment = moved_to(connection, datetime(2030, 1, 1, 3, tzinfo=UTC))

    again = upsert_job_schedule(connection, a_request(**changed))

    assert again.schedule_id == first.schedule_id
    assert (again.next_slot_at == moment) is not moves
    assert (again.next_fire_at == moment) is not moves
    for field, value in changed.items():
        stored = getattr(again, field)
        assert (stored.lower() if field in ("missed", "overlap") else stored) == value


@pytest.mark.parametrize("was_active", [True, False])
@pytest.mark.parametrize("will_be", [True, False])
def test_an_upsert_keeps_switch_and_organization(connection, was_active, will_be):
    upsert_job_schedule(connection, a_request(is_active=was_active, organization_id=TENANT))

    again = upsert_job_schedule(connection, a_request(is_active=will_be, organization_id=OTHER_TENANT))

    assert (again.is_active, again.organization_id) == (was_active, TENANT)


def test_an_upsert_that_changes_nothing_writes_nothing(connection):
    upsert_job_schedule(connection, a_request(payload={"a": 1, "b": 2}))
    before = snapshot(connection)

    upsert_job_schedule(connection, a_request(payload={"b": 2, "a": 1}))

    assert snapshot(connection) == before


@pytest.mark.parametrize(("name", "error"), [(" x", InvalidScheduleName), ("x\0", InvalidScheduleName)])
def test_a_refused_schedule_leaves_nothing(connection, name, error):
    before = snapshot(connection)
    with pytest.raises(error):
        upsert_job_schedule(connection, a_request(name))
    with pytest.raises(InvalidCron):
        upsert_job_schedule(connection, a_request(cron="0 9-9 * * *"))
    assert snapshot(connection) == before


def test_a_schedule_that_could_not_fire_is_refused(connection):
    with pytest.raises(ScheduleDefinitionNotFoundOrDisabled):
        upsert_job_schedule(connection, a_request(job_type="test.unknown"))
    set_definition_enabled(connection, TEST_TYPE, is_enabled=False)
    with pytest.raises(DefinitionNotFoundOrDisabled) as caught:
        upsert_job_schedule(connection, a_request())
    assert caught.value.code == "job_schedule.definition_not_found_or_disabled"
    assert count(connection, "job_schedules") == 0

    assert not upsert_job_schedule(connection, a_request(is_active=False)).is_active
    with pytest.raises(ScheduleDefinitionNotFoundOrDisabled):
        set_job_schedule_active(connection, "nightly", is_active=True)


def test_two_upserts_of_a_new_name_make_one_schedule(connection, connect, in_background):
    first, second = connect(autocommit=False), connect()
    upsert_job_schedule(first, a_request(payload={"by": "first"}))

    later = in_background(upsert_job_schedule, second, a_request(payload={"by": "second"}))
    until_blocked(connection, second)
    first.commit()

    assert later.result(timeout=10).payload == {"by": "second"}
    assert count(connection, "job_schedules") == 1


def test_what_is_not_there_is_said_and_not_made(connection):
    assert not set_job_schedule_active(connection, "ghost", is_active=True)
    assert not set_job_schedule_next_fire_at(connection, "ghost", datetime(2030, 1, 1, tzinfo=UTC))
    assert not delete_job_schedule(connection, "ghost")
    with pytest.raises(ScheduleNotFound):
        get_job_schedule(connection, "ghost")


def test_pause_and_resume_leave_the_next_firing_where_it_is(connection):
    before = upsert_job_schedule(connection, a_request())

    assert set_job_schedule_active(connection, "nightly", is_active=False)
    paused = get_job_schedule(connection, "nightly")
    assert set_job_schedule_active(connection, "nightly", is_active=True)
    resumed = get_job_schedule(connection, "nightly")

    assert (paused.is_active, resumed.is_active) == (False, True)
    assert paused.next_fire_at == resumed.next_fire_at == before.next_fire_at


def test_a_moment_without_a_zone_is_refused(connection):
    upsert_job_schedule(connection, a_request())
    with pytest.raises(InvalidRequest):
        set_job_schedule_next_fire_at(connection, "nightly", datetime.fromisoformat("2030-01-01T00:00:00"))


def test_deleting_waits_for_a_scheduler_that_is_firing(connection, connect, in_background):
    upsert_job_schedule(connection, a_request())
    moved_to(connection, datetime(2026, 1, 1, tzinfo=UTC))
    scheduler, operator = connect(autocommit=False), connect()
    assert len(fire_due_schedules(scheduler).fired) == 1

    deleted = in_background(delete_job_schedule, operator, "nightly")
    until_blocked(connection, operator)
    scheduler.commit()

    assert deleted.result(timeout=10)
    assert (count(connection, "job_schedules"), count(connection, "job_ready")) == (0, 1)


def test_pages_are_by_name_and_scope(connection):
    for name, tenant in (("a", None), ("b", TENANT), ("c", OTHER_TENANT), ("d", TENANT)):
        job_type = "test.other" if name == "d" else TEST_TYPE
        upsert_job_schedule(connection, a_request(name, organization_id=tenant, job_type=job_type))

    def names(**filters):
        return [one.name for one in list_job_schedules(connection, **({"scope": Scope.any()} | filters))]

    assert names() == ["a", "b", "c", "d"]
    assert (names(limit=2), names(after="b", limit=2)) == (["a", "b"], ["c", "d"])
    assert names(scope=Scope.organization(TENANT)) == ["b", "d"]
    assert names(scope=Scope.global_only()) == ["a"]
    assert names(job_type="test.other") == ["d"]
    with pytest.raises(InvalidPagination):
        names(limit=0)


def is_active(connection, name="nightly"):
    return get_job_schedule(connection, name).is_active


def test_a_sync_says_what_changed_and_writes_nothing_the_second_time(connection):
    requests = [a_request("b"), a_request("a", cron="@hourly")]
    assert sync_schedules(connection, requests) == ("a", "b")
    before = snapshot(connection)

    assert sync_schedules(connection, requests) == ()
    assert snapshot(connection) == before
    assert sync_schedules(connection, [a_request("b", payload={"x": 1}), requests[1]]) == ("b",)
    assert sync_schedules(connection, []) == ()


@pytest.mark.parametrize(
    ("stored", "given", "additive", "exact"),
    [
        (True, True, True, True),
        (False, True, False, True),
        (True, False, False, False),
        (False, False, False, False),
    ],
)
def test_whose_switch_counts(connection, stored, given, additive, exact):
    upsert_job_schedule(connection, a_request(is_active=stored, organization_id=TENANT))

    sync_schedules(connection, [a_request(is_active=given)])
    assert is_active(connection) is additive
    sync_schedules_exact(connection, [a_request(is_active=given)], scope=["nightly"])

    assert is_active(connection) is exact
    assert get_job_schedule(connection, "nightly").organization_id == TENANT


def test_a_sync_survives_a_definition_that_an_operator_disabled(connection):
    set_definition_enabled(connection, TEST_TYPE, is_enabled=False)

    assert sync_schedules(connection, [a_request()]) == ("nightly",)
    with pytest.raises(ScheduleDefinitionNotFoundOrDisabled):
        sync_schedules(connection, [a_request("other", job_type="test.unknown")])


def test_an_exact_sync_pauses_what_is_absent_from_its_scope_and_deletes_nothing(connection):
    for name in ("kept", "gone", "gone.paused", "foreign"):
        upsert_job_schedule(connection, a_request(name, is_active=name != "gone.paused"))

    done = sync_schedules_exact(connection, [a_request("kept")], scope=["kept", "gone", "gone.paused"])

    assert done == ScheduleSync((), ("gone",))
    assert {name: is_active(connection, name) for name in ("kept", "gone", "foreign")} == {
        "kept": True,
        "gone": False,
        "foreign": True,
    }
    assert sync_schedules_exact(connection, [], scope=["kept"]) == ScheduleSync((), ("kept",))


@pytest.mark.parametrize("scope", [[], ["other"]])
def test_an_exact_sync_outside_its_scope_is_refused(connection, scope):
    with pytest.raises(InvalidRequest):
        sync_schedules_exact(connection, [a_request()], scope=scope)
    assert count(connection, "job_schedules") == 0


def test_a_catalog_without_a_scope_owns_the_schedules_of_its_types(connection):
    catalog = JobCatalog()
    catalog.job(TEST_TYPE)(lambda context, payload: None)
    assert catalog.sync_schedules_exact(connection) == ScheduleSync()
    catalog.schedule("mine", cron="@daily", job_type=TEST_TYPE)
    upsert_job_schedule(connection, a_request("old"))
    upsert_job_schedule(connection, a_request("theirs", job_type="test.other"))

    assert catalog.sync_schedules(connection) == ("mine",)
    assert catalog.sync_schedules_exact(connection) == ScheduleSync((), ("old",))
    assert is_active(connection, "theirs")
