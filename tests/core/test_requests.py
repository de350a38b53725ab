"""A request is checked as a whole before any SQL."""

import json
import math
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import InvalidIdentifier, InvalidPayload, InvalidRequest
from runledger.core.requests import EncodedRequest, JobRequest, encode_request
from runledger.core.states import JobStage

ORGANIZATION = "0192f5aa-0000-7000-8000-000000000001"


NAIVE = datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Urgency(IntEnum):
    HIGH = 10


class BrokenZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise KeyError("no such zone")


@dataclass
class Receipt:
    order: int
    customer: UUID


def encode(**options: Any) -> EncodedRequest:
    return encode_request(JobRequest("mail.receipt", **options))


def test_an_omitted_option_stays_open_for_the_definition():
    assert encode() == EncodedRequest("mail.receipt", "{}", *([None] * 13))


def test_every_option_becomes_plain():
    encoded = encode(
        payload={"order": 7},
        organization_id=UUID(ORGANIZATION),
        priority=Urgency.HIGH,
        max_attempts=5,
        timeout_seconds=30,
        delay=timedelta(minutes=1),
        idempotency_key="order-7",
        idempotency_ttl=timedelta(days=1),
        stage=JobStage.SCHEDULED,
        expires_at=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        tags=["b", "a", "b"],
    )
    assert encoded == EncodedRequest(
        job_type="mail.receipt",
        payload='{"order":7}',
        organization_id=ORGANIZATION,
        priority=10,
        max_attempts=5,
        timeout_seconds=30,
        next_run_at=None,
        delay_seconds=60.0,
        idempotency_key="order-7",
        idempotency_ttl_seconds=86_400.0,
        active_key=None,
        snapshot=encoded.snapshot,
        expires_at=datetime(2030, 1, 2, 1, 4, 5, tzinfo=UTC),
        tags=["a", "b"],
        headers=None,
    )
    assert type(encoded.priority) is int


def test_a_request_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        JobRequest("mail.receipt").priority = 1  # type: ignore[misc]


def test_options_are_named():
    with pytest.raises(TypeError):
        JobRequest("mail.receipt", {}, ORGANIZATION)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("priority", [2**31, -(2**31) - 1, "3", 1.5, True, 10**30, [], math.nan]),
        ("max_attempts", [0, -1, 1_001, 2**31, "3", 1.5, True]),
        ("timeout_seconds", [0, -1, 604_801, 10**9, 10**30, "30", 1.5, False]),
        ("delay", [-1, -0.001, math.nan, math.inf, "5", True, timedelta.max, timedelta(-1),
                   timedelta(days=3651), 10**400]),
        ("next_run_at", ["infinity", "2030-01-01", 0, NAIVE, datetime(1, 1, 1, tzinfo=UTC),
                         datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
                         datetime(1969, 12, 31, tzinfo=UTC),
                         datetime(2030, 1, 1, tzinfo=BrokenZone()), NAIVE.date()]),
        ("expires_at", [NAIVE, "never", datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]),
        ("organization_id", ["", "acme", 7, ORGANIZATION + "0", ORGANIZATION.replace("1", "\uff11"),
                             f"{{{ORGANIZATION}}}",
                             ORGANIZATION.replace("-0000", "_0000"), "\0", b"0" * 16, object()]),
        ("stage", [JobStage.RUNNING, JobStage.COMPLETED, "soon", 1]),
        ("tags", ["urgent", b"ab", 7, {"a": 1}.items, ["t"] * 17, object()]),
    ],
)  # fmt: skip
def test_a_value_outside_its_limits_is_refused_by_name(option, values):
    for value in values:
        with pytest.raises(InvalidRequest, match=f"^{option} "):
            encode(**{option: value})


@pytest.mark.parametrize("option", ["job_type", "idempotency_key"])
@pytest.mark.parametrize("value", ["", " ", "\u00a0", "\u200b", " a", "a ", "a\0", "x" * 2_705, 7])
def test_a_bad_identifier_is_refused_by_name(option, value):
    request = JobRequest(**{"job_type": "mail.receipt", option: value})
    with pytest.raises(InvalidIdentifier, match=f"^{option} "):
        encode_request(request)


def test_a_bad_tag_is_refused():
    for tags in ([""], ["x" * 65], [7], ["a", None]):
        with pytest.raises(InvalidIdentifier, match=r"^tags "):
            encode(tags=tags)


