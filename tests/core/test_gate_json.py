"""What the JSON gate lets in, and what it refuses without a trace of the value."""

import json
import math
import sys
from collections import OrderedDict, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import InvalidCheckpoint, InvalidOutput, InvalidPayload
from runledger.core.gate import DECODE_LIMIT, JSON_LIMIT, decode_json, encode_json


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Mixed(str, Enum):  # noqa: UP042 - the older spelling is what is tested
    OLD = "old"


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(TEXTS, inner, max_size=5)
    ),
    max_leaves=20,
)
HOSTILE = st.sampled_from(
    [
        b"x", Decimal(1), datetime(2026, 1, 1, tzinfo=UTC), object(), {1}, "\0", "a\0b", "\ud800", "\udc00\ud800",
        math.nan, math.inf, -math.inf, 10**1000, -(10**1000), {1: 2}, {None: 1}, {True: 1}, {"\0": 1}, {"\udfff": 1},
        {(1,): 1}, range(3), len, int, 1j, bytearray(b"x"), OrderedDict(a=1), defaultdict(int),
    ]
)  # fmt: skip


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def encode(value: Any, limit_bytes: int = JSON_LIMIT) -> str:
    return encode_json(value, error=InvalidPayload, limit_bytes=limit_bytes)


def decode(text: str) -> Any:
    return decode_json(text, error=InvalidPayload)


@given(JSON)
def test_what_the_gate_accepts_decodes_to_the_equal_plain_value(value):
    assert decode(encode(value)) == plain(value)


@given(HOSTILE, st.lists(st.sampled_from(["list", "dict", "tuple"]), max_size=20))
def test_a_hostile_value_is_refused_however_deep_it_hides(value, wrappers):
    for wrapper in wrappers:
        value = {"list": [1, value], "dict": {"a": 1, "b": value}, "tuple": (value,)}[wrapper]
    with pytest.raises(InvalidPayload) as refusal:
        encode(value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_random_text_decodes_or_is_refused(text):
    try:
        value = decode(text)
    except InvalidPayload:
        return
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, '"red"'),
        (Mixed.OLD, '"old"'),
        (Size.LARGE, "3"),
        (Text("t"), '"t"'),
        (Number(7), "7"),
        (Ratio(0.5), "0.5"),
        ((1, (2,)), "[1,[2]]"),
        ({Colour.RED: Colour.RED}, '{"red":"red"}'),
        (-0.0, "-0.0"),
        ("\uffff", '"\uffff"'),
        ({"__proto__": {}}, '{"__proto__":{}}'),
        ("'; DROP TABLE job_queue; --", '"\'; DROP TABLE job_queue; --"'),
        ("a\r\nb", '"a\\r\\nb"'),
        ("", '""'),
        ("ü😀", '"ü😀"'),
        (None, "null"),
        (True, "true"),
        (1e308, "1e+308"),
        ({"é": 1, "e\u0301": 2}, '{"é":1,"e\u0301":2}'),
    ],
)
def test_accepted_values_are_written_plain_and_compact(value, text):
    assert encode(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"items": [1, 2, 3, "secret\0"]}, "payload.items[3] contains a NUL character"),
        ({"a": {"b": "secret\ud800"}}, "payload.a.b contains a lone surrogate"),
        ({"a": [math.nan]}, "payload.a[0] is not a finite number"),
        ({"when": datetime(2026, 1, 1, tzinfo=UTC)}, "payload.when is a datetime, which JSON does not have"),
        ({"a": {7: "secret"}}, "payload.a has a key of type int; keys must be text"),
        ({"a": {"secret\0": 1}}, "payload.a has a key that contains a NUL character"),
        ([10**1000], "payload[0] is an integer of more than 1,000 digits"),
        ({"a\nb": object()}, "payload.? is a object, which JSON does not have"),
        ({"k" * 65: object()}, "payload.? is a object, which JSON does not have"),
        (b"secret", "payload is a bytes, which JSON does not have"),
    ],
)
def test_a_refusal_names_the_place_and_never_the_value(value, message):
    with pytest.raises(InvalidPayload) as refusal:
        encode(value)
    assert str(refusal.value) == message


def test_depth_64_passes_and_65_does_not():
    assert decode(encode(nested(64))) == nested(64)
    with pytest.raises(InvalidPayload, match="deeper than 64"):
        encode(nested(65))


