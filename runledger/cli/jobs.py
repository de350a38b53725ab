"""``runledger job``: what people look up about jobs and do to them."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from runledger.cli.bulk import all_option, change_matching, is_about_ids
from runledger.cli.explanations import print_explanation
from runledger.cli.listings import (
    ATTEMPT_COLUMNS,
    EVENT_COLUMNS,
    JOB_COLUMNS,
    LOG_COLUMNS,
    print_list,
    print_tracebacks,
    show_job,
    wait_and_show,
)
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.values import DURATION, MOMENT, Choice, acting_person, job_filters, organization_filter
from runledger.core.bulk import CANCELABLE, REPRIORITISABLE, REQUEUEABLE
from runledger.core.jobs import Job, JobPage, Scope
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.explain import explain_job
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.priorities import reprioritise_job
from runledger.postgres.reads import check_page, get_job, list_job_attempts, list_job_events, list_job_logs, list_jobs

SEARCH_SECONDS = 10.0
"""How long a list looks for jobs that match before it says where it stopped."""

job_id_argument = click.argument("job_id", metavar="ID")
job_ids_argument = click.argument("job_ids", metavar="[ID]...", nargs=-1)
reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the timeline of the job.")


@click.group(cls=LedgerGroup)
def job() -> None:
    """List, show and change jobs."""


@job.command("list")
@click.option("--before", type=click.UUID, help="Only jobs that are older than this one: the next page.")
@click.option("--limit", type=int, default=50, show_default=True, metavar="N", help="Most jobs, 1 to 1,000.")
@job_filters
@click.pass_obj
def list_(session: Session, *, before: UUID | None, limit: int, choice: Choice) -> None:
    """List jobs, the newest first.

    A page ends after --limit jobs; pass the last id as --before to get the next page. In a pipe each job is a line of
    tab-separated values, the id first. Where few jobs match, the search ends after ten seconds and says where it was.

    \b
    Examples:
      runledger job list --status dead_lettered --type mail.receipt
      runledger job list --tag nightly --created-after 2027-01-02T00:00:00Z
      runledger job list --json --limit 1000
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        jobs = _searched(connection, choice, before, limit)
    print_list(session, jobs, JOB_COLUMNS, document={"jobs": jobs, "next_before": jobs.next_before})
    if jobs.next_before is not None:
        why = "not all jobs were looked at; go on with" if len(jobs) < limit else "there may be more; next page:"
        session.say(f"{why} --before {jobs.next_before}")


def _searched(connection: LedgerConnection, choice: Choice, before: UUID | None, limit: int) -> JobPage:
    """Page after page until there are ``limit`` jobs, no more to look at, or the patience ends."""
    found: list[Job] = []
    deadline = time.monotonic() + SEARCH_SECONDS
    options = {one.name: getattr(choice.wanted, one.name) for one in fields(choice.wanted)}
    check_page(limit)
    while True:
        page = list_jobs(connection, scope=choice.scope, before=before, limit=limit - len(found), **options)
        found += page
        before = page.next_before
        if before is None or len(found) == limit or time.monotonic() > deadline:
            return JobPage(found, before)


@job.command()
@job_id_argument
@organization_filter
@click.pass_obj
def show(session: Session, *, job_id: str, scope: Scope) -> None:
    """Show one job: where it is, what it was given and what came of it.

    Below it stands the last traceback of its attempts, unless it succeeded.

    \b
    Example:
      runledger job show 0198c0de-0000-7000-8000-000000000000 --json
    """
    with session.reading() as ledger:
        show_job(session, ledger, ledger.get_job(job_id, scope=scope))


