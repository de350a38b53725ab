"""A definition is refused by the name of its bad setting."""

import math
from typing import Any

import pytest

from runledger.core.definitions import JobDefinition, RetryPolicy, check_definition
from runledger.core.errors import InvalidDefinition


def test_the_defaults_pass_and_come_back_unchanged():
    definition = JobDefinition("mail.receipt")
    assert check_definition(definition) is definition


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("job_type", ["", " a", "x" * 201, 7]),
        ("queue", ["", "a\0", None]),
        ("version", [0, -1, 2**31, "1", True, 1.0]),
        ("max_attempts", [0, 1_001, None]),
        ("timeout_seconds", [0, 604_801, 1.5]),
        ("priority", [2**31, -(2**31) - 1, "high"]),
        ("crash_budget", [0, 101]),
        ("is_enabled", [None, 1, "yes"]),
        ("retry", [None, {"base_seconds": 5}]),
    ],
)
def test_a_setting_outside_its_limits_is_named(setting, values):
    for value in values:
        settings: dict[str, Any] = {"job_type": "mail.receipt", setting: value}
        with pytest.raises(InvalidDefinition, match=setting):
            check_definition(JobDefinition(**settings))


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("base_seconds", [0, -1, math.nan, math.inf, 2_592_001, "5", True]),
        ("cap_seconds", [0, math.nan, 2_592_001]),
        ("factor", [0.99, 10.1, math.nan]),
        ("jitter", [None, 0]),
        ("overrides", [None, [("a", 1)], {"": 1}, {"a": 0}, {"a": -1}, {"a": math.nan}, {"a": "5"}, {7: 1}]),
    ],
)
def test_a_retry_setting_outside_its_limits_is_named(setting, values):
    for value in values:
        settings: dict[str, Any] = {setting: value}
        with pytest.raises(InvalidDefinition, match=rf"retry\.{setting}"):
            check_definition(JobDefinition("mail.receipt", retry=RetryPolicy(**settings)))


def test_the_limits_themselves_pass():
    retry = RetryPolicy(base_seconds=0.001, factor=1, cap_seconds=2_592_000, overrides={"a.b": 2_592_000})
    check_definition(
        JobDefinition("t", 2**31 - 1, max_attempts=1_000, timeout_seconds=604_800, priority=-(2**31), retry=retry)
    )
