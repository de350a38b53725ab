"""The demonstration from beginning to end: a server, a database, jobs, a murder, and the reckoning."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import psycopg

from runledger import (
    DeadLetter,
    Job,
    Ledger,
    Scope,
    enqueue_jobs,
    list_dead_letters,
    list_job_attempts,
    list_jobs,
    migrate,
)
from runledger.demo.check import Observation
from runledger.demo.jobs import catalog, slow
from runledger.demo.plan import MOST_FILES, Plan
from runledger.demo.report import Report, make_report
from runledger.demo.results import create_table, read_rows
from runledger.demo.workers import DrainingWorkers, Kill, draining_workers
from runledger.embedded import DURABLE_SETTINGS, EmbeddedServer, embedded_home, running_server
from runledger.postgres.stats import get_queue_stats
from runledger.testing.databases import (
    connect_as_admin,
    create_database,
    database_url,
    drop_abandoned_databases,
    ephemeral_database,
)

PATIENCE_SECONDS = 120.0
LOOK_EVERY_SECONDS = 0.05
PAGE = 1_000
KEPT_DATABASE = "demo"


class Audience(Protocol):
    """Who is told how it goes."""

    def say(self, text: str) -> None:
        """One line."""
        ...

    def watching(self, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
        """Inside the block, how many jobs of ``total`` are done, and what was the last thing that happened."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen while the workers ran."""

    kill: Kill | None
    trouble: list[str]


def run_demo(plan: Plan, *, processes: int, is_kept: bool, audience: Audience) -> Report:
    """The plan was carried out by real workers, one of which was killed, and the result was checked.

    Server and database are gone afterwards unless ``is_kept``. Raises what the embedded server and the database raise.
    """
    home = demo_home()
    audience.say(f"starting an embedded PostgreSQL in {home}")
    with _database(home, is_kept=is_kept) as url:
        migrations = migrate(url)
        audience.say(f"fresh database, {len(migrations)} migrations applied")
        long_job_id = _enqueue(plan, url)
        audience.say(f"{len(plan.files)} files of {plan.root}, a long text, and a file that is missing: all enqueued")
        with draining_workers(url, processes=processes, home=home) as workers, Ledger(url) as ledger:
            watched = _watch(ledger, workers, long_job_id, audience)
        seen = _observe(url, watched.kill)
        kept_url = url if is_kept else None
        return make_report(plan, seen, trouble=watched.trouble, database_url=kept_url)


def demo_home() -> Path:
    """Where the server of the demonstration lives, beside the one of ``runledger db``."""
    return embedded_home("demo") / "pg18"


@contextmanager
def _database(home: Path, *, is_kept: bool) -> Iterator[str]:
    """A fresh database on a durable server. A kept one has a name that stays, and is replaced by the next."""
    if not is_kept:
        with running_server(home, DURABLE_SETTINGS) as server:
            drop_abandoned_databases(server.url(), prefix=KEPT_DATABASE)
            with ephemeral_database(server.url(), prefix=KEPT_DATABASE) as url:
                yield url
        return
    server_url = EmbeddedServer(home, DURABLE_SETTINGS).start()
    with connect_as_admin(server_url) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {KEPT_DATABASE} WITH (FORCE)")
        create_database(connection, KEPT_DATABASE, template=None)
    yield database_url(server_url, KEPT_DATABASE)


def _enqueue(plan: Plan, url: str) -> UUID:
    """The application's table, the definitions and every job, in one transaction; answers with the long job."""
    requests = plan.requests()
    with psycopg.connect(url) as connection:
        create_table(connection)
        catalog.sync_definitions(connection)
        enqueued = enqueue_jobs(connection, requests)
    long_type = catalog.request(slow).job_type
    return next(job.job_id for request, job in zip(requests, enqueued, strict=True) if request.job_type == long_type)


def _watch(ledger: Ledger, workers: DrainingWorkers, long_job_id: UUID, audience: Audience) -> Watched:
    """Returns when the workers have ended, at the latest when patience has."""
    total = _unfinished(ledger)
    deadline = time.monotonic() + PATIENCE_SECONDS
    kill, note = None, ""
    with audience.watching(total) as tell:
        while workers.exit_status is None and time.monotonic() < deadline:
            if kill is None and (kill := workers.kill_worker_of(ledger.get_job(long_job_id))):
                note = f"worker {kill.pid} was killed at step {kill.step} of the long text"
            tell(total - _unfinished(ledger), note)
            time.sleep(LOOK_EVERY_SECONDS)
        tell(total - _unfinished(ledger), note)
    if workers.exit_status == 0:
        return Watched(kill, [])
    ended = "did not end in time" if workers.exit_status is None else f"ended with status {workers.exit_status}"
    return Watched(kill, [f"the worker command {ended}; it said last:\n{workers.log_tail()}"])


def _unfinished(ledger: Ledger) -> int:
    with ledger.database.autocommit() as connection:
        return sum(one.ready + one.scheduled + one.leased for one in get_queue_stats(connection))


def _observe(url: str, kill: Kill | None) -> Observation:
    with psycopg.connect(url) as connection:
        jobs = tuple(_all_jobs(connection))
        letters: list[DeadLetter] = list_dead_letters(connection, scope=Scope.any(), limit=PAGE)
        return Observation(
            jobs=jobs,
            attempts={job.job_id: tuple(list_job_attempts(connection, job.job_id, scope=Scope.any())) for job in jobs},
            rows=read_rows(connection),
            dead_letters=tuple(letters),
            kill=kill,
        )


def _all_jobs(connection: psycopg.Connection[Any]) -> Iterator[Job]:
    before = None
    for _ in range(MOST_FILES // PAGE + 2):
        page = list_jobs(connection, scope=Scope.any(), before=before, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        before = page[-1].job_id
