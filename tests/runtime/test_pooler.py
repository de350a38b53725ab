"""Behind a pooler that lends server connections by transaction: PgBouncer, started by the test.

Nothing may be prepared or set on a connection that the next transaction does not get, and no notification arrives.
"""

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pytest
from runtime.hosts import Desk, Host
from runtime.pooler import POOL_SIZE, Pooler, pooler_before

from runledger import JobRequest, JobStatus, Ledger, Scope, cancel_job, enqueue_job

pytestmark = [pytest.mark.process, pytest.mark.pgbouncer]
StartHost = Callable[..., Host]
JOBS = 5_000


@pytest.fixture
def pooler(own_database: str) -> Iterator[Pooler]:
    """A PgBouncer in transaction mode before the server of the test's database; gone afterwards."""
    with pooler_before(own_database) as made:
        yield made


def _prepared_statements(url: str) -> int:
    """On all connections that the pooler can lend at once: each is held by an open transaction."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(POOL_SIZE)]
        found = [
            one.execute("SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements)").fetchone()
            for one in held
        ]
    rows = [row for row in found if row is not None]
    assert len({pid for pid, _ in rows}) == POOL_SIZE, "not every server connection was looked at"
    return sum(count for _, count in rows)


def _settings_left(url: str) -> set[str]:
    """What earlier transactions left on the connections of the pool."""
    changed = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name')"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(POOL_SIZE)]
        return {name for one in held for (name,) in one.execute(changed).fetchall()}


def test_a_host_and_its_clients_work_behind_a_transaction_pooler(
    desk: Desk, start_host: StartHost, pooler: Pooler
) -> None:
    url = pooler.url(desk.scalar("SELECT current_database()"))
    baseline = _settings_left(url)
    with Ledger(url) as ledger:
        jobs = [ledger.enqueue("noop").job_id for _ in range(20)]
        desk.enqueue("noop", count=JOBS - 40)
        with ledger.begin() as connection:
            jobs += [enqueue_job(connection, JobRequest("work")).job_id for _ in range(20)]
        host = start_host(url=url, JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)

        desk.wait_until_all_ended(within=90)
        host.wait_for_event("listener.unavailable")
        later = ledger.enqueue("work")
        assert ledger.wait_for_job(later.job_id, 10).status is JobStatus.SUCCEEDED

        assert set(desk.successes_per_job().values()) == {1}
        assert desk.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'") == JOBS + 1
        assert {ledger.get_job(job_id).status for job_id in jobs} == {JobStatus.SUCCEEDED}
    assert _prepared_statements(url) == 0
    assert _settings_left(url) == baseline, "a setting of ours stayed on a connection that others get"
    assert host.events("tick.failed") == []
    assert host.stop() == 0
    assert desk.leases() == 0


def test_a_running_job_is_cancelled_behind_a_transaction_pooler(
    desk: Desk, start_host: StartHost, pooler: Pooler
) -> None:
    gate = desk.gate()
    url = pooler.url(desk.scalar("SELECT current_database()"))
    cancelled = desk.one("cancellable", gate=str(gate))
    host = start_host(url=url).ready()
    desk.wait_for_effect(cancelled)

    with Ledger(url) as ledger, ledger.begin() as connection:
        cancel_job(connection, cancelled, scope=Scope.any())

    desk.wait_for_effect(cancelled, "cancelled", within=5)
    assert desk.job(cancelled).status is JobStatus.CANCELED
    assert host.stop() == 0


def test_an_enqueue_on_a_connection_of_the_application_prepares_nothing(desk: Desk, pooler: Pooler) -> None:
    """With the driver's own settings, which prepare nothing before the sixth time."""
    url = pooler.url(desk.scalar("SELECT current_database()"))

    for _ in range(3):
        with psycopg.connect(url) as connection:
            enqueue_job(connection, JobRequest("work"))
            enqueue_job(connection, JobRequest("work", idempotency_key="once"))

    assert desk.scalar("SELECT count(*) FROM runledger.job_queue") == 4
    assert _prepared_statements(url) == 0
