"""The settings of a job type, and the policy by which its failed attempts are retried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

DEFAULT_QUEUE = "default"


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
    """The settings of one job type. A job copies attempts, timeout and priority when it is enqueued."""

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
