"""Stored definitions: what a catalog restores, and what an operator decided that survives it."""

import pytest
from postgres.observing import scalar, snapshot

from runledger.core.definitions import JobDefinition, RetryPolicy
from runledger.core.errors import DefinitionNotFound
from runledger.postgres.definitions import (
    get_definitions,
    set_definition_enabled,
    set_definition_paused,
    sync_definitions,
)


def stored(connection, job_type="mail.send"):
    return get_definitions(connection, [job_type])[job_type]


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
