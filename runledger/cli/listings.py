"""How jobs and what belongs to them stand in a table, and one job on a page."""

import math
import time
from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

import click

from runledger.cli.exits import ExitCode
from runledger.cli.options import Session
from runledger.cli.output import Column, json_text, print_fields, print_json, print_rows, print_text, text_of
from runledger.core.errors import WaitTimedOut
from runledger.core.jobs import Attempt, Job, JobEvent, JobLog, Scope
from runledger.core.states import JobStatus
from runledger.database.ledger import Ledger
from runledger.postgres.reads import last_failed_attempt

Item = TypeVar("Item")

JOB_COLUMNS: tuple[Column[Job], ...] = (
    Column("ID", lambda job: job.job_id),
    Column("TYPE", lambda job: job.job_type),
    Column("STATUS", lambda job: job.status),
    Column("STAGE", lambda job: job.stage),
    Column("ATTEMPT", lambda job: f"{job.attempt}/{job.max_attempts}"),
    Column("CREATED", lambda job: job.created_at),
    Column("DUE", lambda job: job.next_run_at),
    Column("LAST ERROR", lambda job: job.last_error_code),
)
ATTEMPT_COLUMNS: tuple[Column[Attempt], ...] = (
    Column("RUN", lambda attempt: attempt.run_number),
    Column("ATTEMPT", lambda attempt: attempt.attempt),
    Column("OUTCOME", lambda attempt: attempt.outcome),
    Column("WORKER", lambda attempt: attempt.worker_id),
    Column("LEASED", lambda attempt: attempt.leased_at),
    Column("FINISHED", lambda attempt: attempt.finished_at),
    Column("CODE", lambda attempt: attempt.error_code),
    Column("MESSAGE", lambda attempt: attempt.error_message),
)
EVENT_COLUMNS: tuple[Column[JobEvent], ...] = (
    Column("WHEN", lambda event: event.occurred_at),
    Column("EVENT", lambda event: event.event_type),
    Column("RUN", lambda event: event.run_number),
    Column("ATTEMPT", lambda event: event.attempt),
    Column("ACTOR", lambda event: event.actor),
    Column("REASON", lambda event: event.reason),
    Column("DETAIL", lambda event: event.detail or None),
)
LOG_COLUMNS: tuple[Column[JobLog], ...] = (
    Column("WHEN", lambda log: log.occurred_at),
    Column("LEVEL", lambda log: log.level),
    Column("RUN", lambda log: log.run_number),
    Column("ATTEMPT", lambda log: log.attempt),
    Column("MESSAGE", lambda log: log.message),
    Column("FIELDS", lambda log: log.fields or None),
)


def print_list(
    session: Session,
    items: Sequence[Item],
    columns: Sequence[Column[Item]],
    *,
    document: object,
    is_whole: bool = False,
) -> None:
    """``document`` with --json, else the items as rows, also those that are wider than the terminal if ``is_whole``."""
    if session.is_json:
        print_json(document)
    else:
        print_rows(items, columns, is_whole=is_whole)


def print_job(session: Session, found: Job) -> None:
    if session.is_json:
        print_json(found)
        return
    progress = None if found.progress_done is None else f"{found.progress_done}/{text_of(found.progress_total) or '?'}"
    print_fields(
        [
            ("id", found.job_id),
            ("type", found.job_type),
            ("status", found.status),
            ("stage", found.stage),
            ("reason", found.status_reason),
            ("organization", found.organization_id),
            ("key", found.idempotency_key),
            ("active key", found.active_key),
            ("tags", found.tags or None),
            ("priority", found.priority),
            ("run", found.run_number),
            ("attempt", f"{found.attempt}/{found.max_attempts}"),
            ("timeout", f"{found.timeout_seconds} s"),
            ("created", found.created_at),
            ("due", found.next_run_at),
            ("expires", found.expires_at),
            ("leased", found.leased_at),
            ("lease ends", found.lease_expires_at),
            ("worker", found.worker_id),
            ("finished", found.finished_at),
            ("progress", progress),
            ("error", found.last_error_code),
            ("message", found.last_error_message),
            ("payload", json_text(found.payload)),
            ("checkpoint", None if found.checkpoint is None else json_text(found.checkpoint)),
            ("output", None if found.output is None else json_text(found.output)),
        ]
    )


def show_job(session: Session, ledger: Ledger, found: Job) -> None:
    """The job, and below it the last traceback that its attempts left, unless it succeeded."""
    print_job(session, found)
    if session.is_json or found.status is JobStatus.SUCCEEDED:
        return
    with ledger.database.autocommit() as connection:
        failed = last_failed_attempt(connection, found.job_id, scope=Scope.any())
    print_tracebacks([] if failed is None else [failed])


def print_tracebacks(attempts: Sequence[Attempt]) -> None:
    """The traceback of each attempt that has one, whole as it is stored."""
    for one in attempts:
        if one.traceback:
            click.echo()
            print_text(f"attempt {one.attempt} of run {one.run_number} ended as {one.outcome}:", one.traceback)


def wait_and_show(session: Session, ledger: Ledger, job_id: UUID | str, *, patience: float) -> None:
    """The job is printed, ended or as it is when the time runs out. Ends the command with 3 unless it succeeded; raises
    WaitTimedOut."""
    began = time.monotonic()
    try:
        ended = ledger.wait_for_job(job_id, timeout_seconds=None if patience == math.inf else patience)
    except WaitTimedOut:
        ended = ledger.get_job(job_id)  # which may have ended just now
        if not ended.status.is_final:
            show_job(session, ledger, ended)
            raise
    show_job(session, ledger, ended)
    session.say(f"{ended.status} after {time.monotonic() - began:.1f} s")
    if ended.status is not JobStatus.SUCCEEDED:
        raise click.exceptions.Exit(ExitCode.CHECK_SAID_NO)
