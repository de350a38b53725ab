"""Stored definitions: what a catalog restores, and what an operator decided that survives it."""

import pytest
from postgres.observing import scalar, snapshot, until_blocked

from runledger.core.definitions import DefinitionSync, JobDefinition, RetryPolicy
from runledger.core.errors import (
    DefinitionNotFound,
    InvalidPagination,
    InvalidRequest,
    ScheduleDefinitionNotFoundOrDisabled,
)
from runledger.core.operation_errors import ActiveScheduleExists, EmptyJobTypeList
from runledger.core.schedules import ScheduleRequest
from runledger.postgres.definition_reads import get_job_definition, list_job_definitions
from runledger.postgres.definitions import (
    get_definitions,
    set_definition_enabled,
    set_definition_paused,
    sync_definitions,
    sync_definitions_exact,
)
from runledger.postgres.schedules import set_job_schedule_active, upsert_job_schedule


def stored(connection, job_type="mail.send"):
    return get_definitions(connection, [job_type])[job_type]


def test_whole_and_broken_seconds_are_stored_together(connection):
    whole = JobDefinition("mail.whole", retry=RetryPolicy(base_seconds=2, factor=3, cap_seconds=600))
    broken = JobDefinition("mail.broken", retry=RetryPolicy(base_seconds=0.5))

    sync_definitions(connection, [whole, broken])

    assert stored(connection, "mail.whole")[0].retry.base_seconds == 2
    assert stored(connection, "mail.broken")[0].retry.base_seconds == 0.5


def test_a_definition_is_stored_with_every_setting(connection):
    definition = JobDefinition(
        "mail.send",
        version=3,
        max_attempts=7,
        timeout_seconds=11,
        priority=-5,
        queue="mail",
        retry=RetryPolicy(1.5, 3.0, 90.0, False, {"mail.down": 2.5}),
        crash_budget=9,
        has_dead_letter_hook=True,
    )

    assert sync_definitions(connection, [definition]) == ("mail.send",)

    assert stored(connection) == (definition, False)
    assert (
        scalar(connection, "SELECT dead_letter_job_type FROM runledger.job_definitions") == "mail.send.on_dead_letter"
    )


def test_a_second_sync_changes_nothing_and_says_so(connection):
    definitions = [JobDefinition("b"), JobDefinition("a", retry=RetryPolicy(overrides={"x": 1.0}))]
    assert sync_definitions(connection, definitions) == ("a", "b")
    before = snapshot(connection)

    assert sync_definitions(connection, definitions) == ()
    assert snapshot(connection) == before


def test_the_catalog_restores_its_settings(connection):
    sync_definitions(connection, [JobDefinition("mail.send", max_attempts=5)])
    connection.execute("UPDATE runledger.job_definitions SET max_attempts = 1, queue = 'x', retry_cap_seconds = 1")

    assert sync_definitions(connection, [JobDefinition("mail.send", max_attempts=5)]) == ("mail.send",)
    assert stored(connection)[0] == JobDefinition("mail.send", max_attempts=5)


def test_what_an_operator_disabled_or_paused_stays_so(connection):
    sync_definitions(connection, [JobDefinition("mail.send")])
    set_definition_enabled(connection, "mail.send", is_enabled=False, actor="ada", reason="storm")
    set_definition_paused(connection, "mail.send", is_paused=True, actor="ada", reason="storm")

    sync_definitions(connection, [JobDefinition("mail.send", max_attempts=9)])

    definition, is_paused = stored(connection)
    assert (definition.is_enabled, is_paused, definition.max_attempts) == (False, True, 9)
    who = "SELECT changed_by || ': ' || change_reason FROM runledger.job_definitions"
    assert scalar(connection, who) == "ada: storm"


def test_a_catalog_that_disables_a_type_disables_it(connection):
    sync_definitions(connection, [JobDefinition("mail.send")])

    assert sync_definitions(connection, [JobDefinition("mail.send", is_enabled=False)]) == ("mail.send",)
    assert stored(connection)[0].is_enabled is False
    sync_definitions(connection, [JobDefinition("mail.send")])
    assert stored(connection)[0].is_enabled is False


def test_types_that_are_absent_are_left_alone(connection):
    sync_definitions(connection, [JobDefinition("a"), JobDefinition("b")])

    assert sync_definitions(connection, [JobDefinition("c")]) == ("c",)
    assert sync_definitions(connection, []) == ()
    assert set(get_definitions(connection)) == {"a", "b", "c"}
    assert get_definitions(connection, ["nobody"]) == {}


@pytest.mark.parametrize("change", [set_definition_enabled, set_definition_paused])
def test_an_unknown_type_cannot_be_changed(connection, change):
    option = {"is_enabled": True} if change is set_definition_enabled else {"is_paused": True}

    with pytest.raises(DefinitionNotFound) as missing:
        change(connection, "nobody.knows", **option)

    assert missing.value.code == "job.definition_not_found"


