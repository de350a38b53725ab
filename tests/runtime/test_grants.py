"""The roles of ``runledger migrate --grants``: each does its work, connected as itself, and nothing beyond it."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from architecture.statements import numbered, statements
from psycopg.conninfo import make_conninfo
from runtime.benches import Bench, KeeperBench, scalar
from runtime.hosts import Connection

from runledger import (
    ForbiddenError,
    InvalidConfiguration,
    JobCatalog,
    JobContext,
    JobRequest,
    JobsConfig,
    JobStage,
    JobStatus,
    Ledger,
    LogLevel,
    PermissionDenied,
    ScheduleRequest,
    Scope,
    Succeeded,
    WorkflowDagBuilder,
    WorkflowRunStatus,
)
from runledger.core import errors
from runledger.core.checkups import CheckStatus
from runledger.core.workflow_requests import WorkflowRunRequest
from runledger.database.doctor import run_doctor
from runledger.database.grants import ROLES, grants_as_sql
from runledger.database.migrate import ensure_schema_compatible, migrate
from runledger.database.preflight import run_preflight
from runledger.postgres import reads
from runledger.postgres.claim import claim_jobs
from runledger.postgres.definitions import set_definition_paused, sync_definitions
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.explain import explain_job
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.runtime_configs import upsert_job_runtime_config
from runledger.postgres.schedules import delete_job_schedule, upsert_job_schedule
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.runtime.link import DatabaseLink
from runledger.runtime.reaper import Reaper
from runledger.runtime.scheduler import Scheduler
from runledger.testing import databases
from runledger.testing.factories import TEST_TYPE, a_definition, a_job, a_leased_job, age_lease, make_due

ANY = Scope.any()
MakeBench = Callable[..., Bench]
MakeKeeper = Callable[..., KeeperBench]
Urls = Mapping[str, str]
Connect = Callable[[str], Connection]
SCHEMAS = ("runledger", "shop_jobs")
WRITING = ("INSERT INTO", "UPDATE ", "DELETE FROM", "FOR SHARE", "FOR KEY SHARE", "FOR UPDATE", "FOR NO KEY UPDATE")

OF_THE_ENQUEUER = {
    "enqueue_many",
    "enqueue_one",
    "enqueue_plain",
    "enqueue_workflow_run",
    "release_ended_keys",
    "release_expired_keys",
    "release_free_steps",
    "resolve_keys",
    "resolve_workflow_run",
    "select_enqueue_defaults",
    "select_job",
    "select_migration_history",
    "select_workflow_run",
}
BEYOND_THE_ENQUEUER = {
    "cancel_job",
    "claim_jobs",
    "claim_steps",
    "count_what_runs",
    "find_waterlines",
    "list_dead_letters",
    "list_job_attempts",
    "list_job_events",
    "list_job_logs",
    "list_operator_actions",
    "list_runtime_configs",
    "list_schedules",
    "list_workers",
    "lock_definitions",
    "lock_limited_types",
    "note_starts",
    "promote_due",
    "record_migration",
    "renew_leases",
    "requeue_job",
    "reschedule_job",
    "save_progress",
    "settle_ended",
    "settle_succeeded",
    "sync_definitions",
    "take_back_enqueued",
    "upsert_runtime_config",
    "upsert_schedules",
}
BEYOND_THE_WORKER = {
    "delete_schedule",
    "find_jobs_dead_lettered",
    "list_dead_letters",
    "list_job_events",
    "list_jobs_dead_lettered",
    "metrics_dead_letters",
    "record_migration",
    "record_operator_action",
    "set_operator_action",
    "upsert_runtime_config",
}
BEYOND_THE_OPERATOR = {
    "announce_listener",
    "announce_workers",
    "claim_jobs",
    "claim_steps",
    "insert_job_log",
    "look_at_metrics",
    "note_starts",
    "prune_metrics",
    "prune_operator_actions",
    "record_migration",
    "roll_up_metrics",
    "settle_ended",
    "withdraw_listener",
    "withdraw_workers",
    "write_job_logs",
}
"""Every statement that these two may not run: a new one belongs to a role, or here."""


@pytest.fixture(scope="module")
def urls(server_url: str, database_template: str) -> Iterator[dict[str, str]]:
    """A URL for a login of each role, and for ``admin``; two schemas in one database, granted twice."""
    prefix = f"rlt_{os.getpid()}_{secrets.token_hex(3)}"
    names = {role.name: f"{prefix}_app_{role.name}" for role in ROLES} | {"nobody": f"{prefix}_app_nobody"}
    with psycopg.connect(server_url, autocommit=True) as server, ExitStack() as roles:
        roles.callback(_drop_roles, server, prefix)
        with databases.ephemeral_database(server_url, database_template) as url:
            migrate(url, schema=SCHEMAS[1])
            with psycopg.connect(url, autocommit=True) as admin:
                for schema in (*SCHEMAS, *SCHEMAS):
                    admin.execute(grants_as_sql(schema, prefix=prefix).encode())
                for name in names.values():
                    admin.execute(f"CREATE ROLE {name} LOGIN".encode())
                for role in ROLES:
                    admin.execute(f"GRANT {prefix}_{role.name} TO {names[role.name]}".encode())
            yield {"admin": url, "prefix": prefix} | {role: make_conninfo(url, user=n) for role, n in names.items()}


def _drop_roles(server: Connection, prefix: str) -> None:
    found = server.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", (f"{prefix}\\_%",)).fetchall()
    for (name,) in found:
        server.execute(f"DROP ROLE {name}".encode())


@pytest.fixture(scope="module")
def database_url(urls: Urls) -> str:
    """The test itself is the administrator."""
    return urls["admin"]


@pytest.fixture
def open_link(urls: Urls) -> Iterator[Callable[..., DatabaseLink]]:
    """The processes connect as the worker."""
    with ExitStack() as links:

        def open_one(role: str = "test") -> DatabaseLink:
            link = DatabaseLink(urls["worker"], "runledger", role)
            links.callback(link.close)
            return link

        yield open_one


@pytest.fixture
def connect(urls: Urls) -> Iterator[Connect]:
    """Connections in autocommit as a role."""
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(psycopg.connect(urls[role], autocommit=True, prepare_threshold=None))


def refused(connection: Connection, texts: Mapping[str, str]) -> set[str]:
    """The statements that the role of the connection may not run: planning one asks for the rights of running it."""
    found = set()
    for name, text in texts.items():
        numbers, count = numbered(text)
        nulls = f"({', '.join(['NULL'] * count)})" if count else ""
        try:
            connection.execute(f"PREPARE planned AS {numbers}".encode())
            connection.execute(f"EXPLAIN EXECUTE planned{nulls}".encode())
        except psycopg.errors.InsufficientPrivilege:
            found.add(name)
        connection.execute(b"DEALLOCATE ALL")
    return found


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_role_may_run_the_statements_of_its_work_and_no_others(connect: Connect, schema: str) -> None:
    texts = {one.name: one.text(schema) for one in statements().values()}
    writing = {name for name, text in texts.items() if any(word in text for word in WRITING)}

    enqueuer = refused(connect("enqueuer"), texts)
    assert enqueuer & OF_THE_ENQUEUER == set()
    assert enqueuer & BEYOND_THE_ENQUEUER == BEYOND_THE_ENQUEUER
    assert refused(connect("worker"), texts) == BEYOND_THE_WORKER
    assert refused(connect("operator"), texts) == BEYOND_THE_OPERATOR
    assert refused(connect("reader"), texts) == writing
    assert refused(connect("migrator"), texts) == set()


def test_the_enqueuer_enqueues_in_every_way_and_reads_what_became_of_it(urls: Urls, connection: Connection) -> None:
    a_definition(connection)
    ensure_schema_compatible(urls["enqueuer"])
    with Ledger(urls["enqueuer"]) as ledger:
        plain = ledger.enqueue(TEST_TYPE, {"n": 1})
        later = ledger.enqueue(TEST_TYPE, {}, delay=60)
        keyed = ledger.enqueue(TEST_TYPE, {"n": 2}, idempotency_key="k", idempotency_ttl=timedelta(days=1))
        again = ledger.enqueue(TEST_TYPE, {"n": 2}, idempotency_key="k", idempotency_ttl=timedelta(days=1))
        assert again.job_id == keyed.job_id
        connection.execute(
            "UPDATE runledger.job_queue SET idempotency_expires_at = now() WHERE id = %s", [keyed.job_id]
        )
        assert ledger.enqueue(TEST_TYPE, {"n": 2}, idempotency_key="k", idempotency_ttl=timedelta(days=1)).is_new
        assert len(ledger.enqueue_many([JobRequest(TEST_TYPE, {}) for _ in range(1_001)])) == 1_001
        assert len(ledger.enqueue_many([JobRequest(TEST_TYPE, {}, idempotency_key=f"{n}") for n in range(3)])) == 3
        run = ledger.enqueue_workflow_run(a_graph("order-1"))
        assert ledger.enqueue_workflow_run(a_graph("order-1")).run_id == run.run_id
        assert ledger.get_workflow_run(run.run_id).status is WorkflowRunStatus.RUNNING
        assert ledger.get_job(later.job_id).status is JobStatus.PENDING
        cancel_job(connection, plain.job_id, scope=ANY)
        assert ledger.wait_for_job(plain.job_id, 5).status is JobStatus.CANCELED


def a_graph(key: str | None = None) -> WorkflowRunRequest:
    builder = WorkflowDagBuilder("graph").job("a", TEST_TYPE).job("b", TEST_TYPE).external("gate")
    if key is not None:
        builder = builder.idempotency_key(key)
    return builder.after_success("b", ["a"]).after_success("gate", ["a"]).build()


def test_a_refused_batch_of_the_enqueuer_says_why_although_it_may_not_delete(
    urls: Urls, connection: Connection, connect: Connect
) -> None:
    a_job(connection, TEST_TYPE, {"n": 1}, idempotency_key="taken")
    batch = [JobRequest(TEST_TYPE, {}), JobRequest(TEST_TYPE, {"n": 2}, idempotency_key="taken")]

    with pytest.raises(errors.IdempotencyConflict), connect("enqueuer").transaction() as transaction:
        enqueue_jobs(transaction.connection, batch)

    assert scalar(connection, "SELECT count(*) FROM runledger.job_queue") == 1


def test_the_enqueuer_does_nothing_else(connection: Connection, connect: Connect) -> None:
    job = a_job(connection)
    app = connect("enqueuer")
    beyond: list[Callable[[], object]] = [
        lambda: claim_jobs(app, worker_id="w", job_types=[TEST_TYPE], limit=1, lease_ttl_seconds=60),
        lambda: cancel_job(app, job.job_id, scope=ANY),
        lambda: requeue_job(app, job.job_id, scope=ANY),
        lambda: reads.list_dead_letters(app, scope=ANY),
        lambda: sync_definitions(app, [a_definition(connection, "other")]),
    ]
    for action in beyond:
        with pytest.raises(PermissionDenied):
            action()
    for table in ("job_queue", "job_ready", "job_scheduled", "job_leases", "workflow_runs", "workflow_steps"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"DELETE FROM runledger.{table}".encode())
    for forged in ("final_status = 'SUCCEEDED', finished_at = now()", "payload = '{}'", "output = '1'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"UPDATE runledger.job_queue SET {forged}".encode())


def test_the_worker_claims_settles_retries_and_advances_workflows(
    connection: Connection, make_bench: MakeBench
) -> None:
    catalog = JobCatalog()

    @catalog.job("ok")
    def ok(context: JobContext, payload: dict[str, Any]) -> dict[str, int]:
        context.log(LogLevel.INFO, "step", n=1)
        context.progress(1, 2)
        return {"n": 1}

    @catalog.job("bad", max_attempts=2)
    def bad(context: JobContext, payload: dict[str, Any]) -> None:
        raise ValueError("no")

    catalog.schedule("nightly", cron="@daily", job_type="ok")
    bench = make_bench(catalog)
    done, lost = bench.run("ok", {}), bench.run("bad", {})
    make_due(connection, lost)
    with connection.transaction():
        builder = WorkflowDagBuilder("graph").job("a", "ok").job("b", "ok").job("c", "bad", max_attempts=1)
        run = run_of(connection, builder.after_success("b", ["a"]).after_success("c", ["b"]).build())
    bench.work()

    assert bench.job(done).status is JobStatus.SUCCEEDED
    assert bench.job(lost).status is JobStatus.DEAD_LETTERED
    ended = scalar(connection, "SELECT status FROM runledger.workflow_runs WHERE id = %s", run)
    assert ended == "COMPLETED_WITH_ERRORS"


@pytest.mark.parametrize("role", ["nobody", "enqueuer", "reader"])
def test_a_worker_with_a_role_of_somebody_else_ends_instead_of_trying_for_ever(
    make_bench: MakeBench, urls: Urls, role: str, request: pytest.FixtureRequest
) -> None:
    catalog = JobCatalog()
    catalog.job("ok")(print)
    bench = make_bench(catalog)
    link = DatabaseLink(urls[role], bench.link.schema, "worker-0")
    request.addfinalizer(link.close)
    bench.worker._link = link

    with pytest.raises(InvalidConfiguration, match="lacks the grants of a worker") as refused:
        bench.worker.tick()

    assert "migrate --grants" in str(refused.value.hint)


def run_of(connection: Connection, request: WorkflowRunRequest) -> UUID:
    return enqueue_workflow_run(connection, request).run_id


def test_the_worker_keeps_reaps_promotes_and_fires(
    connection: Connection, make_keeper: MakeKeeper, open_link: Callable[..., DatabaseLink]
) -> None:
    lapsed = a_leased_job(connection, "lapsed")
    age_lease(connection, lapsed, seconds=3_600)
    later = a_job(connection, "later", delay=60)
    make_due(connection, later)
    upsert_job_schedule(connection, ScheduleRequest("nightly", cron="@yearly", job_type="later"))
    connection.execute("UPDATE runledger.job_schedules SET next_slot_at = now(), next_fire_at = now()")
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job])
    config = JobsConfig(max_global_concurrency=1)

    bench.keeper.tick()
    assert Reaper(open_link(), config).tick() is not None
    assert Scheduler(open_link(), config).tick() == 0.0

    assert bench.job(lapsed.job_id).status is JobStatus.PENDING
    assert bench.job(later.job_id).stage is JobStage.QUEUED
    assert connection.execute("SELECT count(*) FROM runledger.job_workers").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM runledger.job_queue WHERE schedule_id IS NOT NULL").fetchone() == (
        1,
    )


def test_the_reader_reads_everything_and_checks_up(urls: Urls, connection: Connection, connect: Connect) -> None:
    job = a_job(connection)
    reader = connect("reader")

    assert [one.job_id for one in reads.list_jobs(reader, scope=ANY)] == [job.job_id]
    assert explain_job(reader, job.job_id, scope=ANY)
    report = run_doctor(urls["reader"])
    assert [one for one in report.results if one.status in (CheckStatus.FAILED, CheckStatus.TIMED_OUT)] == []
    assert [one.examples for one in run_preflight(urls["reader"], JobCatalog()).findings] == [(str(job.job_id),)]
    with pytest.raises(PermissionDenied):
        enqueue_job(reader, JobRequest(TEST_TYPE))
    with pytest.raises(PermissionDenied):
        cancel_job(reader, job.job_id, scope=ANY)


def test_the_operator_intervenes_and_does_not_run_jobs(connection: Connection, connect: Connect) -> None:
    operator = connect("operator")
    job = a_job(connection)
    running = a_leased_job(connection, "running")
    with operator.transaction():
        gated = run_of(operator, WorkflowDagBuilder("gated").external("gate").build())
        complete_external_workflow_step(operator, run_id=gated, step_key="gate", outcome=Succeeded({"ok": True}))
        run = run_of(operator, a_graph())
    with operator.transaction():
        upsert_job_runtime_config(operator, TEST_TYPE, {"n": 1}, actor="ada", reason="test")
    reschedule_job(operator, job.job_id, next_run_at=datetime.now(UTC) + timedelta(hours=1), scope=ANY)
    for one in (job.job_id, running.job_id):
        cancel_job(operator, one, scope=ANY)
    requeue_job(operator, job.job_id, scope=ANY)
    with operator.transaction():
        cancel_workflow_run(operator, run_id=run, scope=ANY)
    set_definition_paused(operator, TEST_TYPE, is_paused=True, actor="ada", reason="test")
    set_definition_paused(operator, TEST_TYPE, is_paused=False, actor="ada", reason="test")
    upsert_job_schedule(operator, ScheduleRequest("nightly", cron="@daily", job_type=TEST_TYPE))
    delete_job_schedule(operator, "nightly")

    with pytest.raises(PermissionDenied):
        claim_jobs(operator, worker_id="w", job_types=[TEST_TYPE], limit=1, lease_ttl_seconds=60)


def test_the_migrator_migrates_and_grants_again_without_a_superuser(urls: Urls, connect: Connect) -> None:
    connect("migrator").execute(grants_as_sql("runledger", prefix=urls["prefix"]).encode())
    assert migrate(urls["migrator"]) == ()
    migrate(urls["migrator"], schema="a_third")
    owner = connect("admin").execute(
        "SELECT DISTINCT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner"
        " WHERE c.relnamespace = 'runledger'::regnamespace"
    )
    assert owner.fetchall() == [(f"{urls['prefix']}_migrator",)]


def test_rights_that_a_role_should_not_have_are_taken_away_by_the_next_run(urls: Urls, connect: Connect) -> None:
    admin = connect("admin")
    admin.execute(f"GRANT DELETE ON runledger.job_queue TO {urls['prefix']}_enqueuer".encode())
    admin.execute(grants_as_sql("runledger", prefix=urls["prefix"]).encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect("enqueuer").execute("DELETE FROM runledger.job_queue")


@pytest.mark.parametrize("prefix", ["", "Shop", "pg_shop", "shop; DROP ROLE x", "x" * 41])
def test_a_prefix_that_is_no_plain_identifier_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidConfiguration):
        grants_as_sql("runledger", prefix=prefix)


def test_a_role_without_any_right_is_refused(connect: Connect) -> None:
    with pytest.raises(ForbiddenError):
        reads.list_jobs(connect("nobody"), scope=ANY)
