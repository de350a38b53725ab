"""How many jobs of a type may start in a span of time, as it is written: ``100/m``, ``5/10s``, ``1000/h``, ``3/d``."""

import re
from typing import NamedTuple

from runledger.core.errors import InvalidDefinition

MAX_STARTS = 10_000
MAX_SECONDS = 7 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{0,9})([smhd])")


class Rate(NamedTuple):
    """At most ``starts`` in any ``seconds``."""

    starts: int
    seconds: int

    def __str__(self) -> str:
        unit = next(unit for unit in reversed(_UNITS) if self.seconds % _UNITS[unit] == 0)
        number = self.seconds // _UNITS[unit]
        return f"{self.starts}/{'' if number == 1 else number}{unit}"


def parse_rate(text: object) -> Rate:
    """Raises InvalidDefinition unless it is a text like ``100/m``: 1 to 10,000 starts in one second to seven days."""
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidDefinition("rate_limit must be a text like 100/m, 5/10s or 1000/h")
    rate = Rate(int(found[1]), int(found[2] or 1) * _UNITS[found[3]])
    if not 1 <= rate.starts <= MAX_STARTS:
        raise InvalidDefinition(f"rate_limit must allow 1 to {MAX_STARTS:,} starts")
    if not 1 <= rate.seconds <= MAX_SECONDS:
        raise InvalidDefinition(f"rate_limit must be in a span of 1 second to {MAX_SECONDS // 86_400} days")
    return rate
