"""``runledger stats``: where the jobs are, and how attempts ended lately."""

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import Column, print_json, print_rows
from runledger.core.states import Outcome
from runledger.postgres.stats import METRICS_WINDOW_SECONDS, QueueStats, get_outcome_stats, get_queue_stats

STATS_COLUMNS: tuple[Column[QueueStats], ...] = (
    Column("TYPE", lambda line: line.job_type),
    Column("QUEUE", lambda line: line.queue),
    Column("ENABLED", lambda line: line.is_enabled),
    Column("PAUSED", lambda line: line.is_paused),
    Column("READY", lambda line: line.ready),
    Column("SCHEDULED", lambda line: line.scheduled),
    Column("RUNNING", lambda line: line.leased),
    Column("OLDEST READY (s)", lambda line: line.oldest_ready_seconds),
)
OUTCOME_COLUMNS: tuple[Column[tuple[Outcome, int]], ...] = (
    Column("OUTCOME, LAST HOUR", lambda counted: counted[0]),
    Column("ATTEMPTS", lambda counted: counted[1]),
)


@click.command(cls=LedgerCommand)
@click.pass_obj
def stats(session: Session) -> None:
    """Show where the jobs are, by job type.

    A line for each defined type: ready, scheduled and running jobs, and how long the first in line has been due. Then
    how the attempts of the last hour ended.

    \b
    Examples:
      runledger stats
      runledger stats --json
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        queues, outcomes = get_queue_stats(connection), get_outcome_stats(connection)
    if session.is_json:
        print_json({"queues": queues, "outcomes": outcomes, "outcomes_window_seconds": METRICS_WINDOW_SECONDS})
        return
    print_rows(queues, STATS_COLUMNS)
    click.echo()
    print_rows(list(outcomes.items()), OUTCOME_COLUMNS)
