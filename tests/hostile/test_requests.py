"""Hostile requests, by name: each is refused with its code before anything is written, or comes back as it went in."""

import decimal
import enum
import fractions
import sys
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest

from runledger import JobRequest, RunledgerError, Scope, enqueue_job, get_job
from runledger.testing.factories import a_definition

TYPE = "hostile"
Connection = psycopg.Connection[Any]
PAYLOAD, REQUEST, IDENTIFIER = "job.invalid_payload", "job.invalid_request", "job.invalid_identifier"


class Word(str):
    """A text that lies about what it is."""

    def __str__(self) -> str:
        raise RuntimeError("must never be asked")

    __repr__ = __str__


class Number(enum.IntEnum):
    SEVEN = 7


class Color(enum.StrEnum):
    RED = "red"


class Liar(float):
    def __sub__(self, other: object) -> float:
        return 0.0


class Endless(dict[str, Any]):
    """A mapping whose items never end."""

    def items(self) -> Any:
        while True:
            yield "again", 1

    def __len__(self) -> int:
        return 1


class BrokenZone(timezone.__base__):  # type: ignore[misc]  # a zone as an application may write one
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise KeyError("no such zone")


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int, shell: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = shell(value)
    return value


def doubling() -> Any:
    value: Any = ["x"]
    for _ in range(40):
        value = [value, value]
    return value


