"""Cron expressions and time zones: the only module that knows croniter, behind one function, ``next_fire_at``.

An expression is read here, field by field, and croniter is handed nothing but lists of numbers: its own readings of
``9-9``, ``R``, ``?``, ``*/90`` or ``59/15`` never come into play, and a later croniter cannot change what is stored.

Fields are minute, hour, day of month, month, day of week; with six, the second stands first. Where both days are
restricted, either one is enough, as in every cron.
"""

import re
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from runledger.core.errors import InvalidCron, InvalidTimezone
from runledger.core.limits import check_time

if TYPE_CHECKING:
    from croniter import croniter

EXPRESSION_LIMIT: Final = 128
LONGEST_GAP_YEARS: Final = 9
"""From 29 February 2096 to the next one are eight years; what does not fire within nine never does."""

_REFERENCE: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_ZONE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,3}", re.ASCII)
_NOT_ZONES: Final = frozenset({"localtime", "posixrules", "factory", "posix", "right"})
"""Names that a system answers to beside the zones: what it is set to itself, and clocks with leap seconds."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SECONDS: Final = _Field("second", 0, 59)
_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)
_WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def check_cron(expression: object) -> str:
    """The expression itself, which fires again and again. Raises InvalidCron, which names the field and what is wrong
    with it."""
    if not isinstance(expression, str):
        raise InvalidCron("cron must be text")
    text = str.__str__(expression)
    _numbers_of(text)
    return text


def check_timezone(name: object) -> str:
    """The name of a zone that this machine knows. Raises InvalidTimezone."""
    if not isinstance(name, str):
        raise InvalidTimezone("timezone must be text, for example 'Europe/Berlin'")
    text = str.__str__(name)
    _zone(text)
    return text


def next_fire_at(expression: str, timezone: str, after: datetime) -> datetime:
    """The first moment later than ``after`` at which the expression fires, in UTC.

    The expression speaks of wall clocks in ``timezone``. A wall-clock time that does not exist (clocks go forward)
    fires once, at the first moment after the gap; one that exists twice (clocks go back) fires once, at the first. So
    the answers grow strictly, and a daily schedule fires daily; one that has to run evenly belongs in UTC.

    Raises InvalidCron, InvalidTimezone, or InvalidRequest for a naive ``after``.
    """
    zone = _zone(timezone)
    moment = check_time(after, field="after")
    try:
        return next(moment for moment in _moments(_numbers_of(expression), zone, moment))
    except (OverflowError, StopIteration):
        raise InvalidCron("cron does not fire before the year 9999") from None


def _moments(numbers: str, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    for wall in _walls(numbers, _last_wall(zone, after)):
        moment = _moment_of(zone, wall)
        if moment > after:
            yield moment


def _walls(numbers: str, after: datetime) -> Iterator[datetime]:
    """The wall-clock times later than ``after`` that the lists of numbers name, as if the zone had no changes."""
    source = copy(_source(numbers))
    source.set_current(after.replace(tzinfo=UTC))
    while True:
        try:
            found = source.get_next(datetime)
        except (ValueError, OverflowError):  # nothing in nine years, or beyond the last year there is
            return
        yield found.replace(tzinfo=None)


@lru_cache(maxsize=1_024)
def _source(numbers: str) -> "croniter":
    """A croniter to copy: making one takes twice as long as asking it."""
    from croniter import croniter  # an application that schedules nothing does without

    return croniter(
        numbers,
        _REFERENCE,
        max_years_between_matches=LONGEST_GAP_YEARS,
        second_at_beginning=numbers.count(" ") == len(_FIELDS),
    )


def _last_wall(zone: tzinfo, moment: datetime) -> datetime:
    """The latest time that a wall clock has shown up to ``moment``: in the second pass through an hour, its end."""
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    before, behind = _offset(zone, wall, 0), _offset(zone, wall, 1)
    if not local.fold or before <= behind:
        return wall
    return _change(zone, moment - (before - behind), moment) + before - _SECOND


def _moment_of(zone: tzinfo, wall: datetime) -> datetime:
    """When the wall clock shows this time for the first time; when it never does, the first moment after the gap."""
    before, behind = _offset(zone, wall, 0), _offset(zone, wall, 1)
    if before < behind:
        change = _change(zone, (wall - behind).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC))
        return change.replace(tzinfo=UTC)
    return (wall - before).replace(tzinfo=UTC)


def _offset(zone: tzinfo, wall: datetime, fold: int) -> timedelta:
    return wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _change(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The first second in UTC, without a zone, at which the clocks differ from those at ``low``; at ``high`` they
    do."""
    known = low.astimezone(zone).utcoffset()
    first, last = 0, int((high - low).total_seconds())
    while last - first > 1:
        middle = (first + last) // 2
        if (low + middle * _SECOND).astimezone(zone).utcoffset() == known:
            first = middle
        else:
            last = middle
    return (low + last * _SECOND).replace(tzinfo=None)


