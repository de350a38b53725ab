"""``runledger stats``: where the jobs are, and how attempts went lately."""

from datetime import UTC, datetime, timedelta

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import Column, print_json, print_rows, text_of
from runledger.cli.values import DURATION, organization_filter
from runledger.core.jobs import Scope
from runledger.core.metrics import JobMetrics, MetricsBy, Percentiles
from runledger.postgres.metrics import read_metrics

PLACE_COLUMNS: tuple[Column[JobMetrics], ...] = (
    Column("READY", lambda line: line.ready),
    Column("SCHEDULED", lambda line: line.scheduled),
    Column("RUNNING", lambda line: line.leased),
    Column("OLDEST DUE (s)", lambda line: line.oldest_due_seconds),
)
FIGURE_COLUMNS: tuple[Column[JobMetrics], ...] = (
    Column("ATTEMPTS", lambda line: line.attempts),
    Column("PER SECOND", lambda line: f"{line.attempts_per_second:.2f}"),
    Column("SUCCESS", lambda line: None if line.success_rate is None else f"{line.success_rate:.1%}"),
    Column("DEAD", lambda line: line.dead_lettered),
    Column("WAIT p50/p95/p99", lambda line: _triple(line.wait)),
    Column("DURATION p50/p95/p99", lambda line: _triple(line.duration)),
)


@click.command(cls=LedgerCommand)
@click.option(
    "--by",
    type=click.Choice([by.value for by in MetricsBy]),
    default=MetricsBy.TYPE.value,
    show_default=True,
    help="What a line stands for.",
)
@click.option(
    "--since", type=DURATION, default="1h", show_default=True, help="How far back the attempts finished: 10m, 24h."
)
@organization_filter
@click.pass_obj
def stats(session: Session, *, by: str, since: float, scope: Scope) -> None:
    """Show where the jobs are, and how attempts went lately.

    Ready, scheduled and running jobs, and how long the first in line has been due, are of now. The rest is of the
    attempts that finished within --since, which is widened to whole hours. A wait is from due to leased,
    a duration that of the handler; percentiles are within 9.1 %.

    \b
    Examples:
      runledger stats
      runledger stats --by worker --since 24h
      runledger stats --json
    """
    start = datetime.now(UTC) - timedelta(seconds=since)
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        window, lines = read_metrics(connection, scope=scope, since=start, until=None, by=MetricsBy(by))
    if session.is_json:
        print_json({"by": by, "since": window.since, "until": window.until, "metrics": lines})
        return
    names = Column[JobMetrics](by.upper(), lambda line: line.name)
    print_rows(lines, (names, *PLACE_COLUMNS, *FIGURE_COLUMNS))
    if window.since < start:
        session.say(f"attempts are counted by whole hours: these finished since {text_of(window.since)}")


def _triple(percentiles: Percentiles | None) -> str | None:
    if percentiles is None:
        return None
    return " ".join(_short(seconds) for seconds in (percentiles.p50, percentiles.p95, percentiles.p99))


def _short(seconds: float) -> str:
    """Two digits that matter, with a unit."""
    if seconds < 0.001:
        return "<1ms"
    if seconds < 1:
        return f"{float(f'{seconds * 1_000:.2g}'):g}ms"
    return f"{float(f'{seconds:.2g}'):g}s" if seconds < 100 else f"{seconds:.0f}s"
