"""``runledger dead``: the dead letters, how they get another run, and how they go."""

import functools
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from runledger.cli.bulk import change_matching, is_about_ids
from runledger.cli.completing import job_types
from runledger.cli.jobs import change_jobs, reason_option
from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column
from runledger.cli.prune import prune_confirmed
from runledger.cli.values import DURATION, MOMENT, Choice, acting_person, organization_filter
from runledger.core.bulk import REQUEUEABLE
from runledger.core.filters import JobFilter
from runledger.core.jobs import DeadLetter, Scope
from runledger.core.states import JobStatus
from runledger.postgres.operations import requeue_job
from runledger.postgres.reads import list_dead_letters
from runledger.postgres.retention import Retention

DEAD_COLUMNS: tuple[Column[DeadLetter], ...] = (
    Column("ID", lambda letter: letter.job_id),
    Column("TYPE", lambda letter: letter.job_type),
    Column("RUN", lambda letter: letter.run_number),
    Column("ATTEMPT", lambda letter: letter.attempt),
    Column("FAILED", lambda letter: letter.failed_at),
    Column("JOB NOW", lambda letter: letter.job_status),
    Column("CODE", lambda letter: letter.error_code),
    Column("MESSAGE", lambda letter: letter.error_message),
)


class Place(click.ParamType[DeadLetter]):
    """Where a page of dead letters ended, as the page itself says: time, job and run of its last line."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DeadLetter:
        failed_at, _, rest = str(value).partition("/")
        job_id, _, run_number = rest.partition("/")
        try:
            return DeadLetter(
                job_id=UUID(job_id),
                job_type="",
                organization_id=None,
                run_number=int(run_number),
                attempt=0,
                error_code=None,
                error_message=None,
                payload=None,
                checkpoint=None,
                failed_at=MOMENT.convert(failed_at, param, ctx),
                job_status=JobStatus.DEAD_LETTERED,
            )
        except ValueError:
            self.fail("is not the end of a page", param, ctx)


def place_of(letter: DeadLetter) -> str:
    """The text that ``Place`` reads."""
    return f"{letter.failed_at.isoformat()}/{letter.job_id}/{letter.run_number}"


@click.group(cls=LedgerGroup)
def dead() -> None:
    """List, requeue and purge dead letters."""


@dead.command("list")
@click.option("--type", "job_type", metavar="TYPE", shell_complete=job_types, help="Only jobs of this type.")
@click.option("--before", type=Place(), help="Only what comes after the end of that page: the next page.")
@click.option("--limit", type=int, default=50, show_default=True, metavar="N", help="Most lines, 1 to 1,000.")
@organization_filter
@click.pass_obj
def list_(session: Session, *, job_type: str | None, before: DeadLetter | None, limit: int, scope: Scope) -> None:
    """List dead letters, the latest first.

    A page ends after --limit lines and says what --before has to be for the next. A dead letter stays in the list when
    its job is requeued, and JOB NOW says what became of that; `runledger job list --status dead_lettered` shows the
    jobs that are dead-lettered now.

    \b
    Example:
      runledger dead list --type mail.receipt
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        letters = list_dead_letters(connection, scope=scope, job_type=job_type, before=before, limit=limit)
    next_before = place_of(letters[-1]) if len(letters) == limit else None
    print_list(session, letters, DEAD_COLUMNS, document={"dead_letters": letters, "next_before": next_before})
    if next_before:
        session.say(f"next page: --before {next_before}")


@dead.command()
@click.argument("job_ids", metavar="[ID...]", nargs=-1)
@click.option(
    "--type", "job_type", metavar="TYPE", shell_complete=job_types, help="All dead-lettered jobs of this type."
)
@click.option("--all", "is_all", is_flag=True, help="All dead-lettered jobs.")
@reason_option
@organization_filter
@click.pass_obj
def requeue(
    session: Session,
    *,
    job_ids: tuple[str, ...],
    job_type: str | None,
    is_all: bool,
    reason: str | None,
    scope: Scope,
) -> None:
    """Run dead-lettered jobs again.

    Named jobs are all requeued, or none. With --type, --organization or --all the number of jobs is shown first and has
    to be confirmed, or --yes given; jobs that cannot be requeued are skipped and counted.

    \b
    Examples:
      runledger dead requeue 0198c0de-0000-7000-8000-000000000000
      runledger dead requeue --type mail.receipt --reason 'the API is back' --yes
    """
    words: dict[str, Any] = {"reason": reason, "actor": acting_person(), "scope": scope}
    choice = Choice(JobFilter(job_type), scope)
    if is_about_ids(job_ids, choice, is_all=is_all):
        change_jobs(session, job_ids, functools.partial(requeue_job, **words))
        return
    wanted = JobFilter(job_type, JobStatus.DEAD_LETTERED)
    change_matching(
        session,
        Choice(wanted, scope),
        REQUEUEABLE,
        "will be requeued",
        lambda ledger, watch: ledger.requeue_jobs(wanted, watch=watch, **words),
    )


@dead.command()
@click.option("--older-than", type=DURATION, help="How long ago the job ended, at least: 30d, 12h.")
@click.option("--type", "job_type", metavar="TYPE", shell_complete=job_types, help="Only jobs of this type.")
@click.option("--all", "is_all", is_flag=True, help="All dead-lettered jobs.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Count what would go, and delete nothing.")
@reason_option
@organization_filter
@click.pass_obj
def purge(
    session: Session,
    *,
    older_than: float | None,
    job_type: str | None,
    is_all: bool,
    is_dry_run: bool,
    reason: str | None,
    scope: Scope,
) -> None:
    """Delete dead-lettered jobs for good.

    They go with payload, attempts, events, logs and dead letters; without --type also workflow runs that completed with
    errors. A job whose idempotency key never expires stays. Needs an age, a type or --all; the number is shown first
    and has to be confirmed, or --yes given.

    \b
    Examples:
      runledger dead purge --older-than 90d
      runledger dead purge --type mail.receipt --reason 'the campaign is over' --yes
    """
    if older_than is None and not (job_type or is_all):
        raise click.UsageError("say which: --older-than, --type or --all")
    retention = Retention(timedelta(seconds=older_than or 0), [JobStatus.DEAD_LETTERED], job_type)
    prune_confirmed(session, retention, scope, is_dry_run=is_dry_run, reason=reason)