@pytest.mark.parametrize("depth", [1_000, 20_000])
def test_deep_nesting_is_refused_and_not_recursed_into(depth):
    value = nested(depth)
    with pytest.raises(InvalidPayload):
        encode(value)
    while value:  # taken apart by hand: dropping the last reference at once would recurse in C
        value = value.pop()


def test_a_value_that_holds_itself_is_refused():
    array: list[Any] = []
    array.append(array)
    mapping: dict[str, Any] = {}
    mapping["self"] = [mapping]
    for value in (array, mapping):
        with pytest.raises(InvalidPayload):
            encode(value)


def test_a_value_that_doubles_on_every_level_is_refused_at_once():
    value: Any = ["x"]
    for _ in range(62):
        value = [value, value]
    with pytest.raises(InvalidPayload, match="larger than"):
        encode(value)


def test_a_value_near_the_end_of_the_stack_is_refused_and_not_a_recursion_error():
    def descend(levels: int) -> str:
        return descend(levels - 1) if levels else encode(nested(60))

    frames_in_use = len(_stack())
    with pytest.raises(InvalidPayload):
        descend(sys.getrecursionlimit() - frames_in_use - 30)


def _stack() -> list[Any]:
    frames, frame = [], sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def test_integers_have_at_most_a_thousand_digits():
    largest = 10**1000 - 1
    assert decode(encode([largest, -largest])) == [largest, -largest]
    for value in (10**1000, -(10**1000), 10**4300, 10**5000):
        with pytest.raises(InvalidPayload, match="1,000 digits"):
            encode(value)


def test_the_size_limit_counts_bytes_of_utf8_and_is_inclusive():
    assert len(encode("x" * (JSON_LIMIT - 2))) == JSON_LIMIT
    assert encode("é" * 4, limit_bytes=10) == '"éééé"'
    for value, limit in (("x" * (JSON_LIMIT - 1), JSON_LIMIT), ("é" * 4, 9), ({"k" * 2_000_000: 1}, JSON_LIMIT)):
        with pytest.raises(InvalidPayload, match="larger than"):
            encode(value, limit_bytes=limit)


@pytest.mark.parametrize("value", ["x" * 100_000_000, ["x" * 200_000] * 2_000, [None] * 500_000, [10**999] * 100_000])
def test_a_huge_value_is_refused_before_its_text_is_made(value):
    with pytest.raises(InvalidPayload, match="larger than 262,144 bytes"):
        encode(value)


def test_later_changes_do_not_reach_what_was_encoded():
    value = {"a": [1]}
    text = encode(value)
    value["a"].append(2)
    assert text == '{"a":[1]}'


def test_field_and_error_class_are_the_callers():
    with pytest.raises(InvalidOutput, match=r"^output\[0\] is a set"):
        encode_json([set()], error=InvalidOutput, field="output")
    with pytest.raises(InvalidCheckpoint, match=r"^checkpoint is stored as"):
        decode_json("{", error=InvalidCheckpoint, field="checkpoint")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "nul", "NaN", "[Infinity]", "-Infinity", "1e131072", "[1e999]", "9" * 1_001, "9" * 5_000,
        "[" * 65 + "]" * 65, "[" * 3_000 + "]" * 3_000, "[" * 500_000, '{"a":' * 100_000, '"\\u0000"', '"\\ud800"',
        '{"\\u0000":1}', "\ufeff{}", "{'a': 1}", "[1,]", "01", "\0", '"\0"', "1 2", "\ud800", '"a\nb"', None, b"{}", 7,
    ],
)  # fmt: skip
def test_what_was_stored_past_the_gate_is_refused_when_read(text):
    with pytest.raises(InvalidPayload):
        decode(text)


def test_stored_text_may_be_longer_than_what_was_encoded_up_to_its_own_limit():
    written_by_postgresql = "[" + ", ".join(["1" + "0" * 300] * 2_000) + "]"
    assert len(written_by_postgresql) > JSON_LIMIT
    assert decode(written_by_postgresql) == [10**300] * 2_000
    with pytest.raises(InvalidPayload):
        decode('"' + "x" * DECODE_LIMIT + '"')


def test_the_text_is_what_the_standard_library_reads():
    value = {"a": [1, 2.5, None, True, "ü"], "b": {"c": ()}}
    assert json.loads(encode(value)) == plain(value)
