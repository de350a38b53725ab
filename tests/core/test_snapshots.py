"""Two snapshots differ exactly where PostgreSQL's jsonb says so."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import FieldDifference
from runledger.core.snapshots import ABSENT, differences

VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, 1.5, 100, 1e2, 1e30, 10**30, "", "1", "a", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
SNAPSHOTS = st.fixed_dictionaries(
    {"payload": VALUES, "priority": st.sampled_from([None, 0, 1])}, optional={"tags": st.just(["a"])}
).map(json.dumps)


def are_equal(stored: str, requested: str) -> bool:
    return not differences(stored, requested)


@given(SNAPSHOTS)
def test_a_snapshot_equals_itself(one):
    assert are_equal(one, one)


@given(SNAPSHOTS, SNAPSHOTS)
def test_difference_is_symmetric(one, other):
    mirrored = tuple(FieldDifference(name, requested, stored) for name, stored, requested in differences(other, one))
    assert differences(one, other) == mirrored


@given(st.lists(SNAPSHOTS, min_size=3, max_size=3))
def test_equality_is_transitive(three):
    one, two, three_ = three
    if are_equal(one, two) and are_equal(two, three_):
        assert are_equal(one, three_)


@given(SNAPSHOTS)
def test_spelling_does_not_matter(one):
    value = json.loads(one)
    respelled = json.dumps(dict(reversed(list(_respelled(value).items()))), indent=3, ensure_ascii=False)
    assert are_equal(one, respelled)


def _respelled(value: Any) -> Any:
    """Integers as floats where that is exact, keys in the other order."""
    if isinstance(value, dict):
        return {key: _respelled(item) for key, item in reversed(list(value.items()))}
    if isinstance(value, list):
        return [_respelled(item) for item in value]
    return float(value) if type(value) is int and abs(value) < 2**53 else copy.copy(value)


@pytest.mark.parametrize(
    ("stored", "requested"),
    [("1", "1.0"), ("0", "-0.0"), ("100", "1e2"), ("0.10", "0.1"), ('{"a":1,"b":2}', '{"b":2.00,"a":1}'),
     ("1e400", "10e399"), ("1" + "0" * 6_000, "1e6000"), ('"\\u00e9"', '"é"')],
)  # fmt: skip
def test_values_that_jsonb_calls_equal_do_not_differ(stored, requested):
    assert are_equal(f'{{"payload":{stored}}}', f'{{"payload":{requested}}}')


@pytest.mark.parametrize(
    ("stored", "requested"),
    [("1", "true"), ("0", "false"), ("1", '"1"'), ("null", "0"), ("[1,2]", "[2,1]"), ('"é"', '"e\u0301"'), ("[]", "{}"),
     ("1e30", "1000000000000000019884624838656"), ("0.1", "0.1000000000000000055511151231257827"), ("{}", "null")],
)  # fmt: skip
def test_values_that_jsonb_calls_different_differ(stored, requested):
    assert differences(f'{{"payload":{stored}}}', f'{{"payload":{requested}}}')[0].field == "payload"


def test_each_field_that_differs_is_named_with_both_sides():
    stored = '{"payload": {"b": 1, "a": "ü"}, "priority": null, "stage": "queued", "tags": ["a"]}'
    requested = '{"payload": {"a": "x", "b": 1.0}, "priority": 0, "stage": "queued"}'
    assert differences(stored, requested) == (
        FieldDifference("payload", '{"a":"ü","b":1}', '{"a":"x","b":1}'),
        FieldDifference("priority", "null", "0"),
        FieldDifference("tags", '["a"]', ABSENT),
    )


def test_long_sides_are_cut():
    (difference,) = differences(json.dumps({"payload": "a" * 500}), json.dumps({"payload": "b" * 500}))
    assert len(difference.stored) == len(difference.requested) == 200
    assert difference.stored.endswith("…")


@pytest.mark.parametrize("broken", ["", "{", "[]", "7", "null", "[" * 100_000, '{"payload": NaN}', "{}{}"])
def test_a_snapshot_that_cannot_be_read_differs_as_a_whole(broken):
    (difference,) = differences(broken, '{"payload":{}}')
    assert difference.field == "request"
