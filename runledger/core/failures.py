"""How an attempt ends other than by returning, and what a failed attempt leads to: one decision for every process.

Worker, keeper and reaper all ask ``decide``; it is pure, and the chance it needs is drawn by its caller.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from runledger.core.definitions import RetryPolicy
from runledger.core.errors import InvalidCheckpoint, InvalidIdentifier, InvalidProgress, InvalidRequest, RunledgerError
from runledger.core.gate import IDENTIFIER_LIMIT, MESSAGE_LIMIT, check_identifier, clean_text
from runledger.core.limits import MAX_DELAY_SECONDS, check_seconds
from runledger.core.states import Outcome
from runledger.core.tracebacks import traceback_text

TIMEOUT_CODE = "job.timeout_exceeded"
INVALID_CODE = "job.invalid_failure_code"
_MIN_DELAY_SECONDS = 1.0
_MAX_EXPONENT = 10


class JobFailure(Exception):
    """Raised by a handler that knows what went wrong. Made by ``retryable`` or ``terminal``.

    A failure is never hidden by its own description: a code that is no identifier becomes
    ``job.invalid_failure_code``, and a ``retry_after`` that is no duration is dropped; the message stays.
    """

    code: str = INVALID_CODE
    message: str = ""
    outcome: Outcome = Outcome.RETRYABLE
    retry_after_seconds: float | None = None

    def __init__(
        self,
        code: str,
        message: str,
        outcome: Outcome = Outcome.RETRYABLE,  # positional, as all of it is: so the failure can be pickled
        retry_after: float | timedelta | None = None,
    ) -> None:
        self.code = _failure_code(code)
        self.message = clean_text(message, MESSAGE_LIMIT)
        self.outcome = Outcome.TERMINAL if outcome == Outcome.TERMINAL else Outcome.RETRYABLE
        self.retry_after_seconds = None if retry_after is None else _retry_after_seconds(retry_after)
        super().__init__(self.code, self.message, self.outcome, self.retry_after_seconds)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @classmethod
    def retryable(cls, code: str, message: str, retry_after: float | timedelta | None = None) -> "JobFailure":
        """The job runs again while attempts remain, not before ``retry_after`` (seconds or a timedelta)."""
        return cls(code, message, Outcome.RETRYABLE, retry_after)

    @classmethod
    def terminal(cls, code: str, message: str) -> "JobFailure":
        """The job goes to the dead letters at once, whatever attempts remain."""
        return cls(code, message, Outcome.TERMINAL)


class Snooze(Exception):
    """Raised or returned by a handler: the job runs again after ``delay``, and this attempt does not count.

    Raises InvalidRequest when the delay is not between zero and ten years.
    """

    def __init__(self, delay: timedelta | float) -> None:
        self.delay_seconds = check_seconds(delay, field="delay")
        super().__init__(self.delay_seconds)


class Continue(Exception):
    """Raised or returned by a handler: this run succeeded, and the job begins its next run with its checkpoint,
    at once or after ``delay``.

    Raises InvalidRequest when the delay is not between zero and ten years.
    """

    def __init__(self, delay: timedelta | float | None = None) -> None:
        self.delay_seconds = 0.0 if delay is None else check_seconds(delay, field="delay")
        super().__init__(self.delay_seconds)


class JobCancelled(BaseException):
    """Raised inside user code when its attempt was cancelled or lost its lease: whatever it does now counts no more.

    Not an Exception, so that ``except Exception`` around one item of a handler's loop does not swallow it and go on.
    """


class JobTimeout(BaseException):
    """Raised inside user code when its timeout is spent. Clean up and let it pass; the process is killed soon after.

    Not an Exception, for the same reason as JobCancelled.
    """


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt failed, clean and bounded: ready to be decided on and written."""

    outcome: Outcome
    code: str
    message: str
    traceback: str | None
    retry_after_seconds: float | None
    exit_signal: int | None = None


class DeadLetterReason(StrEnum):
    """Which rule ended the job."""

    FAILURE_KIND_NON_RETRYABLE = "FAILURE_KIND_NON_RETRYABLE"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    CRASH_BUDGET_SPENT = "CRASH_BUDGET_SPENT"


@dataclass(frozen=True, slots=True)
class Retry:
    """The job waits this long on the database's clock, and is claimed again."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The job does not run again by itself."""

    reason: DeadLetterReason


