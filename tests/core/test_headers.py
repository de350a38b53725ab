"""Headers: what is taken, what is refused, and what a worker reads."""

from typing import Any

import pytest

from runledger import InvalidRequest, JobRequest
from runledger.core.headers import HEADERS_LIMIT, MAX_HEADERS, decode_headers, encode_headers
from runledger.core.requests import encode_request


def test_headers_are_stored_as_json_and_read_back() -> None:
    encoded = encode_request(JobRequest("mail.send", headers={"traceparent": "00-1-2-01"}))
    assert encoded.headers == '{"traceparent":"00-1-2-01"}'
    assert decode_headers(encoded.headers) == {"traceparent": "00-1-2-01"}


def test_no_headers_are_none() -> None:
    assert encode_headers({}) is None
    assert decode_headers(None) == {}


@pytest.mark.parametrize(
    "headers",
    [
        ["a"],
        {"a": 1},
        {1: "a"},
        {"": "a"},
        {"a" * 65: "a"},
        {"a": "\0"},
        {str(n): "" for n in range(MAX_HEADERS + 1)},
        {"a": "x" * HEADERS_LIMIT},
    ],
)
def test_other_headers_are_refused(headers: Any) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        encode_request(JobRequest("mail.send", headers=headers))


def test_an_idempotency_key_does_not_cover_headers() -> None:
    one, other = (encode_request(JobRequest("mail.send", idempotency_key="k", headers={"t": t})) for t in "12")
    assert one.snapshot == other.snapshot


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "nonsense"])
def test_what_somebody_stored_past_the_gate_is_refused_when_read(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_headers(text)
