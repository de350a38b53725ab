"""When a cron expression fires, against a scan of every minute; and what is refused as an expression or a zone.

RL_CRON_EXAMPLES sets how many random expressions are tried (200), RL_CRON_CHANGES how many clock changes of each zone
(12 of those from 2000 to 2040; 0 means all).
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runledger.core.cron import check_cron, check_timezone, next_fire_at
from runledger.core.errors import InvalidCron, InvalidRequest, InvalidTimezone

EXAMPLES = int(os.environ.get("RL_CRON_EXAMPLES", "200"))
CHANGES = int(os.environ.get("RL_CRON_CHANGES", "12"))
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Tehran",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Europe/Dublin",
)
MINUTE = timedelta(minutes=1)
LOWS, HIGHS = (0, 0, 1, 1, 0), (59, 23, 31, 12, 7)


def values_of(text: str, position: int) -> set[int]:
    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        low, _, high = span.partition("-") if span != "*" else (str(LOWS[position]), "-", str(HIGHS[position]))
        found |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return {value % 7 for value in found} if position == 4 else found


@cache
def fields_of(expression: str) -> list[set[int]]:
    return [values_of(text, position) for position, text in enumerate(expression.split())]


def matches(expression: str, wall: datetime) -> bool:
    minutes, hours, days, months, weekdays = fields_of(expression)
    is_day, is_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
    is_any_day, is_any_weekday = (text in ("*", "*/1") for text in (expression.split()[2], expression.split()[4]))
    right_day = (is_day or is_weekday) if not (is_any_day or is_any_weekday) else (is_day and is_weekday)
    return wall.minute in minutes and wall.hour in hours and wall.month in months and right_day


def firings(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Every firing later than ``start`` and not later than ``end``, found by watching a wall clock minute by minute.

    What the clock skips fires when it next shows something; what it shows a second time does not fire again.
    """
    fired: list[datetime] = []
    moment, shown = start, None
    while moment <= end:
        wall = moment.astimezone(zone).replace(tzinfo=None)
        passed = [wall] if shown is None or wall - shown == MINUTE else list(minutes_between(shown, wall))
        if moment > start and any(matches(expression, one) for one in passed):
            fired.append(moment)
        shown = wall if shown is None or wall > shown else shown
        moment += MINUTE
    return fired


def minutes_between(shown: datetime, wall: datetime) -> Iterator[datetime]:
    while shown < wall:
        shown += MINUTE
        yield shown


