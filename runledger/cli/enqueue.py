"""``runledger enqueue``: one job from the command line, checked against the application when one is named."""

import math
from datetime import datetime
from uuid import UUID

import click

from runledger.cli.completing import job_types
from runledger.cli.listings import wait_and_show
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import print_json
from runledger.cli.values import DURATION, MOMENT, read_payload
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import JobRequest, encode_request
from runledger.postgres.enqueue import enqueue_job


class EnqueueCommand(LedgerCommand):
    """A bare ``--wait`` takes no value, so that the payload may follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        spelled_out = ["--wait=" if one == "--wait" else one for one in args[:end]]
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
@click.option("--at", type=MOMENT, help="Due at this time, with its zone.")
@click.option("--in", "delay", type=DURATION, help="Due after this long, on the database's clock.")
@click.option("--priority", type=int, metavar="N", help="Higher runs first.  [default: the job type's]")
@click.option("--organization", type=click.UUID, help="The organization that the job belongs to.")
@click.option("--wait", metavar="[=DURATION]", callback=_patience, help="Wait until the job has ended, then show it.")
@click.pass_obj
def enqueue(
    session: Session,
    *,
    job_type: str,
    payload: str,
    key: str | None,
    at: datetime | None,
    delay: float | None,
    priority: int | None,
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
      runledger enqueue report.build --wait=30s --app myapp.jobs:catalog
    """
    request = _checked(
        session,
        JobRequest(
            job_type,
            read_payload(payload),
            organization_id=organization,
            priority=priority,
            next_run_at=at,
            delay=delay,
            idempotency_key=key,
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
        next_run_at=request.next_run_at,
        delay=request.delay,
        idempotency_key=request.idempotency_key,
    )


def _print_enqueued(session: Session, enqueued: EnqueuedJob) -> None:
    if session.is_json:
        print_json(enqueued)
        return
    if not enqueued.is_new:
        session.say(f"the key already has this job, which is {enqueued.status}")
    click.echo(str(enqueued.job_id))