@lru_cache(maxsize=512)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if _ZONE_NAME.fullmatch(name) and name.partition("/")[0].lower() not in _NOT_ZONES:
        try:
            return ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            pass
    raise InvalidTimezone(
        "timezone is not the name of an IANA time zone that is known here",
        hint="for example Europe/Berlin; a machine without zone files needs the package tzdata",
    )


@lru_cache(maxsize=1_024)
def _numbers_of(expression: str) -> str:
    """The fields as ``*`` or lists of numbers, single blanks between them. Raises InvalidCron."""
    fields = _fields_of(expression)
    numbers = " ".join(_list_of(text, field) for text, field in fields)
    walls = _walls(numbers, _REFERENCE)
    if [None for _ in zip(range(2), walls, strict=False)] != [None, None]:
        raise InvalidCron("cron names a date that never comes, or comes only once")
    return numbers


def _fields_of(expression: str) -> list[tuple[str, _Field]]:
    if len(expression) > EXPRESSION_LIMIT:
        raise InvalidCron(f"cron is longer than {EXPRESSION_LIMIT} characters")
    if not expression.isascii() or not expression.replace("\t", " ").isprintable():
        raise InvalidCron("cron contains a character other than printable ASCII and tabs")
    if not expression or expression != expression.strip():
        raise InvalidCron("cron is empty, or begins or ends with a blank")
    text = expression.lower()
    if text.startswith("@") and text not in _WORDS:
        raise InvalidCron(f"cron knows only the words {', '.join(_WORDS)}")
    texts = _WORDS.get(text, text).split()
    if len(texts) not in (len(_FIELDS), len(_FIELDS) + 1):
        raise InvalidCron(f"cron has {len(texts)} fields; it takes 5, or 6 with the seconds first")
    fields = _FIELDS if len(texts) == len(_FIELDS) else (_SECONDS, *_FIELDS)
    return list(zip(texts, fields, strict=True))


def _list_of(text: str, field: _Field) -> str:
    if text in ("*", "*/1"):
        return "*"
    values = {value % 7 if field.words == _DAYS else value for item in text.split(",") for value in _range(item, field)}
    return ",".join(map(str, sorted(values)))


def _range(item: str, field: _Field) -> range:
    """What one item of a list stands for: ``*``, ``N``, ``N-M``, and ``*/S`` or ``N-M/S``."""
    span, slash, step_text = item.partition("/")
    if span == "*":
        low, high = field.low, 6 if field.words == _DAYS else field.high
    else:
        first, dash, last = span.partition("-")
        low = high = _value(first, field)
        if dash:
            high = _value(last, field)
            if low >= high:
                raise InvalidCron(f"the {field.name} of cron has a range that does not go up; use a list")
    if not slash:
        return range(low, high + 1)
    if low == high:
        raise InvalidCron(f"the {field.name} of cron has a step behind a number; a step stands behind * or a range")
    step = _number(step_text, field)
    if not 0 < step <= high - low:
        raise InvalidCron(f"the {field.name} of cron has a step outside its range, which has {high - low + 1} values")
    return range(low, high + 1, step)


def _value(text: str, field: _Field) -> int:
    if text in field.words:
        return field.words.index(text) + field.low
    value = _number(text, field)
    if not field.low <= value <= field.high:
        raise InvalidCron(f"the {field.name} of cron must be from {field.low} to {field.high}")
    return value


def _number(text: str, field: _Field) -> int:
    if not (text.isdigit() and len(text) <= 3):
        raise InvalidCron(f"the {field.name} of cron takes numbers, names, lists, ranges and steps only")
    return int(text)
