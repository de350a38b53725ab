"""``runledger workers``: which worker processes there are, in the whole fleet."""

import click

from runledger.cli.listings import print_list
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import Column
from runledger.core.workers import RegisteredWorker
from runledger.postgres.workers import list_workers

MOST_TYPES_SHOWN = 4

WORKER_COLUMNS: tuple[Column[RegisteredWorker], ...] = (
    Column("WORKER", lambda worker: worker.worker_id),
    Column("HOST", lambda worker: worker.host_name),
    Column("PID", lambda worker: worker.pid),
    Column("STATE", lambda worker: worker.state if worker.is_live else "LOST"),
    Column("JOB", lambda worker: worker.job_id),
    Column("DONE", lambda worker: worker.jobs_done),
    Column("RSS (MB)", lambda worker: None if worker.rss_kb is None else round(worker.rss_kb / 1_024)),
    Column("STARTED", lambda worker: worker.started_at),
    Column("SEEN", lambda worker: worker.seen_at),
    Column("VERSION", lambda worker: worker.version),
    Column("QUEUES", lambda worker: "all" if worker.queues is None else ",".join(worker.queues)),
    Column("TYPES", lambda worker: _types(worker.job_types)),
)


@click.command(cls=LedgerCommand)
@click.option("--after", metavar="WORKER", help="Only workers after this one: the next page.")
@click.option("--limit", type=int, default=1_000, show_default=True, metavar="N", help="Most lines, 1 to 1,000.")
@click.pass_obj
def workers(session: Session, *, after: str | None, limit: int) -> None:
    """Show the worker processes of all hosts.

    Each host says every third of a lease time what its workers do; LOST are those of a host that has not been heard of
    for a lease time. They are shown for a day. A host that stops cleanly takes its workers off the list.

    \b
    Examples:
      runledger workers
      runledger workers --json
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        found = list_workers(connection, after=after, limit=limit)
    next_after = found[-1].worker_id if len(found) == limit else None
    print_list(session, found, WORKER_COLUMNS, document={"workers": found, "next_after": next_after})


def _types(job_types: tuple[str, ...] | None) -> str:
    if job_types is None:
        return "?"
    shown = ",".join(job_types[:MOST_TYPES_SHOWN])
    return shown if len(job_types) <= MOST_TYPES_SHOWN else f"{shown} and {len(job_types) - MOST_TYPES_SHOWN} more"
