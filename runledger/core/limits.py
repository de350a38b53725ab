"""The bounds of the numbers and times a caller may give, and the checks that name the field which breaks one.

A bool is no number here, and a number in quotes is text: what is wrong is refused, never guessed.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from runledger.core.errors import InvalidRequest, ValidationError

MIN_INT32: Final = -(2**31)
MAX_INT32: Final = 2**31 - 1
MAX_INT64: Final = 2**63 - 1
MAX_ATTEMPTS: Final = 1_000
MAX_TIMEOUT_SECONDS: Final = 7 * 86_400
MAX_DELAY_SECONDS: Final = 3_650 * 86_400
MAX_RETRY_SECONDS: Final = 30 * 86_400
MAX_CRASH_BUDGET: Final = 100
MAX_TAGS: Final = 16
FIRST_YEAR: Final = 1970


def check_integer(
    value: object, *, field: str, low: int, high: int, error: type[ValidationError] = InvalidRequest
) -> int:
    """The plain integer, between ``low`` and ``high`` inclusive. Raises ``error`` otherwise, also for a bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(f"{field} must be an integer")
    number = int.__int__(value)
    if not low <= number <= high:
        raise error(f"{field} must be between {low:,} and {high:,}")
    return number


def check_number(
    value: object, *, field: str, low: float, high: float, error: type[ValidationError] = InvalidRequest
) -> float:
    """The finite float, between ``low`` and ``high`` inclusive. Raises ``error`` otherwise, also for a bool or NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise error(f"{field} must be a number")
    if not low <= value <= high:
        raise error(f"{field} must be between {low:,} and {high:,}")
    return float(value)


def check_seconds(
    value: object,
    *,
    field: str,
    high: float = MAX_DELAY_SECONDS,
    error: type[ValidationError] = InvalidRequest,
) -> float:
    """The seconds of a timedelta or a number, from zero to ``high``. Raises ``error`` otherwise."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return check_number(seconds, field=field, low=0, high=high, error=error)


def check_time(value: object, *, field: str, error: type[ValidationError] = InvalidRequest) -> datetime:
    """The moment in UTC, of the years 1970 to 9999. Raises ``error`` for a naive datetime and anything else."""
    if not isinstance(value, datetime):
        raise error(f"{field} must be a datetime")
    try:
        offset = value.utcoffset()
        moment = value.astimezone(UTC) if offset is not None else None
    except (ArithmeticError, ValueError, TypeError, LookupError, NotImplementedError):  # a zone of the caller's
        raise error(f"{field} cannot be converted to UTC") from None
    if moment is None:
        raise error(f"{field} must carry a time zone")
    if moment.year < FIRST_YEAR:
        raise error(f"{field} must lie in the years {FIRST_YEAR} to 9999")
    return moment
