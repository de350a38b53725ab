"""What was stored by an earlier release is opened, migrated and worked on by this one; a migrator that dies leaves all
or nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from chaos.invariants import ALWAYS, broken
from chaos.proxy import Proxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from upgrade.golden import GOLDEN, STATES, fill

from runledger import DatabaseUnavailable, complete_external_workflow_step, ensure_schema_compatible
from runledger.core.workflows import Succeeded
from runledger.database import migrate
from runledger.database.migrate import plan_migrations
from runledger.postgres.migrations import bundled_migrations
from runledger.postgres.settle import settle_jobs
from runledger.testing import databases
from runledger.testing.factories import claim_one, succeeded

MOST_POINTS = 200
TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('runledger')"
RULES = {name: query for name, query in ALWAYS.items() if "chaos_effects" not in query}


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url) as url:
        yield url


def assert_it_can_be_worked_on(url: str) -> None:
    """Every job is as it was, and a job, a gate and a step go on."""
    ensure_schema_compatible(url)
    with psycopg.connect(url, autocommit=True) as connection:
        stored = dict(connection.execute("SELECT job_type, status::text FROM runledger.jobs").fetchall())
        assert {job_type: stored[job_type] for job_type in STATES} == STATES
        settle_jobs(connection, [succeeded(claim_one(connection, "waits"))])
        [(run_id,)] = connection.execute("SELECT id::text FROM runledger.workflow_runs").fetchall()
        with connection.transaction():
            complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Succeeded())
        step = claim_one(connection, "step")
        with connection.transaction():
            settle_jobs(connection, [succeeded(step)])
        assert connection.execute("SELECT status::text FROM runledger.workflow_runs").fetchall() == [("SUCCEEDED",)]
        assert broken(connection, RULES) == []


def test_what_a_golden_dump_holds_can_be_worked_on(empty_url: str) -> None:
    """The content of a dump, without the dump: so that the next golden one is known to be good."""
    migrate(empty_url)
    with psycopg.connect(empty_url, autocommit=True) as connection:
        fill(connection)

    assert migrate(empty_url) == ()
    assert_it_can_be_worked_on(empty_url)


@pytest.mark.parametrize("dump", sorted(GOLDEN.glob("*.sql")), ids=lambda dump: dump.stem)
def test_the_database_of_every_release_is_migrated_and_worked_on(empty_url: str, dump: Path) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(dump.read_bytes())

    migrate(empty_url)

    assert_it_can_be_worked_on(empty_url)


def test_a_migrator_that_is_cut_at_any_point_leaves_all_or_nothing(server_url: str) -> None:
    parts = conninfo_to_dict(server_url)
    host, port = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
    proxy = Proxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
    try:
        tables = {_cut_at(proxy, server_url, None)}
        points = proxy.requests
        assert 3 < points < MOST_POINTS
        for point in range(2, points + 1, max(1, points // 8)):
            tables.add(_cut_at(proxy, server_url, point))
    finally:
        proxy.close()

    assert len(tables) == 1


def _cut_at(proxy: Proxy, server_url: str, point: int | None) -> int:
    """How many tables and indexes there are after a migration that was cut, and the next one."""
    with databases.ephemeral_database(server_url) as url:
        through = make_conninfo(url, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
        proxy.count_from_here(cut_request=point)
        with contextlib.suppress(DatabaseUnavailable):
            migrate(through)
        requests = proxy.requests
        assert plan_migrations(url) in ((), bundled_migrations()), "a migrator that was cut left a part"
        proxy.count_from_here()
        migrate(through)
        ensure_schema_compatible(through)
        proxy.requests = requests
        return _tables(url)


def _tables(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(TABLES).fetchone()
    assert row is not None
    return int(row[0])
