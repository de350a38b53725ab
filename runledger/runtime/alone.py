"""A single process without a supervisor, for platforms where every process is a unit of its own: the reaper or the
scheduler by itself. Any number may run beside each other and beside worker hosts."""

import os
import signal
from collections.abc import Callable

from runledger.postgres.connection import default_schema
from runledger.postgres.migrations import check_schema
from runledger.postgres.statements import check_schema_name
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import configure_logs
from runledger.runtime.loop import run_loop
from runledger.runtime.reaper import Reaper
from runledger.runtime.scheduler import Scheduler
from runledger.runtime.signals import SignalQueue


def run_reaper(
    *,
    database_url: str,
    schema: str | None = None,
    config: JobsConfig | None = None,
    log_level: str = "info",
    log_format: str = "auto",
) -> int:
    """Reaps lapsed leases until TERM or INT; answers with the exit status. Raises what ``check_schema`` raises."""
    configure_logs(log_level, log_format)
    return _run_alone("reaper", Reaper, database_url, schema, config)


def run_scheduler(
    *,
    database_url: str,
    schema: str | None = None,
    config: JobsConfig | None = None,
    log_level: str = "info",
    log_format: str = "auto",
) -> int:
    """Fires due schedules until TERM or INT; answers with the exit status. Raises what ``check_schema`` raises."""
    configure_logs(log_level, log_format)
    return _run_alone("scheduler", Scheduler, database_url, schema, config)


def _run_alone(
    role: str,
    make: Callable[[DatabaseLink, JobsConfig], Reaper | Scheduler],
    database_url: str,
    schema: str | None,
    config: JobsConfig | None,
) -> int:
    config = JobsConfig.from_env() if config is None else config
    signals = SignalQueue((signal.SIGTERM, signal.SIGINT))
    link = DatabaseLink(
        database_url,
        default_schema() if schema is None else check_schema_name(schema),
        role,
        timeout_seconds=config.database_timeout_seconds,
    )
    process = make(link, config)
    with link.autocommit() as ledger:
        check_schema(ledger)

    def tick() -> float | None:
        process.is_stopping = bool(signals.seen)
        return process.tick()

    try:
        return run_loop(tick, signals=signals, link=link, parent_pid=os.getppid())
    finally:
        link.close()
        signals.close()