def answers(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    found = []
    while (start := next_fire_at(expression, zone, start)) <= end:
        found.append(start)
    return found


@st.composite
def fields(draw: st.DrawFn, position: int) -> str:
    low, high = LOWS[position], HIGHS[position]
    kind = draw(st.sampled_from(("*", "*", "number", "list", "range", "step", "range step")))
    if kind == "*":
        return "*"
    if kind == "number":
        return str(draw(st.integers(low, high)))
    if kind == "list":
        return ",".join(map(str, draw(st.lists(st.integers(low, high), min_size=2, max_size=4))))
    top = high - 1 if position == 4 and kind == "step" else high
    first = low if kind == "step" else draw(st.integers(low, high - 1))
    last = top if kind == "step" else draw(st.integers(first + 1, high))
    if kind == "range":
        return f"{first}-{last}"
    step = draw(st.integers(1, last - first))
    return f"*/{step}" if kind == "step" else f"{first}-{last}/{step}"


EXPRESSIONS = st.tuples(*(fields(position) for position in range(5))).map(" ".join)
MOMENTS = st.integers(0, 115 * 365 * 86_400).map(lambda seconds: datetime.fromtimestamp(157_766_400 + seconds, UTC))


@settings(max_examples=EXAMPLES, deadline=None)
@given(EXPRESSIONS, MOMENTS)
def test_the_next_firing_is_the_one_that_a_scan_finds(expression: str, after: datetime) -> None:
    try:
        found = next_fire_at(expression, "UTC", after)
    except InvalidCron:
        assert fields_of(expression)[2] <= {30, 31} or fields_of(expression)[3] <= {2}
        return
    assert found > after
    assert matches(expression, found.replace(tzinfo=None))
    assert (found.second, found.microsecond) == (0, 0)
    assert not any(matches(expression, one) for one in skipped(expression, after, found))


def skipped(expression: str, after: datetime, found: datetime) -> Iterator[datetime]:
    """The minutes between; whole days that cannot match are passed over, so that years are scanned quickly."""
    wall = after.replace(tzinfo=None, second=0, microsecond=0) + MINUTE
    end = found.replace(tzinfo=None)
    minutes, hours, *_ = fields_of(expression)
    sample = (min(hours), min(minutes))
    while wall < end:
        day_end = min(end, (wall + timedelta(days=1)).replace(hour=0, minute=0))
        if matches(expression, wall.replace(hour=sample[0], minute=sample[1])):
            while wall < day_end:
                yield wall
                wall += MINUTE
        wall = day_end


@cache
def changes_of(name: str) -> list[datetime]:
    """The moments from 2000 to 2040 at which the clocks of the zone jump, to the minute."""
    zone, found = ZoneInfo(name), []
    day = datetime(2000, 1, 1, tzinfo=UTC)
    while day.year < 2041:
        following = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            low, high = day, following
            while high - low > MINUTE:
                middle = (low + (high - low) / 2).replace(second=0)
                if middle.astimezone(zone).utcoffset() == day.astimezone(zone).utcoffset():
                    low = middle
                else:
                    high = middle
            found.append(high)
        day = following
    return found


def chosen_changes(name: str) -> list[datetime]:
    found = changes_of(name)
    return found[:: max(1, len(found) // CHANGES)] if CHANGES else found


@pytest.mark.parametrize("name", ZONES)
def test_over_a_clock_change_each_wall_time_fires_once(name: str) -> None:
    zone = ZoneInfo(name)
    changes = chosen_changes(name)
    assert changes
    for change in changes:
        local = (change + timedelta(minutes=15)).astimezone(zone)
        for expression in ("*/20 * * * *", "10 */2 * * *", f"{local.minute} {local.hour} * * *", "30 2 * * *"):
            start, end = change - timedelta(hours=3), change + timedelta(hours=28)
            assert answers(expression, name, start, end) == firings(expression, zone, start, end), (change, expression)


@settings(max_examples=max(20, EXAMPLES // 5), deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), st.data())
def test_random_expressions_over_random_changes(expression: str, name: str, data: st.DataObject) -> None:
    change = data.draw(st.sampled_from(changes_of(name)))
    start, end = change - timedelta(hours=3), change + timedelta(hours=6)
    try:
        found = answers(expression, name, start, end)
    except InvalidCron:
        return
    assert found == firings(expression, ZoneInfo(name), start, end)


@pytest.mark.parametrize("name", ZONES)
def test_from_any_moment_around_a_change_the_answer_lies_later_and_is_the_same(name: str) -> None:
    for change in chosen_changes(name)[:3]:
        expected = answers("*/30 * * * *", name, change - timedelta(hours=4), change + timedelta(hours=6))
        for minutes in range(-180, 180, 7):
            after = change + minutes * MINUTE + timedelta(seconds=13)
            assert next_fire_at("*/30 * * * *", name, after) == next(one for one in expected if one > after)


@pytest.mark.parametrize(
    ("after", "fires"),
    [
        ("2027-03-28T00:59:59+00:00", "2027-03-28T01:00:00+00:00"),  # 02:30 does not exist: the first moment after
        ("2027-03-28T01:00:00+00:00", "2027-03-29T00:30:00+00:00"),
        ("2027-10-30T12:00:00+00:00", "2027-10-31T00:30:00+00:00"),  # 02:30 exists twice: the first
        ("2027-10-31T00:30:00+00:00", "2027-11-01T01:30:00+00:00"),
        ("2027-10-31T01:15:00+00:00", "2027-11-01T01:30:00+00:00"),  # within the second pass
    ],
)
def test_half_past_two_in_berlin(after: str, fires: str) -> None:
    assert next_fire_at("30 2 * * *", "Europe/Berlin", datetime.fromisoformat(after)) == datetime.fromisoformat(fires)


def test_a_day_that_a_zone_left_out_fires_once_when_it_would_have_ended() -> None:
    after = datetime(2011, 12, 29, 23, 0, tzinfo=UTC)  # Samoa had no 30 December 2011
    found = [after := next_fire_at("0 12 * * *", "Pacific/Apia", after) for _ in range(2)]

    assert found == [datetime(2011, 12, 30, 10, tzinfo=UTC), datetime(2011, 12, 30, 22, tzinfo=UTC)]


def next_few(expression: str, count: int = 3) -> list[str]:
    moment, found = datetime(2027, 1, 1, tzinfo=UTC), []
    for _ in range(count):
        moment = next_fire_at(expression, "UTC", moment)
        found.append(moment.strftime("%m-%d %H:%M:%S"))
    return found


def test_with_six_fields_the_seconds_stand_first() -> None:
    assert next_few("*/20 * * * * *") == ["01-01 00:00:20", "01-01 00:00:40", "01-01 00:01:00"]
    assert next_few("30 0 9 * * *") == ["01-01 09:00:30", "01-02 09:00:30", "01-03 09:00:30"]


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Daily", "0\t0\t*  *\t*"),
        ("0 9 * JAN-mar Mon-FRI", "0 9 * 1-3 1-5"),
        ("0 9 * * 5-7", "0 9 * * 0,5,6"),
        ("0 9 * * 1-7/2", "0 9 * * 0,1,3,5"),
        ("0 9 * * sun", "0 9 * * 7"),
    ],
)
def test_two_ways_to_write_one_schedule(word: str, fields: str) -> None:
    assert next_few(word, 8) == next_few(fields, 8)


def test_where_both_days_are_restricted_either_is_enough() -> None:
    assert next_few("0 0 13 * 5", 4) == ["01-08 00:00:00", "01-13 00:00:00", "01-15 00:00:00", "01-22 00:00:00"]
    assert next_few("0 0 */10 * 1", 4) == ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00", "01-21 00:00:00"]
    assert next_few("0 0 1-31 * 1", 2) == ["01-02 00:00:00", "01-03 00:00:00"]
    assert next_few("0 0 */1 * 1", 2) == ["01-04 00:00:00", "01-11 00:00:00"]


def test_leap_days_come_every_four_years_and_once_after_eight() -> None:
    moment, years = datetime(2090, 1, 1, tzinfo=UTC), []
    for _ in range(3):
        moment = next_fire_at("0 0 29 2 *", "UTC", moment)
        years.append(moment.year)

    assert years == [2092, 2096, 2104]


def test_the_last_year_there_is_ends_in_an_error_of_ours() -> None:
    with pytest.raises(InvalidCron):
        next_fire_at("0 0 1 1 *", "UTC", datetime(9999, 12, 1, tzinfo=UTC))
    with pytest.raises(InvalidCron):
        next_fire_at("* * * * *", "America/New_York", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "* * * *", "* * * * * * *", "@reboot", "@every 5m", "@midnight", "@annually", "@"),
        *("0 9-9 * * *", "5-5 * * * *", "0 0 * * sun-sun", "0 0 * jan-jan *", "0 0 * * 0-0"),
        *("22-2 * * * *", "5-1 * * * *", "0 0 * * fri-mon", "0 0 * nov-feb *", "0 0 * * sat-sun"),
        *("*/0 * * * *", "*/60 * * * *", "*/61 * * * *", "*/90 * * * *", "0 */24 * * *", "0 0 */31 * *"),
        *("0 0 * */12 *", "0 0 * * */7", "10-20/15 * * * *", "59/15 * * * *", "0 0 * 6/1 *", "5/10 * * * *"),
        *("R * * * *", "r(0-9) * * * *", "H * * * *", "h/5 * * * *", "? * * * *", "0 0 ? * 1", "0 0 1 * ?"),
        *("0 0 L * *", "0 0 l * *", "0 0 15W * *", "0 0 w15 * *", "0 0 * * 5#2", "0 0 * * L5", "0 0 * * 5L"),
        *("0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 feb *"),
        *("60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 32 * *", "0 0 * 0 *", "0 0 * 13 *", "0 0 * * 8", "-1 * * * *"),
        *("1,,2 * * * *", "1, * * * *", ",1 * * * *", "1- * * * *", "-5 * * * *", "1-2-3 * * * *", "*/ * * * *"),
        *("*/5/5 * * * *", "** * * * *", "*5 * * * *", "1.5 * * * *", "+1 * * * *", "0x5 * * * *", "1_0 * * * *"),
        *("jan * * * *", "0 0 mon * *", "0 0 * mon *", "0 0 * * jan", "0 0 * january *", "0000 * * * *"),
        *("５ * * * *", "٣ * * * *", "²  * * * *", "＊ * * * *"),
        *("* * * * *\n", "*\n* * * *", "* * * * *\0", "*\x0b* * * *", "* * *\u00a0* *", "\x1b* * * * *"),
        *(" * * * * *", "* * * * * ", "@hourly ", "\t@daily", "0," * 62 + "0 * * * *", "*" * 1_000),
    ],
)
def test_what_is_no_plain_expression_is_refused(expression: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        check_cron(expression)
    assert caught.value.code == "job_schedule.invalid_cron"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("expression", [None, 5, b"* * * * *", ["*"] * 5, object()])
def test_what_is_no_text_is_refused(expression: object) -> None:
    with pytest.raises(InvalidCron):
        check_cron(expression)


@pytest.mark.parametrize("expression", ["0 0 31 2 0", "0 0 29 2 *", "59 23 31 12 6", "0,0 * * * *", "0-59/59 * * * *"])
def test_what_fires_rarely_but_again_is_accepted(expression: str) -> None:
    assert check_cron(expression) == expression


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(alphabet="0123456789*/,-LW#?HR@ \tsunjan", max_size=24) | st.text(max_size=40))
def test_any_text_is_accepted_or_refused_and_nothing_else(text: str) -> None:
    try:
        accepted = check_cron(text)
    except InvalidCron:
        return
    assert re.fullmatch(r"[0-9*/,\-@a-zA-Z \t]+", accepted)
    first = next_fire_at(accepted, "UTC", datetime(2027, 1, 1, tzinfo=UTC))
    assert next_fire_at(accepted, "UTC", first) > first


@pytest.mark.parametrize(
    "name",
    [
        *(None, 1, "", " UTC", "UTC ", "Mars/Olympus", "Europe/", "/etc/localtime", "../UTC", "localtime", "Europe"),
        *("posix/Europe/Berlin", "right/UTC", "posixrules", "Factory", "UTC\0", "Europe/Berlin\n", "UTC+1", "+02:00"),
        "E" * 500,
    ],
)
def test_what_is_no_zone_is_refused(name: object) -> None:
    with pytest.raises(InvalidTimezone):
        check_timezone(name)


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+12", "America/Argentina/Buenos_Aires", "Asia/Kathmandu"])
def test_a_zone_of_the_database_is_accepted(name: str) -> None:
    assert check_timezone(name) == name


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        next_fire_at("* * * * *", "UTC", datetime.fromisoformat("2027-01-01T00:00:00"))
