"""``runledger scheduler``: fire schedules, without workers."""

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.runtime.alone import run_scheduler


@click.command(cls=LedgerCommand)
@click.pass_obj
def scheduler(session: Session) -> None:
    """Fire schedules when they are due.

    A worker host runs a scheduler of its own; this one is for platforms where each process is a unit by itself. Any
    number may run; one at a time does the work. TERM or Ctrl-C ends it with 0.

    \b
    Examples:
      runledger scheduler
      JOBS_SCHEDULE_POLL_INTERVAL_SECONDS=10 runledger scheduler --log-format json
    """
    status = run_scheduler(
        database_url=session.required_url(),
        schema=session.schema or None,
        log_level=session.process_log_level,
        log_format=session.log_format,
    )
    raise click.exceptions.Exit(status)
