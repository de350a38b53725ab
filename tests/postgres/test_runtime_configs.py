"""Runtime configs: stored as a whole, never overwritten unseen, with everything that was on record."""

import pytest
from postgres.observing import snapshot

from runledger.core.errors import DefinitionNotFound, InvalidPagination, InvalidRequest
from runledger.core.operation_errors import InvalidRuntimeConfig, RuntimeConfigConflict, RuntimeConfigNotFound
from runledger.postgres.operator_actions import list_operator_actions
from runledger.postgres.runtime_configs import (
    get_job_runtime_config,
    list_job_runtime_configs,
    upsert_job_runtime_config,
)
from runledger.testing.factories import TEST_TYPE, a_definition


def test_a_config_is_read_back_with_its_revision(connection):
    a_definition(connection)

    first = upsert_job_runtime_config(connection, TEST_TYPE, {"rate": 5}, schema_version=2, actor="ada")
    second = upsert_job_runtime_config(connection, TEST_TYPE, {"rate": 6}, actor="bob")

    assert (first.config, first.schema_version, first.revision, first.changed_by) == ({"rate": 5}, 2, 1, "ada")
    assert (second.revision, second.created_at) == (2, first.created_at)
    assert get_job_runtime_config(connection, TEST_TYPE) == second


@pytest.mark.parametrize(("stored", "expected"), [(0, 1), (1, 0), (2, 1), (1, 2)])
def test_a_change_of_another_revision_is_refused_and_writes_nothing(connection, stored, expected):
    a_definition(connection)
    for number in range(stored):
        upsert_job_runtime_config(connection, TEST_TYPE, {"n": number})
    before = snapshot(connection)

    with pytest.raises(RuntimeConfigConflict) as refused:
        upsert_job_runtime_config(connection, TEST_TYPE, {"n": 9}, expected_revision=expected)

    assert refused.value.code == "job.runtime_config_conflict"
    assert snapshot(connection) == before


def test_of_two_changes_of_one_revision_one_is_refused(connection, connect, in_background):
    a_definition(connection)
    upsert_job_runtime_config(connection, TEST_TYPE, {}, expected_revision=0)
    callers = [connect() for _ in range(4)]

    futures = [
        in_background(upsert_job_runtime_config, one, TEST_TYPE, {"by": place}, expected_revision=1)
        for place, one in enumerate(callers)
    ]

    assert sorted(type(one.exception(10)).__name__ for one in futures) == ["NoneType"] + ["RuntimeConfigConflict"] * 3
    assert get_job_runtime_config(connection, TEST_TYPE).revision == 2


def test_every_change_is_on_record_with_who_and_why(connection):
    a_definition(connection)
    for number in (1, 2):
        upsert_job_runtime_config(connection, TEST_TYPE, {"n": number}, actor="ada", reason=f"reason {number}")

    latest, first = list_operator_actions(connection, action="config.set")

    assert (first.actor, first.reason, first.selection, first.affected) == (
        "ada",
        "reason 1",
        {"job_type": TEST_TYPE},
        1,
    )
    assert latest.detail == {"revision": 2, "schema_version": 1, "config": {"n": 2}}
    assert list_operator_actions(connection, before=latest.action_id) == [first]


@pytest.mark.parametrize(
    ("config", "options", "error"),
    [
        ([1], {}, InvalidRuntimeConfig),
        ({"x": float("nan")}, {}, InvalidRuntimeConfig),
        ({"x": "\0"}, {}, InvalidRuntimeConfig),
        ({"x": "y" * 262_144}, {}, InvalidRuntimeConfig),
        ({}, {"schema_version": 0}, InvalidRequest),
        ({}, {"expected_revision": -1}, InvalidRequest),
        ({}, {"expected_revision": True}, InvalidRequest),
    ],
)
def test_a_config_outside_the_limits_is_refused(connection, config, options, error):
    a_definition(connection)
    before = snapshot(connection)

    with pytest.raises(error):
        upsert_job_runtime_config(connection, TEST_TYPE, config, **options)

    assert snapshot(connection) == before


def test_an_unknown_type_has_no_config_and_gets_none(connection):
    with pytest.raises(RuntimeConfigNotFound):
        get_job_runtime_config(connection, "nobody.knows")
    with pytest.raises(DefinitionNotFound):
        upsert_job_runtime_config(connection, "nobody.knows", {})


def test_configs_are_listed_in_pages(connection):
    for name in ("b", "a", "c"):
        a_definition(connection, name)
        upsert_job_runtime_config(connection, name, {})

    first = list_job_runtime_configs(connection, limit=2)

    assert [one.job_type for one in first + list_job_runtime_configs(connection, after=first[-1].job_type)] == [*"abc"]
    with pytest.raises(InvalidPagination):
        list_job_runtime_configs(connection, limit=1_001)
