"""Firing: one job for each slot, whoever fires and whatever moved; policies for late and overlapping slots; and a
schedule that cannot fire, which stops no other. Rows are aged, never the clock."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from postgres.observing import count, place_of, scalar

from runledger.core.errors import ScheduleDefinitionNotFoundOrDisabled, ScheduleNotFound
from runledger.core.jobs import Scope
from runledger.core.schedules import MOST_SLOTS_AT_ONCE, ScheduleRequest
from runledger.core.states import JobStatus
from runledger.postgres.connection import borrow
from runledger.postgres.firing import OVERLAP_SKIPPED, fire_due_schedules, seconds_until_due, trigger_job_schedule
from runledger.postgres.locks import try_lock_scheduler
from runledger.postgres.operations import cancel_job
from runledger.postgres.reads import get_job
from runledger.postgres.schedule_reads import get_job_schedule
from runledger.postgres.schedules import set_job_schedule_active, set_job_schedule_next_fire_at, upsert_job_schedule
from runledger.testing.factories import TEST_TYPE, a_definition

SCHEDULE_IN_FULL = "id, name, next_slot_at, next_fire_at, last_fired_at, last_job_id, last_error_code"


@pytest.fixture(autouse=True)
def definitions(connection):
    a_definition(connection, max_attempts=7, timeout_seconds=11, priority=-3)
    a_definition(connection, "test.other")
    stay_within_the_hour(connection)


def stay_within_the_hour(connection):
    """Slots are counted from the last full hour, which stays the last one while a test runs."""
    left = scalar(connection, "SELECT extract(epoch FROM date_trunc('hour', now()) + interval '1 hour' - now())::float")
    if left < 30:
        connection.execute("SELECT pg_sleep(%s)", [left])


def a_schedule(connection, name="hourly", *, hours_late=0.0, **changed):
    """A schedule whose next slot is the last full hour, or earlier."""
    settings = {"cron": "0 * * * *", "job_type": TEST_TYPE} | changed
    upsert_job_schedule(connection, ScheduleRequest(name, **settings))
    slot = last_full_hour(connection) - timedelta(hours=hours_late)
    assert set_job_schedule_next_fire_at(connection, name, slot)
    return slot


def last_full_hour(connection):
    return datetime.fromtimestamp(scalar(connection, "SELECT extract(epoch FROM date_trunc('hour', now()))::int"), UTC)


def fire(connection):
    with connection.transaction():
        return fire_due_schedules(connection)


def fired_slots(done):
    return [(firing.name, firing.slot) for firing in done.fired]


def job_of(connection, done):
    [firing] = done.fired
    return get_job(connection, firing.job_id, scope=Scope.any())


def end(connection, job_id):
    cancel_job(connection, job_id, scope=Scope.any())


def test_a_due_schedule_makes_a_job_with_the_settings_of_its_definition(connection):
    tenant = uuid4()
    slot = a_schedule(connection, payload={"kind": "daily"}, organization_id=tenant)

    done = fire(connection)

    job = job_of(connection, done)
    schedule = get_job_schedule(connection, "hourly")
    assert job.payload == {
        "kind": "daily",
        "_schedule": {
            "schedule_id": str(schedule.schedule_id),
            "schedule_name": "hourly",
            "scheduled_for": slot.isoformat().replace("+00:00", "Z"),
        },
    }
    assert (job.job_type, job.organization_id, job.status) == (TEST_TYPE, tenant, JobStatus.PENDING)
    assert (job.max_attempts, job.timeout_seconds, job.priority) == (7, 11, -3)
    assert place_of(connection, job.job_id) == ["job_ready"]
    assert schedule.next_fire_at == schedule.next_slot_at == slot + timedelta(hours=1)
    assert schedule.last_job_id == job.job_id
    assert schedule.last_fired_at is not None
    assert (schedule.last_error_code, done.due) == (None, 1)
    assert scalar(connection, "SELECT (schedule_id, scheduled_for) = (%s, %s) FROM runledger.job_queue",
                  schedule.schedule_id, slot)  # fmt: skip


@pytest.mark.parametrize("template", [[1, {"x": None}], "text", 5, None, False])
def test_a_template_that_is_no_object_is_wrapped(connection, template):
    a_schedule(connection, payload=template)

    payload = job_of(connection, fire(connection)).payload

    assert payload.keys() == ({"_schedule"} if template is None else {"payload", "_schedule"})
    assert payload.get("payload") == template


def test_what_is_not_due_or_paused_does_not_fire(connection):
    upsert_job_schedule(connection, ScheduleRequest("later", cron="0 0 1 1 *", job_type=TEST_TYPE))
    a_schedule(connection, "paused")
    set_job_schedule_active(connection, "paused", is_active=False)

    assert fire(connection).due == 0
    assert count(connection, "job_queue") == 0


def test_at_most_the_limit_fires_and_the_longest_due_first(connection):
    for name, hours in (("b", 1), ("a", 3), ("c", 2)):
        a_schedule(connection, name, hours_late=hours)

    with connection.transaction():
        done = fire_due_schedules(connection, limit=2)

    assert [name for name, _ in fired_slots(done)] == ["a", "c"]


def test_two_schedulers_at_once_fire_a_slot_once(connection, connect):
    slot = a_schedule(connection)
    first, second = connect(autocommit=False), connect(autocommit=False)

    done = fire_due_schedules(first)
    beside = fire_due_schedules(second)
    first.commit()
    after = fire_due_schedules(second)
    second.commit()

    assert fired_slots(done) == [("hourly", slot)]
    assert (beside.due, after.due) == (0, 0)
    assert count(connection, "job_queue") == 1


def test_two_schedulers_share_what_is_due(connection, connect):
    for number in range(4):
        a_schedule(connection, f"s{number}")
    first, second = connect(autocommit=False), connect(autocommit=False)

    names = [name for name, _ in fired_slots(fire_due_schedules(first, limit=2))]
    names += [name for name, _ in fired_slots(fire_due_schedules(second))]
    first.commit()
    second.commit()

    assert sorted(names) == ["s0", "s1", "s2", "s3"]


def test_a_cursor_that_was_moved_back_fires_nothing_twice(connection):
    slot = a_schedule(connection)
    fire(connection)

    set_job_schedule_next_fire_at(connection, "hourly", slot)
    again = fire(connection)

    assert (again.fired, again.due, count(connection, "job_queue")) == ((), 1, 1)
    assert get_job_schedule(connection, "hourly").next_slot_at == slot + timedelta(hours=1)
    assert get_job_schedule(connection, "hourly").last_job_id is not None


def test_a_rolled_back_firing_fires_again(connection, connect):
    slot = a_schedule(connection)
    crashing = connect(autocommit=False)
    fire_due_schedules(crashing)
    crashing.rollback()

    assert fired_slots(fire(connection)) == [("hourly", slot)]


def test_no_job_is_older_than_its_slot(connection):
    a_schedule(connection, "late", hours_late=3, missed="all")
    a_schedule(connection, "now", cron="* * * * * *")
    connection.execute(
        "UPDATE runledger.job_schedules SET next_fire_at = s, next_slot_at = s"
        " FROM (SELECT date_trunc('second', now()) AS s) AS this WHERE name = 'now'"
    )

    assert len(fire(connection).fired) == 5
    assert scalar(connection, "SELECT bool_and(created_at >= scheduled_for) FROM runledger.job_queue")


def test_one_late_firing_for_the_original_slot_then_the_next_future_one(connection):
    slot = a_schedule(connection, hours_late=5)

    assert fired_slots(fire(connection)) == [("hourly", slot)]
    assert get_job_schedule(connection, "hourly").next_slot_at == slot + timedelta(hours=6)
    assert fire(connection).due == 0


def test_skip_passes_over_missed_slots(connection):
    slot = a_schedule(connection, hours_late=5, missed="skip", cron="30 2 29 2 *")

    done = fire(connection)

    assert (done.fired, done.due, done.skipped, done.deferred) == ((), 1, (), ())
    assert get_job_schedule(connection, "hourly").next_slot_at > slot + timedelta(hours=6)
    assert get_job_schedule(connection, "hourly").last_fired_at is None


def test_all_fires_every_missed_slot(connection):
    slot = a_schedule(connection, hours_late=3, missed="all")

    assert fired_slots(fire(connection)) == [("hourly", slot + timedelta(hours=hour)) for hour in range(4)]
    assert fire(connection).due == 0


def test_all_catches_up_a_bounded_number_at_a_time_and_lets_others_fire(connection):
    a_schedule(connection, "behind", hours_late=MOST_SLOTS_AT_ONCE + 9, missed="all")
    a_schedule(connection, "other")

    first, second = fire(connection), fire(connection)

    assert [name for name, _ in fired_slots(first)] == ["behind"] * MOST_SLOTS_AT_ONCE + ["other"]
    assert [name for name, _ in fired_slots(second)] == ["behind"] * 10
    assert fire(connection).due == 0


def test_a_long_pause_is_a_missed_slot(connection):
    slot = a_schedule(connection, hours_late=48)
    set_job_schedule_active(connection, "hourly", is_active=False)
    assert fire(connection).due == 0

    set_job_schedule_active(connection, "hourly", is_active=True)

    assert fired_slots(fire(connection)) == [("hourly", slot)]


def test_overlap_skip_waits_for_the_last_job_and_says_so(connection):
    slot = a_schedule(connection, hours_late=1, overlap="skip")
    first = job_of(connection, fire(connection))
    set_job_schedule_next_fire_at(connection, "hourly", slot + timedelta(hours=1))

    done = fire(connection)

    [skipped] = done.skipped
    schedule = get_job_schedule(connection, "hourly")
    assert (skipped.name, skipped.code) == ("hourly", OVERLAP_SKIPPED)
    assert (schedule.last_error_code, schedule.last_job_id) == (OVERLAP_SKIPPED, first.job_id)
    assert schedule.next_slot_at == slot + timedelta(hours=2)
    assert count(connection, "job_queue") == 1

    end(connection, first.job_id)
    set_job_schedule_next_fire_at(connection, "hourly", slot + timedelta(hours=1))
    assert len(fire(connection).fired) == 1
    assert get_job_schedule(connection, "hourly").last_error_code is None


def test_overlap_allow_does_not_look(connection):
    slot = a_schedule(connection, hours_late=1)
    fire(connection)
    set_job_schedule_next_fire_at(connection, "hourly", slot + timedelta(hours=1))

    assert len(fire(connection).fired) == 1


def test_overlap_skip_fires_one_of_several_missed_slots(connection):
    slot = a_schedule(connection, hours_late=3, missed="all", overlap="skip")

    assert fired_slots(fire(connection)) == [("hourly", slot)]
    assert fire(connection).due == 0


def make_due_again(connection, name):
    connection.execute(
        "UPDATE runledger.job_schedules SET next_fire_at = next_fire_at - interval '31 s' WHERE name = %s", (name,)
    )


@pytest.mark.parametrize(
    ("damage", "repair", "code"),
    [
        ("UPDATE runledger.job_definitions SET is_enabled = false WHERE job_type = 'test.job'",
         "UPDATE runledger.job_definitions SET is_enabled = true", "job_schedule.definition_not_found_or_disabled"),
        ("UPDATE runledger.job_schedules SET cron_expr = '0 9-9 * * *' WHERE name = 'bad'",
         "UPDATE runledger.job_schedules SET cron_expr = '0 * * * *' WHERE name = 'bad'", "job_schedule.invalid_cron"),
        ("UPDATE runledger.job_schedules SET timezone = 'Mars/Olympus' WHERE name = 'bad'",
         "UPDATE runledger.job_schedules SET timezone = 'UTC' WHERE name = 'bad'", "job_schedule.invalid_timezone"),
    ],
)  # fmt: skip
def test_a_bad_schedule_is_put_off_with_its_slot_while_others_fire(connection, damage, repair, code):
    slot = a_schedule(connection, "bad", hours_late=2)
    a_schedule(connection, "good", job_type="test.other")
    connection.execute(damage)

    done = fire(connection)

    [deferred] = done.deferred
    bad = get_job_schedule(connection, "bad")
    assert [name for name, _ in fired_slots(done)] == ["good"]
    assert (deferred.name, deferred.code) == ("bad", code)
    assert (bad.next_slot_at, bad.last_error_code, bad.last_error_message) == (slot, code, deferred.message)
    assert bad.last_fired_at is None
    assert 20.0 < scalar(connection, "SELECT extract(epoch FROM next_fire_at - now()) FROM runledger.job_schedules"
                                     " WHERE name = 'bad'") <= 30.0  # fmt: skip
    assert fire(connection).due == 0

    connection.execute(repair)
    make_due_again(connection, "bad")
    assert fired_slots(fire(connection)) == [("bad", slot)]
    assert get_job_schedule(connection, "bad").last_error_code is None


def test_a_repaired_schedule_that_is_written_again_forgets_its_error(connection):
    a_schedule(connection, "bad")
    connection.execute("UPDATE runledger.job_schedules SET cron_expr = 'broken'")
    fire(connection)

    again = upsert_job_schedule(connection, ScheduleRequest("bad", cron="0 * * * *", job_type=TEST_TYPE))

    assert (again.last_error_code, again.last_error_message) == (None, None)


def test_a_trigger_makes_a_job_now_and_moves_nothing(connection):
    slot = a_schedule(connection, payload={"kind": "daily"})
    set_job_schedule_active(connection, "hourly", is_active=False)

    with connection.transaction():
        jobs = [trigger_job_schedule(connection, "hourly") for _ in range(2)]

    payload = get_job(connection, jobs[0].job_id, scope=Scope.any()).payload
    assert (payload["kind"], payload["_schedule"]["is_manual"]) == ("daily", True)
    assert payload["_schedule"]["schedule_name"] == "hourly"
    assert len({job.job_id for job in jobs}) == 2
    assert get_job_schedule(connection, "hourly").next_slot_at == slot
    set_job_schedule_active(connection, "hourly", is_active=True)
    assert len(fire(connection).fired) == 1


def test_a_trigger_does_not_hide_a_firing_that_still_runs(connection):
    slot = a_schedule(connection, hours_late=1, overlap="skip")
    running = job_of(connection, fire(connection))
    end(connection, trigger_job_schedule(connection, "hourly").job_id)
    set_job_schedule_next_fire_at(connection, "hourly", slot + timedelta(hours=1))

    assert get_job_schedule(connection, "hourly").last_job_id == running.job_id
    assert len(fire(connection).skipped) == 1


def test_a_trigger_of_what_cannot_fire_is_refused(connection):
    with pytest.raises(ScheduleNotFound):
        trigger_job_schedule(connection, "ghost")
    a_schedule(connection)
    connection.execute("UPDATE runledger.job_definitions SET is_enabled = false")  # past the guard of our own functions
    with pytest.raises(ScheduleDefinitionNotFoundOrDisabled):
        trigger_job_schedule(connection, "hourly")
    assert count(connection, "job_queue") == 0


def test_the_wait_is_until_the_first_active_schedule(connection):
    assert seconds_until_due(connection) is None
    a_schedule(connection, "paused")
    set_job_schedule_active(connection, "paused", is_active=False)
    a_schedule(connection, "soon")
    connection.execute("UPDATE runledger.job_schedules SET next_fire_at = now() + interval '20 s' WHERE name = 'soon'")

    wait = seconds_until_due(connection)
    assert wait is not None
    assert 10.0 < wait <= 20.0
    set_job_schedule_active(connection, "paused", is_active=True)
    assert seconds_until_due(connection) == 0.0


def test_the_lock_is_for_one_transaction_of_one_schema(connection, connect):
    first, second = connect(autocommit=False), connect(autocommit=False)
    assert try_lock_scheduler(first)
    assert not try_lock_scheduler(second)
    assert try_lock_scheduler(borrow(second, "another_schema"))
    first.rollback()
    assert try_lock_scheduler(second)


def test_a_hundred_schedules_take_four_statements(connection):
    for number in range(100):
        a_schedule(connection, f"s{number:03}")
    seen = []

    class Counting(type(borrow(connection))):
        def _execute(self, statement, parameters):
            seen.append(statement.name)
            return super()._execute(statement, parameters)

    with connection.transaction():
        ledger = Counting(connection, "runledger")
        try_lock_scheduler(ledger)
        assert len(fire_due_schedules(ledger).fired) == 100

    assert seen == ["try_lock_scheduler", "lock_due_schedules", "fire_slots", "advance_schedules"]
