"""Rates as they are written and read."""

import pytest

from runledger.core.errors import InvalidDefinition
from runledger.core.rates import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate", "canonical"),
    [
        ("100/m", Rate(100, 60), "100/m"),
        ("5/10s", Rate(5, 10), "5/10s"),
        ("1/1s", Rate(1, 1), "1/s"),
        ("60/60s", Rate(60, 60), "60/m"),
        ("1000/h", Rate(1_000, 3_600), "1000/h"),
        ("3/48h", Rate(3, 172_800), "3/2d"),
        ("9/90s", Rate(9, 90), "9/90s"),
        ("10000/7d", Rate(10_000, 604_800), "10000/7d"),
    ],
)
def test_a_rate_is_starts_in_a_span(text: str, rate: Rate, canonical: str) -> None:
    assert parse_rate(text) == rate
    assert str(rate) == canonical
    assert parse_rate(canonical) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/",
        "/m",
        "0/m",
        "-1/m",
        "1.5/s",
        "100/w",
        "100/min",
        "10001/m",
        "1/0s",
        "1/8d",
        "1/m ",
        "١/m",
        "1/m\n",
        "9999999999/s",
        None,
        5,
        b"1/m",
        ("1", "m"),
    ],
)
def test_what_is_no_rate_is_refused(text: object) -> None:
    with pytest.raises(InvalidDefinition, match="rate_limit"):
        parse_rate(text)
