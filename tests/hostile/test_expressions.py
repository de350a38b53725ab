"""Hostile cron expressions, zones, database URLs and settings, by name: each is refused with one line, or means what
the table says."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runledger.core.cron import check_cron, check_timezone, next_fire_at
from runledger.core.errors import ConfigurationError, RunledgerError, ValidationError
from runledger.core.schedules import ScheduleRequest, encode_schedule
from runledger.database.settings import connection_info, target_of
from runledger.runtime.config import JobsConfig

NOW = datetime(2027, 1, 31, 12, 0, 30, tzinfo=UTC)

REFUSED_CRON: dict[str, Any] = {
    "R01 four fields": "* * * *",
    "R01b seven fields": "* * * * * * *",
    "R01c nothing": "",
    "R01d blanks": "   ",
    "R02 a minute of 60": "60 * * * *",
    "R02b an hour of 24": "0 24 * * *",
    "R02c a day of 0": "0 0 0 * *",
    "R02d a month of 13": "0 0 1 13 *",
    "R02e a weekday of 8": "0 0 * * 8",
    "R02f a negative minute": "-1 * * * *",
    "R03 a step of zero": "*/0 * * * *",
    "R03b a step beyond the range": "*/90 * * * *",
    "R03c a step behind a number": "5/15 * * * *",
    "R03d two steps": "*/2/2 * * * *",
    "R03e a negative step": "*/-1 * * * *",
    "R04 a range that goes down": "5-1 * * * *",
    "R04b a range of one": "5-5 * * * *",
    "R04c an open range": "5- * * * *",
    "R04d a range of ranges": "1-2-3 * * * *",
    "R05 30 February": "0 0 30 2 *",
    "R05b 31 April": "0 0 31 4 *",
    "R08 an empty item": "1,,2 * * * *",
    "R08b a comma at the end": "1, * * * *",
    "R09 L": "0 0 L * *",
    "R09b a hash": "0 0 * * 1#2",
    "R09c W": "0 0 15W * *",
    "R09d a question mark": "0 0 ? * *",
    "R09e H": "H * * * *",
    "R09f R": "R * * * *",
    "R10 @reboot": "@reboot",
    "R10b @every": "@every 5m",
    "R10c @never": "@never",
    "R11 a name of no day": "0 0 * * funday",
    "R11b a name in the wrong field": "mon * * * *",
    "R12 fullwidth digits": "\uff15 * * * *",
    "R12b Arabic digits": "\u0665 * * * *",
    "R12c an exponent": "1e1 * * * *",
    "R12d a float": "1.0 * * * *",
    "R12e hexadecimal": "0x5 * * * *",
    "R12f underscores": "1_0 * * * *",
    "R13b a no-break space": "*\u00a0* * * *",
    "R13c a line end": "* * * * *\n",
    "R13d NUL": "* * * * *\0",
    "R14 a thousand fields": "* " * 1_000,
    "R14b a million digits": "9" * 1_000_000 + " * * * *",
    "R14c a thousand items": ",".join(["1"] * 1_000) + " * * * *",
    "R17 None": None,
    "R17b a number": 5,
    "R17c bytes": b"* * * * *",
    "R17d a list": ["*", "*", "*", "*", "*"],
    "R20 a command": "* * * * * root rm -rf /",
    "R20b a variable": "$(reboot) * * * *",
}
FIRES: dict[str, tuple[str, str, datetime]] = {
    "R06 29 February": ("0 0 29 2 *", "UTC", datetime(2028, 2, 29, tzinfo=UTC)),
    "R07 either of both days": ("0 0 13 * 5", "UTC", datetime(2027, 2, 5, tzinfo=UTC)),
    "R13 tabs": ("0\t13\t*\t*\t*", "UTC", datetime(2027, 1, 31, 13, tzinfo=UTC)),
    "R21 Sunday is 0": ("0 0 * * 0", "UTC", datetime(2027, 2, 7, tzinfo=UTC)),
    "R21b Sunday is 7": ("0 0 * * 7", "UTC", datetime(2027, 2, 7, tzinfo=UTC)),
    "R22 capitals": ("0 0 1 MAR *", "UTC", datetime(2027, 3, 1, tzinfo=UTC)),
    "R23 leading zeros": ("05 013 * * *", "UTC", datetime(2027, 1, 31, 13, 5, tzinfo=UTC)),
    "R24 the hour that is skipped": ("30 2 28 3 *", "Europe/Berlin", datetime(2027, 3, 28, 1, tzinfo=UTC)),
    "R25 the hour that comes twice": ("30 2 31 10 *", "Europe/Berlin", datetime(2027, 10, 31, 0, 30, tzinfo=UTC)),
}
REFUSED_ZONES: dict[str, Any] = {
    "Z01 nothing": "",
    "Z02 a path upwards": "../../etc/passwd",
    "Z03 an absolute path": "/etc/localtime",
    "Z04 what the machine is set to": "localtime",
    "Z05 a POSIX rule": "CET-1CEST",
    "Z06 an offset": "+01:00",
    "Z07 NUL": "UTC\0",
    "Z08 a megabyte": "A" * 1_000_000,
    "Z09 no zone": "Mars/Olympus",
    "Z10 a directory": "Europe",
    "Z11 a zone with leap seconds": "right/UTC",
    "Z12 None": None,
    "Z13 a blank": "Europe/Berlin ",
    "Z14 a backslash": "Europe\\Berlin",
}
REFUSED_SCHEDULES: dict[str, dict[str, Any]] = {
    "R15 a jitter of -1": {"jitter_seconds": -1},
    "R15b a jitter above a day": {"jitter_seconds": 86_401},
    "R15c a jitter of 1.5": {"jitter_seconds": 1.5},
    "R15d a jitter of True": {"jitter_seconds": True},
    "R26 a blank name": {"name": " "},
    "R26b NUL in the name": {"name": "a\0b"},
    "R26c a long name": {"name": "n" * 300},
    "R27 NaN in the payload": {"payload": {"a": float("nan")}},
    "R27b our own key in the payload": {"payload": {"_schedule": {}}},
    "R28 a policy of no kind": {"missed": "sometimes"},
    "R28b an overlap of no kind": {"overlap": 1},
    "R29 an organization of no kind": {"organization_id": "acme"},
}
SECRET = "hunter2-correct-horse"
REFUSED_URLS: dict[str, str] = {
    "D01 MySQL": f"mysql://me:{SECRET}@h/x",
    "D01b HTTP": f"http://me:{SECRET}@h/x",
    "D01c a file": f"file:///{SECRET}",
    "D02 no scheme": f"me:{SECRET}@h/x",
    "D02b a scheme alone": f"://{SECRET}",
    "D03 port 0": f"postgresql://me:{SECRET}@h:0/x",
    "D03b port 65536": f"postgresql://me:{SECRET}@h:65536/x",
    "D03c port abc": f"postgresql://me:{SECRET}@h:abc/x",
    "D03d port -1": f"postgresql://me:{SECRET}@h:-1/x",
    "D03e fullwidth port": f"postgresql://me:{SECRET}@h:\uff11/x",
    "D08 a line end": f"postgresql://me:{SECRET}@h/x\n",
    "D08b NUL": f"postgresql://me:{SECRET}@h/x\0",
    "D08c a tab": f"postgresql://me:{SECRET}\t@h/x",
    "D08d an escape sequence": f"postgresql://me:{SECRET}@h/\x1b[2J",
    "D08e bytes that are no text": f"postgresql://me:{SECRET}\udcff@h/x",
    "D10 an unknown option": f"postgresql://me:{SECRET}@h/x?secret_option={SECRET}",
    "D10b a broken percent": f"postgresql://me:{SECRET}%zz@h/x",
    "D10c an unclosed bracket": f"postgresql://me:{SECRET}@[::1/x",
    "D10d an option without value": f"postgresql://me:{SECRET}@h/x?sslmode",
    "D13 an unclosed quote": f"host=h password='{SECRET}",
    "D13b an unknown keyword": f"host=h passwort={SECRET}",
}
TARGETS: dict[str, tuple[str, str]] = {
    "D05 several hosts": (f"postgresql://me:{SECRET}@a:1,b:2/x", "a,b:1,2/x"),
    "D06 a socket": (f"postgresql://me:{SECRET}@/x?host=/tmp/s", "local socket/x"),
    "D07 the password as an option": (f"postgresql://h/x?password={SECRET}", "h/x"),
    "D09 keywords": (f"host=h dbname=x password={SECRET}", "h/x"),
    "D14 SQLAlchemy's scheme": (f"postgresql+psycopg://me:{SECRET}@h/x", "h/x"),
    "D15 options": (f"postgresql://me:{SECRET}@h/x?options=-c%20statement_timeout%3D1", "h/x"),
    "D16 an IPv6 address": (f"postgresql://me:{SECRET}@[::1]:5/x", "::1:5/x"),
}
WRONG_NUMBERS: dict[str, str] = {
    "V01 a word": "abc",
    "V02 an exponent": "1e3",
    "V03 a float": "1.5",
    "V04 hexadecimal": "0x10",
    "V05 underscores": "1_000",
    "V06 fullwidth digits": "\uff11\uff10\uff10",
    "V07 20 digits": "9" * 20,
    "V08 a million digits": "9" * 1_000_000,
    "V09 infinity": "inf",
    "V10 NaN": "nan",
    "V11 a negative number": "-1",
    "V12 NUL's neighbour": "\x01",
    "V13 two numbers": "1 2",
    "V14 a plus sign": "+1",
    "V15 a sign alone": "-",
    "V16 a superscript": "\u00b2",
    "V17 a unit": "10s",
    "V18 quotes": "'10'",
}
NUMBERS = [one for one in JobsConfig.__dataclass_fields__.values() if one.metadata["variable"] != "JOBS_WORKER_ID"]
WRONG_WORKER_IDS = {
    "V20 121 characters": "w" * 121,
    "V21 an escape": "\x1b[31m",
    "V22 a line end": "a\nb",
    "V23 NUL": "a\0b",
}


def one_line(error: RunledgerError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 300
    assert SECRET not in text + str(error.internal_message) + repr(error)
    return text


@pytest.mark.parametrize("name", REFUSED_CRON)
def test_a_cron_expression_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check_cron(REFUSED_CRON[name])

    assert caught.value.code == "job_schedule.invalid_cron"
    one_line(caught.value)


@pytest.mark.parametrize("name", FIRES)
def test_a_strange_cron_expression_means_what_the_rules_say(name: str) -> None:
    expression, zone, moment = FIRES[name]

    assert next_fire_at(expression, zone, NOW) == moment


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    """R18 and R19: slots follow from the slot before, not from the clock."""
    slot = NOW
    slots = [slot := next_fire_at("*/7 * * * *", "Europe/Berlin", slot) for _ in range(500)]

    assert slots == sorted(set(slots))
    assert max(later - earlier for earlier, later in itertools.pairwise(slots)) <= timedelta(minutes=7)


@pytest.mark.parametrize("name", REFUSED_ZONES)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check_timezone(REFUSED_ZONES[name])

    assert caught.value.code == "job_schedule.invalid_timezone"
    one_line(caught.value)


@pytest.mark.parametrize("name", REFUSED_SCHEDULES)
def test_a_schedule_with_a_bad_option_is_refused(name: str) -> None:
    given: dict[str, Any] = {"name": "nightly", "cron": "0 3 * * *", "job_type": "report"} | REFUSED_SCHEDULES[name]

    with pytest.raises(ValidationError) as caught:
        encode_schedule(ScheduleRequest(**given))

    one_line(caught.value)


@pytest.mark.parametrize("name", REFUSED_URLS)
def test_a_database_url_that_does_not_parse_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection_info(REFUSED_URLS[name], "test")

    assert caught.value.code == "db.invalid_url"
    one_line(caught.value)
    assert SECRET not in target_of(REFUSED_URLS[name])


@pytest.mark.parametrize("name", TARGETS)
def test_a_database_is_named_by_host_and_name_alone(name: str) -> None:
    url, target = TARGETS[name]

    assert target_of(url) == target
    assert connection_info(url, "test")


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_no_setting_takes_what_is_no_whole_number(name: str) -> None:
    for one in NUMBERS:
        variable = one.metadata["variable"]
        with pytest.raises(ConfigurationError) as caught:
            JobsConfig.from_env({variable: WRONG_NUMBERS[name]})
        assert caught.value.code == "config.invalid_value"
        assert variable in one_line(caught.value)


@pytest.mark.parametrize("name", WRONG_WORKER_IDS)
def test_a_worker_id_is_printable_and_short(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        JobsConfig.from_env({"JOBS_WORKER_ID": WRONG_WORKER_IDS[name]})

    one_line(caught.value)


@pytest.mark.parametrize("text", ["", " ", "\t\n"], ids=["V30 nothing", "V31 a blank", "V32 white space"])
def test_a_blank_setting_is_the_default(text: str) -> None:
    assert JobsConfig.from_env({one.metadata["variable"]: text for one in NUMBERS}).lease_ttl_seconds == 60


@pytest.mark.parametrize("one", NUMBERS, ids=lambda one: one.metadata["variable"])
def test_a_setting_ends_where_its_limits_are(one: Any) -> None:
    variable, low, high = (one.metadata[key] for key in ("variable", "minimum", "maximum"))

    for text in [str(low), f" {low} "] + ([str(high)] if high is not None else []):
        assert JobsConfig.from_env({variable: text})
    for value in [low - 1] + ([high + 1] if high is not None else []):
        with pytest.raises(ConfigurationError):
            JobsConfig.from_env({variable: str(value)})
