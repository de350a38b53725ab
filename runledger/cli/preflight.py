"""``runledger preflight``: what waits in the database against new code, before a deploy."""

import click

from runledger.cli.exits import Complaint, ExitCode, complain
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import Column, print_json, print_rows
from runledger.cli.values import DURATION
from runledger.core.preflight import PreflightFinding
from runledger.database.preflight import LARGEST_MOST_JOBS, MOST_JOBS, TIMEOUT_SECONDS, run_preflight

COLUMNS: tuple[Column[PreflightFinding], ...] = (
    Column("WHERE", lambda finding: finding.source),
    Column("TYPE", lambda finding: finding.job_type),
    Column("COUNT", lambda finding: finding.count),
    Column("CODE", lambda finding: finding.code),
    Column("MESSAGE", lambda finding: finding.message),
    Column("FIRST", lambda finding: " ".join(finding.examples)),
)


@click.command(cls=LedgerCommand)
@click.option(
    "--max-jobs",
    type=click.IntRange(1, LARGEST_MOST_JOBS),
    default=MOST_JOBS,
    show_default=True,
    metavar="N",
    help="Most jobs to look at, the oldest first.",
)
@click.option("--ignore-unknown-types", is_flag=True, help="Job types that the app lacks are served by others.")
@click.option("--timeout", type=DURATION, default=TIMEOUT_SECONDS, show_default="30s", help="Most time for each page.")
@click.pass_obj
def preflight(session: Session, *, max_jobs: int, ignore_unknown_types: bool, timeout: float) -> None:
    """Say what waits that new code cannot run.

    Run it with the new code against the database of the old one, before the workers are replaced. It looks at the jobs
    that wait or run, and at active schedules: job types that the app lacks, and payloads that its handlers refuse. It
    reads only, and shows no payload. The exit code is 3 when it found something, or did not look at all jobs.

    \b
    Examples:
      runledger preflight --app myapp.jobs:catalog
      runledger preflight --app myapp.mail:catalog --ignore-unknown-types
      runledger preflight --app myapp.jobs:catalog --max-jobs 1000000 --json
    """
    catalog = session.catalog()
    with session.reading() as ledger:
        report = run_preflight(
            ledger.database,
            catalog,
            max_jobs=max_jobs,
            ignore_unknown_types=ignore_unknown_types,
            timeout_seconds=timeout,
        )
    if session.is_json:
        print_json(
            {
                "is_clear": report.is_clear,
                "is_complete": report.is_complete,
                "jobs": report.jobs,
                "schedules": report.schedules,
                "findings": report.findings,
            }
        )
    else:
        if report.findings:
            print_rows(report.findings, COLUMNS, is_whole=True)
        session.say(f"looked at jobs: {report.jobs:,}, schedules: {report.schedules:,}")
        if not report.is_complete:
            complain(Complaint("cli.not_all_looked_at", "not all was looked at", "raise --max-jobs"), is_json=False)
    if not report.is_clear:
        raise click.exceptions.Exit(ExitCode.CHECK_SAID_NO)
