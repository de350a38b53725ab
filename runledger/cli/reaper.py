"""``runledger reaper``: recover lapsed leases, without workers."""

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.runtime.alone import run_reaper


@click.command(cls=LedgerCommand)
@click.pass_obj
def reaper(session: Session) -> None:
    """Recover the jobs of hosts that were lost.

    A worker host runs a reaper of its own; this one is for platforms where each process is a unit by itself. Any
    number may run; one at a time does the work. TERM or Ctrl-C ends it with 0.

    \b
    Examples:
      runledger reaper
      JOBS_REAPER_INTERVAL_SECONDS=5 runledger reaper --log-format json
    """
    status = run_reaper(
        database_url=session.required_url(),
        schema=session.schema or None,
        log_level=session.process_log_level,
        log_format=session.log_format,
    )
    raise click.exceptions.Exit(status)