REFUSED_PAYLOADS: dict[str, Any] = {
    "P01 NUL in a value": {"a": "b\0c"},
    "P01b NUL alone": "\0",
    "P02 NUL in a key": {"a\0": 1},
    "P03 lone high surrogate": {"a": "\ud800"},
    "P04 lone low surrogate": {"a": "\udc00"},
    "P05 swapped surrogates": {"a": "\udc00\ud800"},
    "P05b surrogate in a key": {"\udfff": 1},
    "P06 NaN": {"a": float("nan")},
    "P07 Infinity": {"a": float("inf")},
    "P08 minus Infinity": {"a": float("-inf")},
    "P09 a float that hides its infinity": {"a": Liar("inf")},
    "P10 1e131072": {"a": 10**131_072},
    "P11 4,301 digits": {"a": int("9" * 4_300) * 10},
    "P12 1,001 digits": {"a": 10**1_000},
    "P12b as many, negative": {"a": -(10**1_000)},
    "P17 depth 65": nested(65),
    "P18 depth 3,000": nested(3_000),
    "P19 depth 20,000": nested(20_000),
    "P19b depth 20,000 in objects": nested(20_000, lambda inner: {"a": inner}),
    "P21 one byte too large": "x" * 262_143,
    "P22 100 MB": "x" * 100_000_000,
    "P24 many small members": list(range(200_000)),
    "P24b wide characters count as bytes": "€" * 90_000,
    "P25 a key of a megabyte": {"k" * 1_048_576: 1},
    "P29 bytes": {"a": b"b"},
    "P30 a bytearray": {"a": bytearray(b"b")},
    "P30b a memoryview": {"a": memoryview(b"b")},
    "P31 a Decimal": {"a": decimal.Decimal("1.5")},
    "P31b a Fraction": {"a": fractions.Fraction(1, 3)},
    "P31c a complex number": {"a": 1j},
    "P32 a datetime": {"a": datetime(2027, 1, 1, tzinfo=UTC)},
    "P32b a date": {"a": date(2027, 1, 1)},
    "P32c a time": {"a": time(1, 2)},
    "P32d a timedelta": {"a": timedelta(1)},
    "P33 a UUID": {"a": UUID(int=1)},
    "P33b a path": {"a": Path("/etc/passwd")},
    "P35 integer keys": {1: "a"},
    "P35b a None key": {None: "a"},
    "P35c a bool key": {True: "a"},
    "P35d a tuple key": {("a", 1): "a"},
    "P36 a set": {"a": {1, 2}},
    "P36b a frozenset": {"a": frozenset({1})},
    "P36c a generator": {"a": (one for one in (1, 2))},
    "P36d a range": {"a": range(3)},
    "P36e an iterator": {"a": iter([1])},
    "P37 NaN deep inside": {"a": [{"b": [{"c": float("nan")}]}]},
    "P38 a list that holds itself": itself(),
    "P38b a value that doubles on every level": doubling(),
    "P39 an object": {"a": object()},
    "P39b a class": {"a": int},
    "P39c a function": {"a": len},
    "P39d a module": {"a": sys},
    "P39e Ellipsis": {"a": ...},
    "P39f an exception": {"a": ValueError("x")},
    "P39g a mapping that is no dict": UserDict({"a": 1}),
    "P39i a dict of another kind": OrderedDict(a=1),
    "P39h an object without end": {"a": Endless()},
}
ACCEPTED_PAYLOADS: dict[str, tuple[Any, Any]] = {
    "P13 minus zero": ({"a": -0.0}, {"a": 0.0}),
    "P15 the largest float": ({"a": sys.float_info.max}, {"a": 17976931348623157 * 10**292}),
    "P15b the smallest float": ({"a": 5e-324}, {"a": 5e-324}),
    "P15c 64 bits and one more": ({"a": 2**64}, {"a": 2**64}),
    "P15d 1,000 digits": ({"a": 10**1_000 - 1}, {"a": 10**1_000 - 1}),
    "P16 depth 64": (nested(63), nested(63)),
    "P20 exactly the limit": ("x" * 262_142, "x" * 262_142),
    "P26 a scalar": (7, 7),
    "P26b a text": ("text", "text"),
    "P26c false": (False, False),
    "P26d an empty list": ([], []),
    "P26e None means an empty object": (None, {}),
    "P28 an empty text": ("", ""),
    "P34 a tuple": ({"a": (1, 2)}, {"a": [1, 2]}),
    "P40 a text in disguise": ({"a": Word("b")}, {"a": "b"}),
    "P40b an IntEnum": ({"a": Number.SEVEN}, {"a": 7}),
    "P40c a StrEnum": ({"a": Color.RED}, {"a": "red"}),
    "P42 every plane of Unicode": ({"a": "é€😀\U0010ffff"}, {"a": "é€😀\U0010ffff"}),
    "P43 U+FFFF": ({"a": "\uffff"}, {"a": "\uffff"}),
    "P44 a byte order mark": ({"a": "\ufeffx"}, {"a": "\ufeffx"}),
    "P45 right-to-left override": ({"a": "\u202egpj.exe"}, {"a": "\u202egpj.exe"}),
    "P46 NFC and NFD keys are two": ({"\u00e9": 1, "e\u0301": 2}, {"\u00e9": 1, "e\u0301": 2}),
    "P47 __proto__": ({"__proto__": {"a": 1}}, {"__proto__": {"a": 1}}),
    "P47b __class__": ({"__class__": "os.system"}, {"__class__": "os.system"}),
    "P47c an empty key": ({"": 1}, {"": 1}),
    "P48 control characters": ({"a": "\x01\x1b[31m\x7f"}, {"a": "\x01\x1b[31m\x7f"}),
    "P49 SQL": ({"a": "'; DROP TABLE job_queue; --"}, {"a": "'; DROP TABLE job_queue; --"}),
    "P49b a placeholder": ({"a": "%(job_id)s %s $1 :name"}, {"a": "%(job_id)s %s $1 :name"}),
    "P49c backslashes and quotes": ({"a": "\\\"'\\x00"}, {"a": "\\\"'\\x00"}),
    "P49d array braces": ({"a": '{a,"b",NULL}'}, {"a": '{a,"b",NULL}'}),
    "P50 a script": ({"a": "<script>alert(1)</script>"}, {"a": "<script>alert(1)</script>"}),
    "P51 NaN as text": ({"a": "NaN"}, {"a": "NaN"}),
    "P52 line ends": ({"a": "b\r\nc\u2028d"}, {"a": "b\r\nc\u2028d"}),
    "P54 an escaped NUL as text": ({"a": "\\u0000"}, {"a": "\\u0000"}),
}
REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "I01 an empty key": ({"idempotency_key": ""}, IDENTIFIER),
    "I02 a blank key": ({"idempotency_key": "   "}, IDENTIFIER),
    "I03 a no-break space": ({"idempotency_key": "\u00a0"}, IDENTIFIER),
    "I04 zero width": ({"idempotency_key": "\u200b"}, IDENTIFIER),
    "I04b a Hangul filler": ({"idempotency_key": "\u3164"}, IDENTIFIER),
    "I05 a byte order mark": ({"idempotency_key": "\ufeff"}, IDENTIFIER),
    "I06 a blank in front": ({"idempotency_key": " key"}, IDENTIFIER),
    "I06b a blank behind": ({"idempotency_key": "key "}, IDENTIFIER),
    "I06c a line end": ({"idempotency_key": "key\n"}, IDENTIFIER),
    "I06d a tab": ({"idempotency_key": "a\tb"}, IDENTIFIER),
    "I08 513 bytes": ({"idempotency_key": "k" * 513}, IDENTIFIER),
    "I09 a key no index can hold": ({"idempotency_key": "k" * 10_000}, IDENTIFIER),
    "I09b a megabyte": ({"idempotency_key": "k" * 1_048_576}, IDENTIFIER),
    "I10 NUL": ({"idempotency_key": "a\0b"}, IDENTIFIER),
    "I11 a surrogate": ({"idempotency_key": "a\ud800"}, IDENTIFIER),
    "I11b bytes": ({"idempotency_key": b"key"}, IDENTIFIER),
    "I11c a number": ({"idempotency_key": 7}, IDENTIFIER),
    "I14 a right-to-left override": ({"idempotency_key": "a\u202eb"}, IDENTIFIER),
    "N01 priority 2^31": ({"priority": 2**31}, REQUEST),
    "N02 priority below": ({"priority": -(2**31) - 1}, REQUEST),
    "N03 a number as text": ({"priority": "1"}, REQUEST),
    "N04 1.5": ({"priority": 1.5}, REQUEST),
    "N05 True": ({"priority": True}, REQUEST),
    "N06 negative attempts": ({"max_attempts": -1}, REQUEST),
    "N06b no attempts": ({"max_attempts": 0}, REQUEST),
    "N07 attempts 2^31": ({"max_attempts": 2**31}, REQUEST),
    "N07b 1,001 attempts": ({"max_attempts": 1_001}, REQUEST),
    "N08 timeout 0": ({"timeout_seconds": 0}, REQUEST),
    "N09 timeout 10^9": ({"timeout_seconds": 10**9}, REQUEST),
    "N09b timeout NaN": ({"timeout_seconds": float("nan")}, REQUEST),
    "N09c timeout as timedelta": ({"timeout_seconds": timedelta(1)}, REQUEST),
    "T01 a naive time": ({"next_run_at": datetime(2027, 1, 1)}, REQUEST),  # noqa: DTZ001
    "T03 year 1": ({"next_run_at": datetime(1, 1, 1, tzinfo=UTC)}, REQUEST),
    "T03b year 1 in a zone behind": ({"next_run_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, REQUEST),
    "T04 year 9999 in a zone ahead": (
        {"next_run_at": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12)))},
        REQUEST,
    ),
    "T05 infinity": ({"next_run_at": "infinity"}, REQUEST),
    "T05b a time as text": ({"next_run_at": "2027-01-01T00:00:00Z"}, REQUEST),
    "T05c a date": ({"next_run_at": date(2027, 1, 1)}, REQUEST),
    "T05d a timestamp": ({"next_run_at": 1_800_000_000}, REQUEST),
    "T05e a zone that raises": ({"next_run_at": datetime(2027, 1, 1, tzinfo=BrokenZone())}, REQUEST),
    "T06 a negative delay": ({"delay": -1}, REQUEST),
    "T07 a delay of NaN": ({"delay": float("nan")}, REQUEST),
    "T07b an infinite delay": ({"delay": float("inf")}, REQUEST),
    "T08 timedelta.max": ({"delay": timedelta.max}, REQUEST),
    "T08b a delay as text": ({"delay": "5"}, REQUEST),
    "T10 a delay and a time": ({"delay": 1, "next_run_at": datetime(2027, 1, 1, tzinfo=UTC)}, REQUEST),
    "T11 a lifetime of zero": ({"idempotency_key": "k", "idempotency_ttl": timedelta(0)}, REQUEST),
    "T12 a lifetime in seconds": ({"idempotency_key": "k", "idempotency_ttl": 60}, REQUEST),
    "T13 a lifetime without a key": ({"idempotency_ttl": timedelta(1)}, REQUEST),
    "O01 an organization that is no UUID": ({"organization_id": "acme"}, REQUEST),
    "O02 a UUID in braces": ({"organization_id": "{00000000-0000-0000-0000-000000000001}"}, REQUEST),
    "O03 a UUID as a URN": ({"organization_id": "urn:uuid:00000000-0000-0000-0000-000000000001"}, REQUEST),
    "O04 a number": ({"organization_id": 1}, REQUEST),
    "O05 an empty text": ({"organization_id": ""}, REQUEST),
    "G01 tags as text": ({"tags": "a,b"}, REQUEST),
    "G02 17 tags": ({"tags": [str(number) for number in range(17)]}, REQUEST),
    "G03 a long tag": ({"tags": ["t" * 65]}, IDENTIFIER),
    "G04 an empty tag": ({"tags": [""]}, IDENTIFIER),
    "G05 a tag that is none": ({"tags": [None]}, IDENTIFIER),
    "G06 tags as an object": ({"tags": {"a": 1}}, REQUEST),
    "S01 a stage of the end": ({"stage": "completed"}, REQUEST),
    "S02 a stage of no kind": ({"stage": "soon"}, REQUEST),
    "E01 a naive expiry": ({"expires_at": datetime(2027, 1, 1)}, REQUEST),  # noqa: DTZ001
    "E02 an expiry as a number": ({"expires_at": 5}, REQUEST),
}
REFUSED_TYPES: dict[str, tuple[Any, str]] = {
    "I18 a type that nobody stored": ("nobody.knows", "job.definition_not_found_or_disabled"),
    "I19 a type in capitals": ("HOSTILE", "job.definition_not_found_or_disabled"),
    "I20 a homoglyph": ("h\u043estile", "job.definition_not_found_or_disabled"),
    "I21 SQL": ("hostile'; DROP TABLE job_queue; --", "job.definition_not_found_or_disabled"),
    "I22 a path": ("../../etc/passwd", "job.definition_not_found_or_disabled"),
    "I23 an import": ("os:system", "job.definition_not_found_or_disabled"),
    "I24 a pattern": ("host%", "job.definition_not_found_or_disabled"),
    "I25 an empty type": ("", IDENTIFIER),
    "I26 None": (None, IDENTIFIER),
    "I27 201 bytes": ("t" * 201, IDENTIFIER),
    "I28 NUL": ("host\0ile", IDENTIFIER),
    "I29 an escape sequence": ("\x1b[2J", IDENTIFIER),
    "I30 a class": (str, IDENTIFIER),
}
ACCEPTED_KEYS: dict[str, str] = {
    "I07 512 bytes": "k" * 512,
    "I12 a path": "../../etc/passwd",
    "I13 quotes and semicolons": "a'b\"c;--",
    "I15 capitals are another key": "KEY",
    "I15b small letters": "key",
    "I16 a homoglyph is another key": "k\u0435y",
    "I17 a placeholder": "%(id)s",
    "I17b a backslash": "a\\",
    "I17c an emoji": "😀",
    "I17d blanks inside": "a  b",
}


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as made:
        a_definition(made, TYPE)
        yield made


