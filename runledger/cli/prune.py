"""``runledger prune``: delete what ended long ago."""

import sys
from dataclasses import fields
from datetime import timedelta
from uuid import UUID

import click

from runledger.cli.completing import job_types
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import print_fields, print_json
from runledger.cli.values import DURATION, acting_person, organization_filter
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus
from runledger.database.ledger import Ledger
from runledger.postgres.operator_actions import record_operator_action
from runledger.postgres.retention import (
    PRUNED_BY_DEFAULT,
    Pruned,
    Retention,
    count_prunable,
    prune_jobs,
    prune_workflow_runs,
)

FINAL = [status.value for status in JobStatus if status.is_final]


@click.command(cls=LedgerCommand)
@click.option("--older-than", type=DURATION, required=True, help="How long ago it ended, at least: 30d, 12h.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(FINAL, case_sensitive=False),
    multiple=True,
    default=[status.value for status in PRUNED_BY_DEFAULT],
    show_default=True,
    help="What ended so; may be given several times.",
)
@click.option(
    "--type", "job_type", metavar="TYPE", shell_complete=job_types, help="Only jobs of this type, and no workflow runs."
)
@click.option("--forget-keys", is_flag=True, help="Also jobs and runs whose idempotency key never expires.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Count what would go, and delete nothing.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the operator actions.")
@organization_filter
@click.pass_obj
def prune(
    session: Session,
    *,
    older_than: float,
    statuses: tuple[str, ...],
    job_type: str | None,
    forget_keys: bool,
    is_dry_run: bool,
    reason: str | None,
    scope: Scope,
) -> None:
    """Delete what ended long ago.

    Jobs and workflow runs go with their attempts, events, logs and dead letters, in small batches. What waits, runs, or
    may still run stays, and so does a job whose idempotency key still answers. The numbers are shown first and have to
    be confirmed, or --yes given.

    \b
    Examples:
      runledger prune --older-than 30d --dry-run
      runledger prune --older-than 90d --status dead_lettered --type mail.receipt --yes
    """
    wanted = [JobStatus(status) for status in statuses]
    retention = Retention(timedelta(seconds=older_than), wanted, job_type, forget_keys)
    prune_confirmed(session, retention, scope, is_dry_run=is_dry_run, reason=reason)


def prune_confirmed(
    session: Session, retention: Retention, scope: Scope, *, is_dry_run: bool, reason: str | None
) -> None:
    """What the retention lets go is counted, deleted once somebody agreed, and recorded with who and why."""
    with session.changing() as ledger:
        with ledger.database.autocommit() as connection:
            jobs, runs = count_prunable(connection, retention, scope=scope)
        session.say(f"{jobs} jobs and {runs} workflow runs may go")
        if is_dry_run:
            _print(session, {"jobs": jobs, "workflow_runs": runs, "is_dry_run": True})
            return
        if jobs + runs:
            session.confirm(f"{jobs} jobs and {runs} workflow runs will be deleted")
        done = _prune_all(session, ledger, retention, scope, total=jobs + runs)
        selection = {
            "older_than_seconds": retention.older_than.total_seconds(),
            "statuses": [status.value for status in retention.statuses],
            "job_type": retention.job_type,
            "scope": scope.kind,
            "forget_keys": retention.forget_keys,
        }
        with ledger.begin() as connection:
            record_operator_action(
                connection,
                "prune",
                selection=selection,
                affected=done["jobs"],
                actor=acting_person(),
                reason=reason,
                detail=done,
            )
    _print(session, done)


def _prune_all(session: Session, ledger: Ledger, retention: Retention, scope: Scope, *, total: int) -> dict[str, int]:
    """What all batches deleted together; each commits by itself."""
    done = {one.name: 0 for one in fields(Pruned) if one.name != "next_after"}
    is_silent = session.is_json or session.is_quiet or not sys.stderr.isatty()
    with click.progressbar(length=total, label="prune", file=sys.stderr, hidden=is_silent) as bar:
        for prune_batch, unit in ((prune_workflow_runs, "workflow_runs"), (prune_jobs, "jobs")):
            after: UUID | None = None
            while True:
                with ledger.begin() as connection:
                    batch = prune_batch(connection, retention, scope=scope, after=after)
                for name in done:
                    done[name] += getattr(batch, name)
                bar.update(getattr(batch, unit))
                after = batch.next_after
                if after is None:
                    break
    return done


def _print(session: Session, counts: dict[str, int]) -> None:
    print_json(counts) if session.is_json else print_fields(list(counts.items()))