def test_the_limits_themselves_are_accepted():
    encode(priority=2**31 - 1, max_attempts=1_000, timeout_seconds=604_800, delay=timedelta(days=3650))
    encode(priority=-(2**31), max_attempts=1, timeout_seconds=1, delay=0, idempotency_key="k" * 512)
    encode(next_run_at=datetime(1970, 1, 1, tzinfo=UTC), tags=[f"t{number}" * 10 for number in range(16)])
    encode(next_run_at=datetime.max.replace(tzinfo=UTC))


def test_times_become_utc_and_the_second_half_of_an_overlap_is_known():
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert encode(next_run_at=first).next_run_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert encode(next_run_at=second).next_run_at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_a_time_in_the_past_is_accepted():
    assert encode(next_run_at=datetime(2001, 1, 1, tzinfo=UTC)).next_run_at == datetime(2001, 1, 1, tzinfo=UTC)


def test_a_time_and_a_delay_exclude_each_other():
    with pytest.raises(InvalidRequest, match="exclude each other"):
        encode(next_run_at=datetime(2030, 1, 1, tzinfo=UTC), delay=1)


def test_a_lifetime_needs_a_key_and_is_above_zero():
    with pytest.raises(InvalidRequest, match="needs an idempotency_key"):
        encode(idempotency_ttl=timedelta(days=1))
    for lifetime in (timedelta(), timedelta(-1), timedelta.max, 60, True):
        with pytest.raises(InvalidRequest, match=r"^idempotency_ttl "):
            encode(idempotency_key="k", idempotency_ttl=lifetime)


def test_an_organization_is_written_in_one_way():
    for spelling in (ORGANIZATION, ORGANIZATION.upper(), ORGANIZATION.replace("-", ""), UUID(ORGANIZATION)):
        assert encode(organization_id=spelling).organization_id == ORGANIZATION


def test_a_typed_payload_is_encoded_by_its_annotations():
    customer = UUID(ORGANIZATION)
    assert encode(payload=Receipt(7, customer)).payload == f'{{"order":7,"customer":"{ORGANIZATION}"}}'
    with pytest.raises(InvalidPayload, match=r"payload\.order must be int"):
        encode(payload=Receipt("7", customer))  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [b"x", object(), {1: 2}, [math.nan], "\0", Receipt, {"r": Receipt(1, UUID(int=0))}])
def test_a_payload_that_is_no_json_is_refused(payload):
    with pytest.raises(InvalidPayload):
        encode(payload=payload)


@pytest.mark.parametrize("payload", [0, "", [], False, "text", 1.5])
def test_any_json_value_is_a_payload_and_only_none_means_an_empty_object(payload):
    assert json.loads(encode(payload=payload).payload) == payload
    assert encode(payload=None).payload == "{}"


def test_a_snapshot_is_made_for_a_key_only_and_omissions_are_null():
    assert encode(payload={"order": 7}).snapshot is None
    assert encode(payload={"order": 7}, idempotency_key="k").snapshot == (
        '{"payload":{"order":7},"priority":null,"max_attempts":null,"timeout_seconds":null,'
        '"next_run_at":null,"stage":"queued"}'
    )


def test_a_snapshot_holds_what_was_asked_for():
    encoded = encode(
        payload={},
        priority=0,
        max_attempts=3,
        timeout_seconds=300,
        next_run_at=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))),
        stage=JobStage.SCHEDULED,
        idempotency_key="k",
        idempotency_ttl=timedelta(days=1),
        expires_at=datetime(2031, 1, 1, microsecond=42, tzinfo=UTC),
        tags=("b", 'a"'),
    )
    assert json.loads(encoded.snapshot) == {
        "payload": {},
        "priority": 0,
        "max_attempts": 3,
        "timeout_seconds": 300,
        "next_run_at": "2030-01-02T02:04:05.000000Z",
        "stage": "scheduled",
        "expires_at": "2031-01-01T00:00:00.000042Z",
        "tags": ['a"', "b"],
    }
    assert json.loads(encode(delay=1.5, idempotency_key="k").snapshot)["delay_seconds"] == 1.5


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=10),
    st.binary(max_size=5),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(object),
)


@given(st.fixed_dictionaries({}, optional={name: ANYTHING for name in JobRequest.__slots__ if name != "job_type"}))
def test_whatever_the_options_are_the_request_is_encoded_or_refused(options):
    try:
        encoded = encode(**options)
    except (InvalidRequest, InvalidIdentifier, InvalidPayload):
        return
    assert (encoded.snapshot is None) == (encoded.idempotency_key is None)