def count_jobs(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM runledger.job_queue").fetchone()
    assert row is not None
    return int(row[0])


def code_of(connection: Connection, request: JobRequest) -> str:
    """The code with which the request is refused, after which the connection works and nothing was written."""
    before = count_jobs(connection)
    with pytest.raises(RunledgerError) as caught:
        enqueue_job(connection, request)
    assert count_jobs(connection) == before
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    return str(caught.value.code)


@pytest.mark.parametrize("name", REFUSED_PAYLOADS)
def test_a_payload_that_is_no_json_of_ours_is_refused(connection: Connection, name: str) -> None:
    assert code_of(connection, JobRequest(TYPE, REFUSED_PAYLOADS[name])) == PAYLOAD


@pytest.mark.parametrize("name", ACCEPTED_PAYLOADS)
def test_a_strange_payload_comes_back_as_it_went_in(connection: Connection, name: str) -> None:
    given, stored = ACCEPTED_PAYLOADS[name]

    job_id = enqueue_job(connection, JobRequest(TYPE, given)).job_id

    assert get_job(connection, job_id, scope=Scope.any()).payload == stored


@pytest.mark.parametrize("name", REFUSED_OPTIONS)
def test_an_option_outside_its_limits_is_refused(connection: Connection, name: str) -> None:
    options, code = REFUSED_OPTIONS[name]

    assert code_of(connection, JobRequest(TYPE, {}, **options)) == code


@pytest.mark.parametrize("name", REFUSED_TYPES)
def test_a_type_that_nobody_registered_is_refused(connection: Connection, name: str) -> None:
    job_type, code = REFUSED_TYPES[name]

    assert code_of(connection, JobRequest(job_type, {})) == code


def test_strange_keys_are_keys_and_each_is_its_own(connection: Connection) -> None:
    ids = {
        name: enqueue_job(connection, JobRequest(TYPE, {}, idempotency_key=key)).job_id
        for name, key in ACCEPTED_KEYS.items()
    }

    assert len(set(ids.values())) == len(ACCEPTED_KEYS)
    again = {
        name: enqueue_job(connection, JobRequest(TYPE, {}, idempotency_key=key)).job_id
        for name, key in ACCEPTED_KEYS.items()
    }
    assert again == ids


def test_what_the_caller_changes_afterwards_changes_nothing(connection: Connection) -> None:
    """P41"""
    payload: dict[str, Any] = {"items": [1]}
    job_id = enqueue_job(connection, JobRequest(TYPE, payload)).job_id

    payload["items"].append(2)

    assert get_job(connection, job_id, scope=Scope.any()).payload == {"items": [1]}


def test_one_and_one_point_zero_are_the_same_request(connection: Connection) -> None:
    """P14, and K02: the order of keys means nothing."""
    first = enqueue_job(connection, JobRequest(TYPE, {"a": 1, "b": 2}, idempotency_key="P14"))

    assert enqueue_job(connection, JobRequest(TYPE, {"b": 2.0, "a": 1.0}, idempotency_key="P14")).job_id == first.job_id
    assert code_of(connection, JobRequest(TYPE, {"a": 2}, idempotency_key="P14")) == "job.idempotency_conflict"


def test_a_key_that_was_rolled_back_is_free(connection: Connection) -> None:
    """K04"""
    with connection.transaction(force_rollback=True):
        enqueue_job(connection, JobRequest(TYPE, {"a": 1}, idempotency_key="K04"))

    assert enqueue_job(connection, JobRequest(TYPE, {"a": 2}, idempotency_key="K04")).is_new


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_key_under_a_snapshot_is_refused(connection: Connection, level: str) -> None:
    """K05: such a transaction could not see who was faster."""
    before = count_jobs(connection)
    with pytest.raises(RunledgerError) as caught, connection.transaction():
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        enqueue_job(connection, JobRequest(TYPE, {}, idempotency_key="K05"))

    assert caught.value.code == "job.enqueue_idempotency_unsupported_isolation"
    assert count_jobs(connection) == before


def test_the_second_pass_through_an_hour_is_another_moment(connection: Connection) -> None:
    """T02"""
    first = datetime(2027, 10, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    for moment, utc in ((first, 0), (first.replace(fold=1), 1)):
        job_id = enqueue_job(connection, JobRequest(TYPE, {}, next_run_at=moment)).job_id
        assert get_job(connection, job_id, scope=Scope.any()).next_run_at == datetime(2027, 10, 31, utc, 30, tzinfo=UTC)
