"""Schedules as values: their limits, their jitter, and which slots a late scheduler fires."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runledger.core import errors
from runledger.core.annotations import shape_of
from runledger.core.catalog import JobCatalog
from runledger.core.payloads import PayloadType
from runledger.core.schedules import MOST_SLOTS_AT_ONCE, ScheduleRequest, Timing, encode_schedule, plan_firing
from runledger.core.states import MissedPolicy

MIDNIGHT = datetime(2027, 1, 1, tzinfo=UTC)
HOURLY = Timing("hourly", "0 * * * *", "UTC")


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def plan(missed: MissedPolicy, *, now: datetime, timing: Timing = HOURLY, slot: datetime = MIDNIGHT) -> Any:
    return plan_firing(timing, missed, slot=slot, fires_at=timing.fire_time(slot), now=now)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"name": ""}, errors.InvalidScheduleName),
        ({"name": " nightly"}, errors.InvalidScheduleName),
        ({"name": "n" * 201}, errors.InvalidScheduleName),
        ({"name": 5}, errors.InvalidScheduleName),
        ({"cron": "* * * *"}, errors.InvalidCron),
        ({"timezone": "Mars/Olympus"}, errors.InvalidTimezone),
        ({"jitter_seconds": -1}, errors.InvalidJitter),
        ({"jitter_seconds": 86_401}, errors.InvalidJitter),
        ({"jitter_seconds": 1.5}, errors.InvalidJitter),
        ({"jitter_seconds": True}, errors.InvalidJitter),
        ({"job_type": ""}, errors.InvalidIdentifier),
        ({"payload": {"x": float("nan")}}, errors.InvalidPayload),
        ({"payload": {"_schedule": {}}}, errors.InvalidPayload),
        ({"missed": "never"}, errors.InvalidRequest),
        ({"overlap": None}, errors.InvalidRequest),
        ({"organization_id": "acme"}, errors.InvalidRequest),
        ({"is_active": 1}, errors.InvalidRequest),
    ],
)
def test_a_setting_outside_its_limits_is_refused(changed: dict[str, Any], error: type[Exception]) -> None:
    given_settings = {"name": "nightly", "cron": "@daily", "job_type": "report.build"} | changed
    with pytest.raises(error):
        encode_schedule(ScheduleRequest(given_settings.pop("name"), **given_settings))


def test_policies_may_be_written_as_words() -> None:
    encoded = encode_schedule(ScheduleRequest("n", cron="@daily", job_type="t", missed="all", overlap="Skip"))

    assert (encoded.missed, encoded.overlap, encoded.payload) == ("ALL", "SKIP", "{}")


@pytest.fixture
def catalog() -> JobCatalog:
    made = JobCatalog()
    made.job("report.build")(lambda context, payload: None)
    made.job("report.old", enabled=False)(lambda context, payload: None)

    @made.job("report.typed")
    def typed(context: Any, payload: list[int]) -> None: ...

    return made


def test_a_catalog_keeps_its_schedules_by_name(catalog: JobCatalog) -> None:
    catalog.schedule("z", cron="@daily", job_type="report.build", payload={"kind": "daily"}, jitter_seconds=60)
    catalog.schedule("a", cron="@hourly", job_type="report.build")

    assert [(one.name, one.payload) for one in catalog.schedules] == [("a", {}), ("z", {"kind": "daily"})]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"name": "taken"}, errors.InvalidScheduleName),
        ({"job_type": "report.unknown"}, errors.UnknownJobType),
        ({"job_type": "report.old"}, errors.DisabledJobType),
        ({"job_type": "report.typed", "payload": ["x"]}, errors.InvalidPayload),
        ({"job_type": "report.typed", "payload": [1]}, errors.InvalidPayload),
        ({"cron": "@reboot"}, errors.InvalidCron),
    ],
)
def test_a_wrong_schedule_raises_where_it_is_written(
    catalog: JobCatalog, changed: dict[str, Any], error: type[Exception]
) -> None:
    catalog.schedule("taken", cron="@daily", job_type="report.build")
    given_settings = {"name": "new", "cron": "@daily", "job_type": "report.build"} | changed
    with pytest.raises(error):
        catalog.schedule(given_settings.pop("name"), **given_settings)
    assert [one.name for one in catalog.schedules] == ["taken"]


def test_a_typed_handler_sees_what_the_scheduler_adds_if_its_type_has_room() -> None:
    @dataclass
    class Report:
        kind: str

    stored = {"kind": "daily", "_schedule": {"schedule_name": "nightly"}}

    assert PayloadType(shape_of(Report)).from_json(stored) == Report("daily")
    assert PayloadType(shape_of(dict[str, str])).from_json(stored) == {"kind": "daily"}
    assert PayloadType(shape_of(dict[str, Any])).from_json(stored) == stored


def test_jitter_is_the_same_everywhere() -> None:
    timing = Timing("nightly", "0 3 * * *", "UTC", 3_600)

    assert timing.fire_time(at(3)) - at(3) == timedelta(minutes=49, seconds=42)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "0 3 * * *", "*/10 * * * * *", "0 0 1 * 1"]),
    st.integers(0, 86_400),
    st.text("abc", min_size=1, max_size=5),
    st.integers(0, 40 * 365 * 86_400),
)
def test_jitter_never_reorders_slots(cron: str, jitter: int, name: str, seconds: int) -> None:
    timing = Timing(name, cron, "UTC", jitter)
    slot = timing.next_slot(MIDNIGHT + timedelta(seconds=seconds))
    for _ in range(4):
        following = timing.next_slot(slot)
        assert slot <= timing.fire_time(slot) < following
        assert timing.fire_time(slot) - slot <= timedelta(seconds=jitter)
        slot = following


def test_jitter_spreads_over_its_range() -> None:
    slot = at(3)
    delays = {Timing(f"s{number}", "0 3 * * *", "UTC", 600).fire_time(slot) - slot for number in range(200)}

    assert len(delays) > 100
    assert max(delays) <= timedelta(seconds=600)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["* * * * *", "0 * * * *", "*/30 * * * * *", "0 3 * * *"]),
    st.integers(0, 7_200),
    st.integers(0, 6 * 3_600),
)
def test_the_next_slot_is_the_first_whose_firing_lies_ahead(cron: str, jitter: int, seconds_late: int) -> None:
    timing = Timing("s", cron, "UTC", jitter)
    first = timing.next_slot(MIDNIGHT)
    now = first + timedelta(seconds=seconds_late)

    slot = timing.next_slot(first)
    while timing.fire_time(slot) <= now:
        slot = timing.next_slot(slot)

    assert timing.next_slot_due_after(first, now) == slot


@pytest.mark.parametrize("missed", MissedPolicy)
def test_in_time_every_policy_fires_the_slot_and_waits_for_the_next(missed: MissedPolicy) -> None:
    decided = plan(missed, now=at(0) + timedelta(seconds=1))

    assert (decided.slots, decided.next_slot_at, decided.next_fire_at) == ((at(0),), at(1), at(1))


def test_one_fires_the_first_missed_slot_and_passes_over_the_rest() -> None:
    decided = plan(MissedPolicy.ONE, now=at(5.5))

    assert (decided.slots, decided.next_slot_at) == ((at(0),), at(6))


def test_skip_passes_over_all_that_is_more_than_a_minute_late() -> None:
    assert plan(MissedPolicy.SKIP, now=at(5.5)).slots == ()
    assert plan(MissedPolicy.SKIP, now=at(5.5)).next_slot_at == at(6)
    assert plan(MissedPolicy.SKIP, now=at(5) + timedelta(seconds=59)).slots == (at(5),)
    assert plan(MissedPolicy.SKIP, now=at(5) + timedelta(seconds=61)).slots == ()


def test_all_fires_every_missed_slot_a_bounded_number_at_a_time() -> None:
    assert plan(MissedPolicy.ALL, now=at(2.5)).slots == (at(0), at(1), at(2))

    decided = plan(MissedPolicy.ALL, now=at(1_000.5))
    assert decided.slots == tuple(at(hour) for hour in range(MOST_SLOTS_AT_ONCE))
    assert decided.next_slot_at == at(MOST_SLOTS_AT_ONCE)


def test_a_slot_whose_jitter_lies_ahead_is_not_missed() -> None:
    timing = next(
        one
        for one in (Timing(f"s{number}", "0 * * * *", "UTC", 3_600) for number in range(1_000))
        if one.fire_time(at(5)) > at(5.5)
    )

    decided = plan(MissedPolicy.ONE, now=at(5.5), timing=timing)

    assert (decided.slots, decided.next_slot_at) == ((at(0),), at(5))
    assert decided.next_fire_at == timing.fire_time(at(5))
