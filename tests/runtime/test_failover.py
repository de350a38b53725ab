"""A synchronous standby takes the place of its primary: what somebody was told is there, and the fence holds."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from chaos.told import Line, Told, ask
from runtime.crashing import or_skipped
from runtime.hosts import until
from runtime.standby import ReplicatedServer, replicated_server

from runledger import JobCatalog, JobRequest, WorkflowDagBuilder, enqueue_job, enqueue_workflow_run
from runledger.core.results import Succeeded
from runledger.database import migrate
from runledger.postgres.claim import claim_jobs
from runledger.postgres.definitions import sync_definitions
from runledger.postgres.enqueue import enqueue_jobs
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import make_due

pytestmark = pytest.mark.process
Connection = psycopg.Connection[Any]
LOGGED_AHEAD = 33
"""Numbers of a sequence that one entry of the log covers: the one that is drawn, and 32 more."""

LAPSE = (
    "UPDATE runledger.job_leases SET leased_at = leased_at - interval '1 h', renewed_at = renewed_at - interval '1 h'"
)
LAPSE += ", lease_expires_at = lease_expires_at - interval '1 h'"
WAITS_FOR_THE_STANDBY = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
WORK = "failover.work"
catalog = JobCatalog(max_attempts=5)


@catalog.job(WORK)
def work(context: Any, payload: Any) -> None:
    """Never runs: these tests claim and settle themselves."""


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicatedServer]:
    with or_skipped(replicated_server()) as made:
        migrate(made.url)
        with psycopg.connect(made.url, autocommit=True) as connection:
            sync_definitions(connection, catalog.definitions)
        yield made


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(4)
    yield pool
    pool.shutdown(wait=False)  # a commit that still waits for its standby ends with the server


def connect(server: ReplicatedServer) -> contextlib.closing[Connection]:
    """In autocommit; its server may be gone when it is closed."""
    return contextlib.closing(psycopg.connect(server.url, autocommit=True))


def claim(connection: Connection, count: int, worker_id: str = "early") -> dict[str, int]:
    """The claimed jobs and their tokens, as whoever was told that the claim is committed knows them."""
    with connection.transaction():
        enqueue_jobs(connection, [JobRequest(WORK) for _ in range(count)])
    claimed = claim_jobs(connection, worker_id=worker_id, job_types=[WORK], limit=count, lease_ttl_seconds=60)
    return {one.job_id: one.lease_token for one in claimed}


@pytest.mark.parametrize("drawn_before", [0, 1, LOGGED_AHEAD - 1, LOGGED_AHEAD])
def test_a_token_that_somebody_holds_is_never_given_again_by_the_promoted_standby(
    server: ReplicatedServer, drawn_before: int
) -> None:
    """The entry of the log that covers the last token may belong to a transaction that never commits."""
    server.settle_down()
    with connect(server) as other, connect(server) as connection:
        other.execute("BEGIN")
        other.execute("SELECT nextval('runledger.lease_token') FROM generate_series(1, %s)", (drawn_before,))
        told = claim(connection, 1) | claim(connection, 2)
        server.fail_over()

    with connect(server) as connection:
        later = claim(connection, LOGGED_AHEAD + 1, "late")
        stored = dict(connection.execute("SELECT job_id::text, lease_token FROM runledger.job_leases").fetchall())
    assert len(told) == 3
    assert told.items() <= stored.items(), "a claim that was acknowledged is lost"
    assert min(later.values()) > max(told.values())


def test_a_worker_of_before_the_failover_is_refused_once_its_job_has_another(server: ReplicatedServer) -> None:
    server.settle_down()
    with connect(server) as connection:
        early = claim(connection, 1)
        server.fail_over(read_only_seconds=0.2)
    [(job_id, token)] = early.items()

    with connect(server) as connection:
        connection.execute(LAPSE)
        reap_lapsed_leases(connection)
        make_due(connection, job_id)
        again = claim_jobs(connection, worker_id="late", job_types=[WORK], limit=1_000, lease_ttl_seconds=60)
        tokens = {one.job_id: one.lease_token for one in again}

        assert tokens[job_id] > token
        assert settle_jobs(connection, [Succeeded(job_id, token)]) == set()
        assert settle_jobs(connection, [Succeeded(job_id, tokens[job_id])]) == {job_id}


def test_a_standby_that_was_not_waited_for_gives_tokens_again(server: ReplicatedServer) -> None:
    """Why the fence needs a synchronous standby, and that the facts above can fail."""
    server.detach()
    with connect(server) as connection:
        connection.execute("SET synchronous_commit = local")
        told = claim(connection, 2 * LOGGED_AHEAD)
        server.fail_over()

    with connect(server) as connection:
        later = claim(connection, LOGGED_AHEAD, "late")
    assert set(later.values()) & set(told.values())
    assert not set(later) & set(told)


def ask_for_a_job(connection: Connection) -> Any:
    return enqueue_job(connection, JobRequest(WORK, {"order": 7}, idempotency_key="order-7")).job_id


def ask_for_a_run(connection: Connection) -> Any:
    builder = WorkflowDagBuilder("failover.run").idempotency_key("order-7").job("a", WORK)
    return enqueue_workflow_run(connection, builder.build()).run_id


def ask_for_the_live_run(connection: Connection) -> Any:
    builder = WorkflowDagBuilder("failover.live").active_key("order-7").job("a", WORK)
    return enqueue_workflow_run(connection, builder.build()).run_id


@pytest.mark.parametrize("request_it", [ask_for_a_job, ask_for_a_run, ask_for_the_live_run])
def test_nobody_is_told_of_a_job_that_only_the_lost_primary_had(
    server: ReplicatedServer, background: ThreadPoolExecutor, request_it: Callable[[Connection], Any]
) -> None:
    """The first caller's session ends while its commit waits for the standby. From then on others see what it wrote,
    though no standby has it; who asks under the same key must wait as well."""
    server.detach()
    first, second = Line(server.url), Line(server.url)
    pid, second_pid = (line.connection().info.backend_pid for line in (first, second))
    asked_first = background.submit(ask, first, request_it)
    with connect(server) as looking:
        _until_it_waits(looking, pid, asked_first)
        looking.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert asked_first.result(30).told is Told.UNKNOWN

    asked_second = background.submit(ask, second, request_it)
    with connect(server) as looking:
        _until_it_waits(looking, second_pid, asked_second)
    server.fail_over()

    assert asked_second.result(30).told is Told.UNKNOWN
    server.settle_down()
    asked_again = ask(Line(server.url), request_it)
    assert asked_again.told is Told.DONE


def _until_it_waits(looking: Connection, pid: int, asked: "Future[Any]") -> None:
    def waits() -> bool:
        assert not asked.done(), f"told without the standby: {asked.result()}"
        return looking.execute(WAITS_FOR_THE_STANDBY, (pid,)).fetchone() is not None

    until(waits, what="a commit that waits for the standby")