@job.command()
@job_id_argument
@click.option("--traceback", "is_with_tracebacks", is_flag=True, help="The tracebacks too, whole.")
@organization_filter
@click.pass_obj
def attempts(session: Session, *, job_id: str, is_with_tracebacks: bool, scope: Scope) -> None:
    """List the ended attempts of a job, with their errors.

    With --traceback, or --json, also with their tracebacks.

    \b
    Example:
      runledger job attempts 0198c0de-0000-7000-8000-000000000000 --traceback
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        get_job(connection, job_id, scope=scope)
        found = list_job_attempts(connection, job_id, scope=scope)
    print_list(session, found, ATTEMPT_COLUMNS, document={"attempts": found})
    if is_with_tracebacks and not session.is_json:
        print_tracebacks(found)


@job.command()
@job_id_argument
@organization_filter
@click.pass_obj
def events(session: Session, *, job_id: str, scope: Scope) -> None:
    """Show the timeline of a job: what happened to it, when, and who did it."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        get_job(connection, job_id, scope=scope)
        found = list_job_events(connection, job_id, scope=scope)
    print_list(session, found, EVENT_COLUMNS, document={"events": found}, is_whole=True)


@job.command()
@job_id_argument
@click.option("--after", type=int, default=0, metavar="N", help="Only lines after this log id: the next page.")
@click.option("--limit", type=int, default=100, show_default=True, metavar="N", help="Most lines, 1 to 1,000.")
@organization_filter
@click.pass_obj
def logs(session: Session, *, job_id: str, after: int, limit: int, scope: Scope) -> None:
    """Print what the handler of a job wrote down, the oldest first."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        get_job(connection, job_id, scope=scope)
        found = list_job_logs(connection, job_id, scope=scope, after=after, limit=limit)
    next_after = found[-1].log_id if len(found) == limit else None
    print_list(session, found, LOG_COLUMNS, document={"logs": found, "next_after": next_after})
    if next_after is not None:
        session.say(f"there may be more; next page: --after {next_after}")


@job.command()
@job_ids_argument
@all_option
@reason_option
@job_filters
@click.pass_obj
def cancel(session: Session, *, job_ids: tuple[str, ...], is_all: bool, reason: str | None, choice: Choice) -> None:
    """Cancel jobs that wait or run.

    A running attempt loses its lease at once and can write nothing more. Named jobs are all cancelled, or none when one
    of them has already ended. With filters or --all the number of jobs is shown first and has to be confirmed, or --yes
    given; they are cancelled in batches, and jobs of workflow runs are left out.

    \b
    Examples:
      runledger job cancel 0198c0de-0000-7000-8000-000000000000 --reason 'wrong address'
      runledger job cancel --type mail.receipt --status pending --reason 'sent by hand' --yes
    """
    words: dict[str, Any] = {"reason": reason, "actor": acting_person(), "scope": choice.scope}
    if is_about_ids(job_ids, choice, is_all=is_all):
        change_jobs(session, job_ids, functools.partial(cancel_job, **words))
        return
    change_matching(
        session,
        choice,
        CANCELABLE,
        "will be cancelled",
        lambda ledger, watch: ledger.cancel_jobs(choice.wanted, watch=watch, **words),
    )


@job.command()
@job_ids_argument
@all_option
@reason_option
@job_filters
@click.pass_obj
def requeue(session: Session, *, job_ids: tuple[str, ...], is_all: bool, reason: str | None, choice: Choice) -> None:
    """Run jobs again that were dead-lettered or cancelled.

    They start anew, with all their attempts; their history is kept. Named jobs are all requeued, or none when one of
    them cannot be. With filters or --all the number of jobs is shown first and has to be confirmed, or --yes given;
    they are requeued in batches, and jobs of workflow runs are left out.

    \b
    Examples:
      runledger job requeue 0198c0de-0000-7000-8000-000000000000 --reason 'the API is back'
      runledger job requeue --status dead_lettered --error-code mail.down --yes
    """
    words: dict[str, Any] = {"reason": reason, "actor": acting_person(), "scope": choice.scope}
    if is_about_ids(job_ids, choice, is_all=is_all):
        change_jobs(session, job_ids, functools.partial(requeue_job, **words))
        return
    change_matching(
        session,
        choice,
        REQUEUEABLE,
        "will be requeued",
        lambda ledger, watch: ledger.requeue_jobs(choice.wanted, watch=watch, **words),
    )


@job.command()
@job_ids_argument
@click.option("--to", "priority", type=int, required=True, metavar="N", help="The new priority; higher runs first.")
@all_option
@reason_option
@job_filters
@click.pass_obj
def priority(
    session: Session, *, job_ids: tuple[str, ...], priority: int, is_all: bool, reason: str | None, choice: Choice
) -> None:
    """Change the priority of jobs that wait.

    It stays theirs in later attempts and runs. Named jobs all change, or none. With filters or --all the number of jobs
    is shown first and has to be confirmed, or --yes given.

    \b
    Examples:
      runledger job priority 0198c0de-0000-7000-8000-000000000000 --to 10
      runledger job priority --tag nightly --to -5 --yes
    """
    words: dict[str, Any] = {"reason": reason, "actor": acting_person(), "scope": choice.scope}
    if is_about_ids(job_ids, choice, is_all=is_all):
        change_jobs(session, job_ids, functools.partial(reprioritise_job, priority=priority, **words))
        return
    change_matching(
        session,
        choice,
        REPRIORITISABLE,
        f"will have priority {priority}",
        lambda ledger, watch: ledger.reprioritise_jobs(choice.wanted, priority, watch=watch, **words),
    )


@job.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--at", type=MOMENT, help="Due at this time, with its zone.")
@click.option("--in", "--delay", "delay", type=DURATION, help="Due after this long, on the clock of this machine.")
@reason_option
@organization_filter
@click.pass_obj
def reschedule(
    session: Session,
    *,
    job_ids: tuple[str, ...],
    at: datetime | None,
    delay: float | None,
    reason: str | None,
    scope: Scope,
) -> None:
    """Let jobs that wait be due at another time.

    All of them, or none. A retry may be put off so too, or made due with --in 0.

    \b
    Examples:
      runledger job reschedule 0198c0de-0000-7000-8000-000000000000 --in 0 --reason 'the API is back'
      runledger job reschedule 0198c0de-0000-7000-8000-000000000000 --at 2027-01-02T03:04:05Z
    """
    if (at is None) is (delay is None):
        raise click.UsageError("give either --at or --in")
    moment = at or datetime.now(UTC) + timedelta(seconds=delay or 0)
    words: dict[str, Any] = {"reason": reason, "actor": acting_person(), "scope": scope}
    change_jobs(session, job_ids, functools.partial(reschedule_job, next_run_at=moment, **words))


@job.command()
@job_id_argument
@organization_filter
@click.pass_obj
def explain(session: Session, *, job_id: str, scope: Scope) -> None:
    """Say why a job does not run, who runs it, or why it ended.

    The first line is the verdict; then each condition of a claim, and what to do. Place in line and start are guesses
    from what the workers that serve it ended in the last two minutes.

    \b
    Example:
      runledger job explain 0198c0de-0000-7000-8000-000000000000
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        print_explanation(session, explain_job(connection, job_id, scope=scope))


@job.command()
@job_id_argument
@click.option("--timeout", type=DURATION, default=math.inf, show_default="no limit", help="How long to wait.")
@click.pass_obj
def wait(session: Session, *, job_id: str, timeout: float) -> None:
    """Wait until a job has ended, then show it.

    The exit code is 0 when it succeeded, 3 when it was dead-lettered or cancelled, and 6 when the time ran out.

    \b
    Example:
      runledger job wait 0198c0de-0000-7000-8000-000000000000 --timeout 30s
    """
    with session.reading() as ledger:
        wait_and_show(session, ledger, job_id, patience=timeout)


def change_jobs(session: Session, job_ids: Sequence[str], change: Callable[[LedgerConnection, str], object]) -> None:
    """Every job is changed, or none; in the order of their ids, so that two callers cannot block each other."""
    ordered = sorted(set(job_ids))
    with session.changing() as ledger:
        with ledger.begin() as connection:
            for job_id in ordered:
                change(connection, job_id)
        with ledger.database.autocommit() as connection:
            changed = [get_job(connection, job_id, scope=Scope.any()) for job_id in ordered]
    print_list(session, changed, JOB_COLUMNS, document={"jobs": changed})