def failure_of(exception: BaseException) -> Failure:
    """What an exception that left a handler says about its attempt. Never fails, whatever the exception does.

    A JobFailure speaks for itself; JobTimeout is TIMEOUT; progress or a checkpoint the gate refused is TERMINAL, since
    the same code would be refused again; anything else, SystemExit included, is RETRYABLE with its class as code.
    """
    if isinstance(exception, JobFailure):
        return _failure_as_told(exception)
    if isinstance(exception, InvalidProgress | InvalidCheckpoint):
        return terminal_failure_of(exception)
    if isinstance(exception, JobTimeout):
        message = clean_text(exception, MESSAGE_LIMIT) or "the attempt ran longer than its timeout"
        return Failure(Outcome.TIMEOUT, TIMEOUT_CODE, message, traceback_text(exception), None)
    message = clean_text(exception, MESSAGE_LIMIT)
    return Failure(Outcome.RETRYABLE, exception_code(exception), message, traceback_text(exception), None)


def terminal_failure_of(error: RunledgerError) -> Failure:
    """A refusal of ours (a payload that does not decode, an output that is no JSON) as a TERMINAL failure with the
    error's own code."""
    message = clean_text(error, MESSAGE_LIMIT)
    return Failure(Outcome.TERMINAL, error.code, message, traceback_text(error), None)


def decide(
    failure: Failure,
    *,
    attempt: int,
    max_attempts: int,
    crashes: int,
    crash_budget: int,
    policy: RetryPolicy,
    chance: float,
) -> Retry | DeadLetter:
    """What a failed attempt leads to. ``crashes`` counts this one; ``chance`` is drawn evenly from [0, 1)."""
    if failure.outcome is Outcome.TERMINAL:
        return DeadLetter(DeadLetterReason.FAILURE_KIND_NON_RETRYABLE)
    if failure.outcome is Outcome.PANICKED and crashes >= crash_budget:
        return DeadLetter(DeadLetterReason.CRASH_BUDGET_SPENT)
    if attempt >= max_attempts:
        return DeadLetter(DeadLetterReason.ATTEMPTS_EXHAUSTED)
    delay = float(_policy_delay(policy, failure.code, attempt, chance))  # ends that settle together are of one type
    return Retry(max(delay, failure.retry_after_seconds or 0.0))


def _policy_delay(policy: RetryPolicy, code: str, attempt: int, chance: float) -> float:
    """The override of the code, else the formula; jitter spreads evenly, but not below one second where the formula
    itself is above."""
    override = policy.overrides.get(code)
    if override is not None:
        return override
    exponent = min(max(attempt, 1), _MAX_EXPONENT)
    try:
        full = min(policy.cap_seconds, policy.base_seconds * policy.factor**exponent)
    except OverflowError:  # a stored policy that never passed check_definition
        full = policy.cap_seconds
    return max(chance * full, min(_MIN_DELAY_SECONDS, full)) if policy.jitter else full


def _failure_as_told(exception: JobFailure) -> Failure:
    """Checked once more: a subclass may have its own ``__init__``, and attributes can be set."""
    return Failure(
        Outcome.TERMINAL if exception.outcome == Outcome.TERMINAL else Outcome.RETRYABLE,
        _failure_code(exception.code),
        clean_text(exception.message or Exception.__str__(exception), MESSAGE_LIMIT),
        traceback_text(exception),
        _retry_after_seconds(exception.retry_after_seconds),
    )


def _failure_code(code: object) -> str:
    try:
        return check_identifier(code, field="code")
    except InvalidIdentifier:
        return INVALID_CODE


def _retry_after_seconds(value: object) -> float | None:
    """Zero for the past, ten years for anything longer, None for what is no duration."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds == seconds:
        seconds = min(max(seconds, 0), MAX_DELAY_SECONDS)
    try:
        return check_seconds(seconds, field="retry_after")
    except InvalidRequest:
        return None


def exception_code(exception: BaseException) -> str:
    """``exception.`` and the class, with its module unless it is built in. Our own errors go by their public name: the
    code is stored for years and compared with retry delays, and where a class is written may change."""
    kind = type(exception)
    module = kind.__module__
    if isinstance(exception, RunledgerError) and str(module).startswith("runledger.core."):
        module = "runledger"
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return _failure_code(clean_text(f"exception.{name}", IDENTIFIER_LIMIT))
