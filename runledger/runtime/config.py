"""Every setting of the processes, in one table: variable, option, default, limits and help come from here.

A value that does not parse or lies outside its limits is an error, never a silent default.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from uuid import uuid4

from runledger.core.errors import InvalidConfiguration

UNLIMITED = 0


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _setting(variable: str, default: Any, minimum: float | None, maximum: float | None, help_text: str) -> Any:
    metadata = {"variable": variable, "minimum": minimum, "maximum": maximum, "help": help_text}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _new_worker_id() -> str:
    return f"worker-{uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """How a worker host runs. Made by ``from_env``, or by hand; both are checked."""

    worker_id: str = _setting(
        "JOBS_WORKER_ID", _new_worker_id, None, None, "Base name of this host's processes; blank: a random one."
    )
    max_global_concurrency: int = _setting(
        "JOBS_MAX_GLOBAL_CONCURRENCY", _processors, 1, 1_024, "Worker processes of this host; each runs one job."
    )
    claim_batch_size: int = _setting(
        "JOBS_CLAIM_BATCH_SIZE", 100, 1, 1_000, "Most jobs that a worker claims ahead while jobs are short; 1: never."
    )
    poll_interval_ms: int = _setting(
        "JOBS_POLL_INTERVAL_MS", 500, 1, 3_600_000, "Longest pause between two looks at an empty queue."
    )
    settle_delay_ms: int = _setting(
        "JOBS_SETTLE_DELAY_MS", 10, 0, 10_000, "Longest time that the outcome of a job waits to be written with others."
    )
    lease_ttl_seconds: int = _setting(
        "JOBS_LEASE_TTL_SECONDS", 60, 10, 86_400, "How long a lease lasts without renewal; renewed every third of it."
    )
    reaper_interval_seconds: int = _setting(
        "JOBS_REAPER_INTERVAL_SECONDS", 15, 1, 3_600, "Pause between two looks for lapsed leases."
    )
    reaper_retry_delay_ms: int = _setting(
        "JOBS_REAPER_RETRY_DELAY_MS", 30_000, 1_000, 86_400_000, "Shortest wait of a job whose lease lapsed."
    )
    schedule_poll_interval_seconds: int = _setting(
        "JOBS_SCHEDULE_POLL_INTERVAL_SECONDS", 1, 1, 3_600, "Pause between two looks for due schedules."
    )
    retention_days: int = _setting(
        "JOBS_RETENTION_DAYS",
        UNLIMITED,
        0,
        36_500,
        "Days that jobs and runs stay after they succeeded or were cancelled, and operator actions; 0: for ever.",
    )
    dead_letter_retention_days: int = _setting(
        "JOBS_DEAD_LETTER_RETENTION_DAYS",
        UNLIMITED,
        0,
        36_500,
        "Days that dead-lettered jobs and runs that completed with errors stay; 0: for ever.",
    )
    timeout_grace_seconds: int = _setting(
        "JOBS_TIMEOUT_GRACE_SECONDS", 5, 0, 3_600, "From the timeout of a job to the kill of its process."
    )
    shutdown_timeout_seconds: int = _setting(
        "JOBS_SHUTDOWN_TIMEOUT_SECONDS", 30, 0, 86_400, "How long running jobs may go on after a stop request."
    )
    boot_timeout_seconds: int = _setting(
        "JOBS_BOOT_TIMEOUT_SECONDS", 60, 1, 3_600, "How long a process may take to import the app and connect."
    )
    database_timeout_seconds: int = _setting(
        "JOBS_DATABASE_TIMEOUT_SECONDS", 10, 1, 3_600, "Longest wait for an answer of the database before reconnecting."
    )
    max_jobs_per_process: int = _setting(
        "JOBS_MAX_JOBS_PER_PROCESS", UNLIMITED, 0, None, "Replace a worker after this many jobs; 0: never."
    )
    max_memory_mb: int = _setting(
        "JOBS_MAX_MEMORY_MB", UNLIMITED, 0, None, "Replace a worker between jobs above this resident memory; 0: never."
    )
    max_memory_hard_mb: int = _setting(
        "JOBS_MAX_MEMORY_HARD_MB", UNLIMITED, 0, None, "Kill a worker, also in a job, above this memory; 0: never."
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name), one.metadata)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> "JobsConfig":
        """The settings that ``environment`` (default: the process's) gives, defaults elsewhere; blank means default.

        Raises InvalidConfiguration that names the variable.
        """
        source = os.environ if environment is None else environment
        given: dict[str, Any] = {}
        for one in fields(cls):
            text = source.get(one.metadata["variable"], "").strip()
            if text:
                given[one.name] = text if one.name == "worker_id" else _whole_number(one.metadata["variable"], text)
        return cls(**given)

    def with_options(self, **options: Any) -> "JobsConfig":
        """A copy with the options that are not None."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    @property
    def poll_interval_seconds(self) -> float:
        """``poll_interval_ms`` in seconds."""
        return self.poll_interval_ms / 1_000

    @property
    def settle_delay_seconds(self) -> float:
        """``settle_delay_ms`` in seconds."""
        return self.settle_delay_ms / 1_000


def _whole_number(variable: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InvalidConfiguration(f"{variable} must be a whole number")
    return int(text)


def _check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    variable, minimum, maximum = metadata["variable"], metadata["minimum"], metadata["maximum"]
    if name == "worker_id":
        if not isinstance(value, str) or not value.strip() or len(value) > 120 or not value.isprintable():
            raise InvalidConfiguration(f"{variable} must be printable text of 1 to 120 characters")
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidConfiguration(f"{variable} must be a whole number")
    if minimum is not None and value < minimum:
        raise InvalidConfiguration(f"{variable} must be at least {minimum}")
    if maximum is not None and value > maximum:
        raise InvalidConfiguration(f"{variable} must be at most {maximum}")
