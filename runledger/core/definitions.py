"""The settings of a job type, and the policy by which its failed attempts are retried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from runledger.core.errors import InvalidDefinition
from runledger.core.gate import check_identifier
from runledger.core.limits import (
    MAX_ATTEMPTS,
    MAX_CRASH_BUDGET,
    MAX_INT32,
    MAX_RETRY_SECONDS,
    MAX_TIMEOUT_SECONDS,
    MIN_INT32,
    check_integer,
    check_number,
)
from runledger.core.rates import parse_rate

DEFAULT_QUEUE = "default"
HOOK_SUFFIX = ".on_dead_letter"
DEFINITION_MISSING_HINT = (
    "start a worker with this job type in its catalog, or run `runledger definition sync` "
    "(Django: `manage.py migrate`, Flask: `flask runledger definition sync`)"
)
"""What helps where a job type has no enabled definition; a worker stores its own when it starts."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a failed attempt waits: ``base × factor^clamp(attempt, 1, 10)`` seconds, at most ``cap``.

    With ``jitter`` the delay is drawn evenly between zero and that value, so that a burst which failed together does
    not return together. ``overrides`` maps a failure code to a fixed delay in seconds that replaces formula and jitter.
    """

    base_seconds: float = 5.0
    factor: float = 2.0
    cap_seconds: float = 300.0
    jitter: bool = True
    overrides: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """The settings of one job type. A job copies attempts, timeout and priority when it is enqueued.

    Over all hosts, at most ``max_running`` jobs of the type run at once, and no more start than ``rate_limit`` says
    (``100/m``, ``5/10s``). None sets no limit.
    """

    job_type: str
    version: int = 1
    max_attempts: int = 3
    timeout_seconds: int = 300
    priority: int = 0
    queue: str = DEFAULT_QUEUE
    is_enabled: bool = True
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    crash_budget: int = 3
    has_dead_letter_hook: bool = False
    max_running: int | None = None
    rate_limit: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it has a limit of either kind."""
        return self.max_running is not None or self.rate_limit is not None


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A definition as it is stored, with the switches of operators: who threw one last, and why."""

    definition: JobDefinition
    is_paused: bool
    changed_by: str | None
    change_reason: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class DefinitionSync:
    """What an exact synchronisation did, by job type, sorted. ``changed`` are new or have other settings; ``disabled``
    were enabled before, and either the catalog lacks them or says so."""

    changed: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


def dead_letter_hook_type(job_type: str) -> str:
    """The job type under which the dead-letter hook of ``job_type`` runs, as a durable job of its own."""
    return f"{job_type}{HOOK_SUFFIX}"


def check_definition(definition: JobDefinition) -> JobDefinition:
    """The same definition, with every setting within its limits. Raises InvalidDefinition, naming the setting."""
    check_identifier(definition.job_type, field="job_type", error=InvalidDefinition)
    check_identifier(definition.queue, field="queue", error=InvalidDefinition)
    for setting, value, low, high in (
        ("version", definition.version, 1, MAX_INT32),
        ("max_attempts", definition.max_attempts, 1, MAX_ATTEMPTS),
        ("timeout_seconds", definition.timeout_seconds, 1, MAX_TIMEOUT_SECONDS),
        ("priority", definition.priority, MIN_INT32, MAX_INT32),
        ("crash_budget", definition.crash_budget, 1, MAX_CRASH_BUDGET),
    ):
        check_integer(value, field=setting, low=low, high=high, error=InvalidDefinition)
    if definition.max_running is not None:
        check_integer(definition.max_running, field="max_running", low=1, high=MAX_INT32, error=InvalidDefinition)
    if definition.rate_limit is not None:
        parse_rate(definition.rate_limit)
    if not isinstance(definition.is_enabled, bool):
        raise InvalidDefinition("is_enabled must be True or False")
    _check_retry(definition.retry)
    return definition


def _check_retry(policy: RetryPolicy) -> None:
    if not isinstance(policy, RetryPolicy):
        raise InvalidDefinition("retry must be a RetryPolicy")
    check_retry_delay(policy.base_seconds, setting="retry.base_seconds")
    check_retry_delay(policy.cap_seconds, setting="retry.cap_seconds")
    check_number(policy.factor, field="retry.factor", low=1, high=10, error=InvalidDefinition)
    if not isinstance(policy.jitter, bool):
        raise InvalidDefinition("retry.jitter must be True or False")
    if not isinstance(policy.overrides, Mapping):
        raise InvalidDefinition("retry.overrides must map failure codes to seconds")
    for failure_code, delay in policy.overrides.items():
        check_identifier(failure_code, field="a failure code of retry.overrides", error=InvalidDefinition)
        check_retry_delay(delay, setting="a delay of retry.overrides")


def check_retry_delay(seconds: object, *, setting: str) -> float:
    """The seconds, above zero and at most 30 days. Raises InvalidDefinition, naming the setting."""
    delay = check_number(seconds, field=setting, low=0, high=MAX_RETRY_SECONDS, error=InvalidDefinition)
    if delay <= 0:
        raise InvalidDefinition(f"{setting} must be above zero")
    return delay
