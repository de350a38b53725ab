"""Headers: what travels with a job beside its payload, for middleware on both sides; a trace context, say.

Handlers do not act on them and an idempotency key does not cover them: each retry of an enqueue may carry others, and
the job keeps the first.
"""

from collections.abc import Mapping
from typing import Final

from runledger.core.errors import InvalidRequest
from runledger.core.gate import TAG_LIMIT, check_identifier, decode_json, encode_json

MAX_HEADERS: Final = 32
HEADERS_LIMIT: Final = 8_192
SCHEDULE_HEADER: Final = "schedule"
"""Names, in a job that a schedule fired, that schedule."""

Headers = Mapping[str, str]


def encode_headers(headers: object) -> str | None:
    """JSON text of an object of at most 32 texts and 8 KiB, or None without any. Raises InvalidRequest."""
    if headers is None:
        return None
    if not isinstance(headers, Mapping):
        raise InvalidRequest("headers must be a mapping of text to text")
    if len(headers) > MAX_HEADERS:
        raise InvalidRequest(f"headers must be at most {MAX_HEADERS}")
    checked = {}
    for name, value in headers.items():
        known_as = check_identifier(name, field="the name of a header", limit_bytes=TAG_LIMIT, error=InvalidRequest)
        if not isinstance(value, str):
            raise InvalidRequest(f"headers.{known_as} must be text")
        checked[known_as] = value
    return encode_json(checked, error=InvalidRequest, limit_bytes=HEADERS_LIMIT, field="headers") if checked else None


def decode_headers(text: str | None) -> Headers:
    """What ``encode_headers`` made; empty for None. Raises InvalidRequest when somebody stored anything else."""
    if text is None:
        return {}
    headers = decode_json(text, error=InvalidRequest, field="headers")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise InvalidRequest("the stored headers are not an object of texts")
    return headers
