"""``runledger enqueue``: one job from the command line, checked against the application when one is named."""

import math
from datetime import datetime
from uuid import UUID

import click

from runledger.cli.completing import job_types
from runledger.cli.listings import wait_and_show
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import print_json
from runledger.cli.values import DURATION, MOMENT, is_duration_with_unit, read_payload
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import JobRequest, encode_request
from runledger.postgres.enqueue import enqueue_job


class EnqueueCommand(LedgerCommand):
    """A bare ``--wait`` takes no value, so that the payload may follow it; a duration with its unit is no payload."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        spelled_out: list[str] = []
        for one in args[:end]:
            if spelled_out[-1:] == ["--wait="] and is_duration_with_unit(one):
                spelled_out[-1] += one
            else:
                spelled_out.append("--wait=" if one == "--wait" else one)
        return super().parse_args(ctx, spelled_out + args[end:])


def _patience(ctx: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Seconds, infinite without a value, None without the option."""
    if text is None:
        return None
    return DURATION.convert(text, option, ctx) if text else math.inf


@click.command(cls=EnqueueCommand)
@click.argument("job_type", metavar="TYPE", shell_complete=job_types)
@click.argument("payload", metavar="[JSON|@FILE|-]", default="{}")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same request again answers with the same job.")
@click.option("--active-key", metavar="TEXT", help="One job of the type and this key at a time waits or runs.")
@click.option("--at", type=MOMENT, help="Due at this time, with its zone.")
@click.option("--in", "--delay", "delay", type=DURATION, help="Due after this long, on the database's clock.")
@click.option("--priority", type=int, metavar="N", help="Higher runs first.  [default: the job type's]")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag to find the job by; may be given again.")
@click.option("--max-attempts", type=int, metavar="N", help="Most attempts.  [default: the job type's]")
@click.option("--timeout", type=DURATION, help="How long an attempt may take.  [default: the job type's]")
@click.option("--expires", "expires_at", type=MOMENT, help="Cancelled instead of begun after this time.")
@click.option("--organization", type=click.UUID, help="The organization that the job belongs to.")
@click.option("--wait", metavar="[=DURATION]", callback=_patience, help="Wait until the job has ended, then show it.")
@click.pass_obj
def enqueue(
    session: Session,
    *,
    job_type: str,
    payload: str,
    key: str | None,
    active_key: str | None,
    at: datetime | None,
    delay: float | None,
    priority: int | None,
    tags: tuple[str, ...],
    max_attempts: int | None,
    timeout: float | None,
    expires_at: datetime | None,
    organization: UUID | None,
    wait: float | None,
) -> None:
    """Enqueue one job.

    Prints the id of the job. The payload is JSON, a file or standard input, {} by default; with --app, type and payload
    are checked against the catalog first. With --wait the exit code is 3 when the job did not succeed and 6 when the
    time ran out.

    \b
    Examples:
      runledger enqueue mail.receipt '{"order": 7}' --key order-7
      runledger enqueue report.build @report.json --in 10m
      runledger enqueue report.build --tag nightly --wait 30s --app myapp.jobs:catalog
    """
    request = _checked(
        session,
        JobRequest(
            job_type,
            read_payload(payload),
            organization_id=organization,
            priority=priority,
            max_attempts=max_attempts,
            timeout_seconds=None if timeout is None else math.ceil(timeout),
            next_run_at=at,
            delay=delay,
            idempotency_key=key,
            active_key=active_key,
            expires_at=expires_at,
            tags=tags,
        ),
    )
    with session.changing() as ledger:
        with ledger.begin() as connection:
            enqueued = enqueue_job(connection, request)
        if wait is None:
            _print_enqueued(session, enqueued)
        else:
            session.say(f"job {enqueued.job_id} is enqueued; waiting for its end")
            wait_and_show(session, ledger, enqueued.job_id, patience=wait)


def _checked(session: Session, request: JobRequest) -> JobRequest:
    """The request as the application's catalog makes it, when one is named; wrong ones raise before any connection."""
    if session.app:
        request = _from_catalog(session, request)
    encode_request(request)
    return request


def _from_catalog(session: Session, request: JobRequest) -> JobRequest:
    return session.catalog().request(
        request.job_type,
        request.payload,
        organization_id=request.organization_id,
        priority=request.priority,
        max_attempts=request.max_attempts,
        timeout_seconds=request.timeout_seconds,
        next_run_at=request.next_run_at,
        delay=request.delay,
        idempotency_key=request.idempotency_key,
        active_key=request.active_key,
        expires_at=request.expires_at,
        tags=request.tags,
    )


def _print_enqueued(session: Session, enqueued: EnqueuedJob) -> None:
    if session.is_json:
        print_json(enqueued)
        return
    if not enqueued.is_new:
        session.say(f"the key already has this job, which is {enqueued.status}")
    click.echo(str(enqueued.job_id))
