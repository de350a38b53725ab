"""The snapshot of a keyed request, and how two of them differ, as PostgreSQL's ``jsonb`` compares them.

A snapshot says what the caller asked for, not what came of it: an omitted option is null, even where the definition's
default equals what another caller wrote out.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from runledger.core.errors import FieldDifference
from runledger.core.jobs import JsonValue
from runledger.core.states import JobStage

SIDE_LIMIT: Final = 200
ABSENT: Final = "(absent)"
_PLAIN_EXPONENTS: Final = 20


def request_snapshot(
    payload: str,
    *,
    priority: int | None,
    max_attempts: int | None,
    timeout_seconds: int | None,
    next_run_at: datetime | None,
    stage: JobStage,
    delay_seconds: float | None,
    expires_at: datetime | None,
    tags: Sequence[str] | None,
) -> str:
    """JSON object text. The first six fields are always there, null where omitted; the last three only when set.

    ``payload`` is JSON text already. Times are RFC 3339 in UTC with exactly six fractional digits and ``Z``.
    """
    return "".join(
        (
            f'{{"payload":{payload},"priority":{_number(priority)},"max_attempts":{_number(max_attempts)},',
            f'"timeout_seconds":{_number(timeout_seconds)},"next_run_at":{_time(next_run_at)},"stage":"{stage.value}"',
            "" if delay_seconds is None else f',"delay_seconds":{delay_seconds!r}',
            "" if expires_at is None else f',"expires_at":{_time(expires_at)}',
            "" if tags is None else f',"tags":{json.dumps(list(tags), ensure_ascii=False)}',
            "}",
        )
    )


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _time(moment: datetime | None) -> str:
    """``"2030-01-02T03:04:05.000000Z"``; the moment is in UTC."""
    return "null" if moment is None else f'"{moment.replace(tzinfo=None).isoformat(timespec="microseconds")}Z"'


def differences(stored: str, requested: str) -> tuple[FieldDifference, ...]:
    """The fields in which two snapshots differ, in the order of their names; empty exactly when ``jsonb`` calls them
    equal: 1 is 1.0, the order of keys is nothing. Each side is canonical JSON text, cut to 200 characters.

    Never fails: a snapshot that is no readable object differs as a whole, in the field ``request``.
    """
    if stored == requested:
        return ()
    try:
        ours, theirs = _fields(stored), _fields(requested)
    except (ValueError, TypeError, RecursionError, InvalidOperation):
        return (FieldDifference("request", _cut(stored), _cut(requested)),)
    return tuple(
        FieldDifference(name, _cut(ours.get(name, ABSENT)), _cut(theirs.get(name, ABSENT)))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )


def _fields(snapshot: str) -> dict[str, str]:
    """Canonical text by field. Raises TypeError when the snapshot is not an object."""
    value = json.loads(snapshot, parse_int=Decimal, parse_float=Decimal, parse_constant=Decimal)
    if not isinstance(value, dict):
        raise TypeError("a snapshot is an object")
    return {name: _canonical(item) for name, item in value.items()}


def _canonical(value: JsonValue) -> str:
    """One text for all that ``jsonb`` calls equal."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, Decimal):
        return _canonical_number(value)
    return json.dumps(value, ensure_ascii=False)


def _canonical_number(number: Decimal) -> str:
    """Without trailing zeros and the sign of zero, and without the rounding of a decimal context."""
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise TypeError("not a finite number")
    kept = len(digits)
    while kept and digits[kept - 1] == 0:
        kept -= 1
    if not kept:
        return "0"
    exponent += len(digits) - kept
    reduced = Decimal((sign, digits[:kept], exponent))
    return f"{reduced:f}" if abs(exponent) <= _PLAIN_EXPONENTS else str(reduced)


def _cut(text: str) -> str:
    return text if len(text) <= SIDE_LIMIT else text[: SIDE_LIMIT - 1] + "…"
