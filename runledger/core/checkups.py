"""What a check-up of the whole system answers: each check with what it found."""

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """FOUND needs somebody; ADVICE can wait; TIMED_OUT and FAILED could not be checked, which is no all-clear."""

    PASSED = "PASSED"
    FOUND = "FOUND"
    ADVICE = "ADVICE"
    TIMED_OUT = "TIMED_OUT"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """``findings`` are the first cases where ``what`` does not hold, or why it could not be checked; ``fix`` says what
    helps."""

    name: str
    what: str
    status: CheckStatus
    findings: tuple[str, ...]
    fix: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """The result of each check, in the order in which they were made."""

    results: tuple[CheckResult, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether every check could be made and none found anything but advice."""
        return all(one.status in (CheckStatus.PASSED, CheckStatus.ADVICE) for one in self.results)