def test_two_catalogs_at_once_do_not_deadlock(connection, connect, in_background):
    names = [f"type.{number}" for number in range(50)]
    sync_definitions(connection, [JobDefinition(name) for name in names])
    callers = [connect(), connect()]

    def sync(caller, attempts, order):
        for _ in range(5):
            sync_definitions(caller, [JobDefinition(name, max_attempts=attempts) for name in names[::order]])

    futures = [in_background(sync, caller, index + 2, 1 - 2 * index) for index, caller in enumerate(callers)]

    for future in futures:
        future.result(10)


def exactly(connection, *definitions, scope):
    with connection.transaction():
        return sync_definitions_exact(connection, definitions, scope=scope)


def test_an_exact_sync_disables_what_the_scope_has_and_the_catalog_lacks(connection):
    sync_definitions(connection, [JobDefinition("a"), JobDefinition("b"), JobDefinition("elsewhere")])

    done = exactly(connection, JobDefinition("a"), scope=["a", "b", "never.stored"])

    assert done == DefinitionSync(changed=(), disabled=("b",))
    enabled = {name: one.is_enabled for name, (one, _) in get_definitions(connection).items()}
    assert enabled == {"a": True, "b": False, "elsewhere": True}
    assert get_job_definition(connection, "b").change_reason == "not in the catalog"


def test_an_exact_sync_restores_the_enabled_flag_and_keeps_the_pause(connection):
    sync_definitions(connection, [JobDefinition("a"), JobDefinition("b")])
    set_definition_enabled(connection, "a", is_enabled=False)
    set_definition_paused(connection, "a", is_paused=True)

    done = exactly(connection, JobDefinition("a"), JobDefinition("b", is_enabled=False), scope=["a", "b"])

    assert done == DefinitionSync(changed=("a", "b"), disabled=("b",))
    assert stored(connection, "a") == (JobDefinition("a"), True)


@pytest.mark.parametrize(
    ("definitions", "scope", "error"),
    [
        ([], ["a"], EmptyJobTypeList),
        ([JobDefinition("a")], [], EmptyJobTypeList),
        ([JobDefinition("a"), JobDefinition("b")], ["a"], InvalidRequest),
    ],
)
def test_an_exact_sync_that_would_do_more_than_meant_is_refused(connection, definitions, scope, error):
    sync_definitions(connection, [JobDefinition("a"), JobDefinition("b")])
    before = snapshot(connection)

    with pytest.raises(error):
        exactly(connection, *definitions, scope=scope)

    assert snapshot(connection) == before


def scheduled(connection, job_type):
    sync_definitions(connection, [JobDefinition(job_type)])
    upsert_job_schedule(connection, ScheduleRequest("nightly", cron="0 3 * * *", job_type=job_type))


@pytest.mark.parametrize(
    "disable",
    [
        lambda connection: exactly(connection, JobDefinition("other"), scope=["other", "report"]),
        lambda connection: exactly(connection, JobDefinition("report", is_enabled=False), scope=["report"]),
        lambda connection: sync_definitions(connection, [JobDefinition("report", is_enabled=False)]),
        lambda connection: set_definition_enabled(connection, "report", is_enabled=False),
    ],
)
def test_a_type_with_an_active_schedule_is_not_disabled(connection, disable):
    scheduled(connection, "report")
    before = snapshot(connection)

    with pytest.raises(ActiveScheduleExists, match="nightly") as refused:
        disable(connection)

    assert refused.value.code == "job_definition.active_schedule_exists"
    assert snapshot(connection) == before
    set_job_schedule_active(connection, "nightly", is_active=False)
    disable(connection)
    assert stored(connection, "report")[0].is_enabled is False


def test_who_disables_a_type_waits_for_a_schedule_that_becomes_active(connection, connect, in_background):
    scheduled(connection, "report")
    set_job_schedule_active(connection, "nightly", is_active=False)
    resuming, disabling = connect(autocommit=False), connect(autocommit=False)
    set_job_schedule_active(resuming, "nightly", is_active=True)

    refused = in_background(set_definition_enabled, disabling, "report", is_enabled=False)
    until_blocked(connection, disabling)
    resuming.commit()

    with pytest.raises(ActiveScheduleExists):
        refused.result(10)


def test_a_schedule_does_not_become_active_behind_a_type_that_is_being_disabled(connection, connect, in_background):
    scheduled(connection, "report")
    set_job_schedule_active(connection, "nightly", is_active=False)
    resuming, disabling = connect(autocommit=False), connect(autocommit=False)
    set_definition_enabled(disabling, "report", is_enabled=False)

    refused = in_background(set_job_schedule_active, resuming, "nightly", is_active=True)
    until_blocked(connection, resuming)
    disabling.commit()

    with pytest.raises(ScheduleDefinitionNotFoundOrDisabled):
        refused.result(10)


def test_definitions_are_listed_in_pages_and_by_queue(connection):
    sync_definitions(connection, [JobDefinition(name, queue="mail" if name > "b" else "default") for name in "cab"])

    first = list_job_definitions(connection, limit=2)
    second = list_job_definitions(connection, limit=2, after=first[-1].definition.job_type)

    assert [one.definition.job_type for one in first + second] == ["a", "b", "c"]
    assert [one.definition.job_type for one in list_job_definitions(connection, queue="mail")] == ["c"]
    with pytest.raises(InvalidPagination):
        list_job_definitions(connection, limit=0)
