"""The check-up: silent on a healthy system, and each check speaks up when what it looks for is broken."""

import time
from collections.abc import Callable, Iterator
from importlib import metadata

import psycopg
import pytest
from postgres.observing import Connection

from runledger.core.checkups import CheckResult, CheckStatus
from runledger.core.errors import DatabaseUnavailable, InvalidRequest
from runledger.core.jobs import Scope
from runledger.core.schedules import ScheduleRequest
from runledger.core.workers import WorkerAnnouncement, WorkerHost, WorkerState
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import EnqueuedWorkflowRun
from runledger.database import doctor
from runledger.database.doctor import CHECKS, run_doctor
from runledger.postgres.checks.check import sql_check
from runledger.postgres.checks.storage import OLD_TRANSACTIONS
from runledger.postgres.operations import cancel_job, requeue_job
from runledger.postgres.schedules import upsert_job_schedule
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workers import announce_workers
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing import databases
from runledger.testing.factories import (
    TEST_TYPE,
    a_definition,
    a_job,
    a_leased_job,
    claim_one,
    continued,
    dead_lettered,
    expired,
    failed,
    make_due,
    released,
    snoozed,
    succeeded,
)

Break = Callable[[Connection], object]


@pytest.fixture
def own_url(server_url: str, database_template: str) -> Iterator[str]:
    """A database for one test alone, whose sessions end forgotten transactions."""
    with databases.ephemeral_database(server_url, database_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            for setting in ("idle_in_transaction_session_timeout = 600000", "synchronous_commit = on"):
                connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
        yield url


@pytest.fixture
def ledger(own_url: str) -> Iterator[Connection]:
    with psycopg.connect(own_url, autocommit=True) as connection:
        yield connection


def checked(url: str, name: str) -> CheckResult:
    [result] = run_doctor(url, names=[name]).results
    return result


def _a_busy_ledger(connection: Connection) -> None:
    """Jobs in every situation, by the functions that production uses."""
    a_definition(connection, "step")
    announce_workers(
        connection,
        WorkerHost("host-a", "box", "app:catalog", "0", None),
        [WorkerAnnouncement("host-a.0.1", 1, WorkerState.BUSY, None, 1.0, None, 0, None)],
        ttl_seconds=60,
    )
    for end in (succeeded, failed, dead_lettered, snoozed, continued, released, expired):
        settle_jobs(connection, [end(a_leased_job(connection, end.__name__))])
    retried = a_leased_job(connection, "retried")
    settle_jobs(connection, [failed(retried)])
    make_due(connection, retried)
    settle_jobs(connection, [succeeded(claim_one(connection, "retried"))])
    again = a_leased_job(connection, "again")
    settle_jobs(connection, [dead_lettered(again)])
    requeue_job(connection, again.job_id, scope=Scope.any())
    waiting, running = a_job(connection, "cancelled"), a_leased_job(connection, "cancelled while it runs")
    for job in (waiting, running):
        cancel_job(connection, job.job_id, scope=Scope.any())
    a_leased_job(connection, "running")
    a_job(connection, "later", delay=3_600)
    upsert_job_schedule(connection, ScheduleRequest(name="nightly", cron="0 3 * * *", job_type="later"))
    for end in (succeeded, dead_lettered):
        _a_run(connection)
        with connection.transaction():
            settle_jobs(connection, [end(claim_one(connection, "step"))])
    run = _a_run(connection)
    with connection.transaction():
        cancel_workflow_run(connection, run_id=run.run_id)


def _a_run(connection: Connection) -> EnqueuedWorkflowRun:
    a_definition(connection, "step")
    builder = WorkflowDagBuilder("test").job("a", "step").job("b", "step").external("gate")
    with connection.transaction():
        return enqueue_workflow_run(connection, builder.after_success("b", ["a"]).after_terminal("gate", ["a"]).build())


def sql(statement: str) -> Break:
    return lambda connection: connection.execute(statement.encode())


def after(prepare: Break, statement: str) -> Break:
    def run(connection: Connection) -> None:
        prepare(connection)
        connection.execute(statement.encode())

    return run


def _succeed(connection: Connection) -> None:
    settle_jobs(connection, [succeeded(a_leased_job(connection))])


def _fail_twice(connection: Connection) -> None:
    for _ in range(2):
        job = claim_one(connection) if connection.execute("SELECT 1 FROM runledger.job_queue").fetchone() else None
        job = job or a_leased_job(connection)
        settle_jobs(connection, [failed(job)])
        make_due(connection, job)


def _set_database(setting: str) -> Break:
    return lambda connection: connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET {setting}'.encode())


def _paused(connection: Connection) -> None:
    a_job(connection)
    connection.execute("UPDATE runledger.job_definitions SET is_paused = true, changed_by = 'ada'")


def _scheduled(connection: Connection) -> None:
    a_definition(connection)
    upsert_job_schedule(connection, ScheduleRequest(name="nightly", cron="0 3 * * *", job_type=TEST_TYPE))


BROKEN: dict[str, Break] = {
    "schema": sql("DELETE FROM runledger.runledger_migration_history WHERE version = 202611220004"),
    "synchronous-commit": _set_database("synchronous_commit = off"),
    "isolation-default": _set_database("default_transaction_isolation = 'repeatable read'"),
    "idle-in-transaction-timeout": _set_database("idle_in_transaction_session_timeout = 0"),
    "table-settings": sql("ALTER TABLE runledger.job_ready SET (autovacuum_enabled = false)"),
    "indexes-present": sql("DROP INDEX runledger.idx_job_ready_claim"),
    "indexes-valid": sql(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'runledger.idx_job_ready_claim'::regclass"
    ),
    "constraints-validated": sql("ALTER TABLE runledger.job_workers ADD CONSTRAINT later CHECK (pid > 0) NOT VALID"),
    "sequences": sql("SELECT setval('runledger.lease_token', 9223372036854775000)"),
    "lease-tokens-grow": after(_fail_twice, "ALTER SEQUENCE runledger.lease_token RESTART"),
    "lapsed-leases": after(
        a_leased_job, "UPDATE runledger.job_leases SET lease_expires_at = clock_timestamp() - interval '2 minutes'"
    ),
    "due-jobs-promoted": after(
        lambda connection: a_job(connection, delay=60),
        "UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp() - interval '2 minutes'",
    ),
    "schedules-fire": after(
        _scheduled, "UPDATE runledger.job_schedules SET next_fire_at = clock_timestamp() - interval '6 minutes'"
    ),
    "ready-types-defined": after(a_job, "DELETE FROM runledger.job_definitions"),
    "ready-types-served": after(
        a_job, "UPDATE runledger.job_ready SET next_run_at = clock_timestamp() - interval '2 minutes'"
    ),
    "paused-types": _paused,
    "lost-workers": after(
        _a_busy_ledger, "UPDATE runledger.job_workers SET expires_at = clock_timestamp() - interval '1 second'"
    ),
    "job-in-one-place": after(a_job, "DELETE FROM runledger.job_ready"),
    "run-succeeds-once": after(
        _succeed,
        "INSERT INTO runledger.job_attempts (job_id, lease_token, run_number, attempt, leased_at, finished_at, outcome,"
        " worker_id) SELECT job_id, lease_token + 1, run_number, attempt + 1, finished_at, finished_at, outcome, "
        "worker_id FROM runledger.job_attempts",
    ),
    "success-has-attempt": after(_succeed, "DELETE FROM runledger.job_attempts"),
    "attempt-has-success": after(_succeed, "UPDATE runledger.job_queue SET final_status = 'CANCELED'"),
    "attempts-without-gaps": after(_fail_twice, "DELETE FROM runledger.job_attempts WHERE attempt = 1"),
    "record-counts-attempts": after(_succeed, "UPDATE runledger.job_queue SET attempt = 2"),
    "attempts-within-budget": after(_succeed, "UPDATE runledger.job_queue SET max_attempts = 1, attempt = 2"),
    "attempts-do-not-overlap": after(
        _fail_twice, "UPDATE runledger.job_attempts SET leased_at = leased_at - interval '1 hour' WHERE attempt = 2"
    ),
    "step-counts-its-edges": after(_a_run, "UPDATE runledger.workflow_steps SET dependency_count_total = 9"),
    "run-counts-its-steps": after(_a_run, "UPDATE runledger.workflow_runs SET step_count = 9"),
    "run-ends-with-its-steps": after(
        _a_run, "UPDATE runledger.workflow_runs SET status = 'SUCCEEDED', finished_at = now()"
    ),
    "no-step-forgotten": after(_a_run, "UPDATE runledger.workflow_steps SET dependency_count_pending = 0"),
    "step-agrees-with-job": after(_a_run, "UPDATE runledger.workflow_steps SET status = 'FAILED' WHERE step_key = 'a'"),
    "released-in-order": after(
        _a_run, "UPDATE runledger.workflow_steps SET released_at = now() - interval '1 day' WHERE step_key <> 'a'"
    ),
    "edges-stay-inside": after(
        lambda connection: (_a_run(connection), _a_run(connection)),
        "INSERT INTO runledger.workflow_step_dependencies (workflow_run_id, prerequisite_step_id, dependent_step_id)"
        " SELECT a.workflow_run_id, a.id, b.id FROM runledger.workflow_steps a JOIN runledger.workflow_steps b"
        " ON a.workflow_run_id <> b.workflow_run_id LIMIT 1",
    ),
    "cancelled-run-is-quiet": after(
        _a_run, "UPDATE runledger.workflow_runs SET status = 'CANCELED', finished_at = now()"
    ),
    "released-step-has-job": after(_a_run, "UPDATE runledger.workflow_steps SET job_id = NULL WHERE step_key = 'a'"),
}
BROKEN_ELSEWHERE = {
    "clock": "test_a_clock_that_is_off_is_found",
    "module-owner": "test_another_distribution_of_our_name_is_found",
    "disk": "test_a_full_disk_is_found",
    "oldest-snapshot": "test_a_forgotten_transaction_is_found",
    "pooler": "tests/runtime/test_pooler.py shows how it is recognised",
    "autovacuum": "tests/postgres/test_doctor_server.py",
    "replication-slots": "tests/postgres/test_doctor_server.py",
    "prepared-transactions": "tests/postgres/test_doctor_server.py",
    "dead-rows": "tests/postgres/test_doctor_server.py",
    "bloat": "not broken by a test: needs a table of 64 MB",
    "transaction-ids": "not broken by a test: needs a billion transactions",
}


def test_a_busy_and_healthy_ledger_gives_no_finding(own_url: str, ledger: Connection) -> None:
    _a_busy_ledger(ledger)

    report = run_doctor(own_url)

    assert [one for one in report.results if one.status is not CheckStatus.PASSED] == []
    assert report.is_healthy
    assert len(report.results) == len(CHECKS)


def test_every_check_is_broken_by_some_test_or_said_not_to_be() -> None:
    assert {one.name for one in CHECKS} == BROKEN.keys() | BROKEN_ELSEWHERE.keys()
    assert len({one.name for one in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_check_reports_what_is_broken(own_url: str, ledger: Connection, name: str) -> None:
    assert checked(own_url, name).status is CheckStatus.PASSED
    BROKEN[name](ledger)

    found = checked(own_url, name)

    is_advice = next(one.is_advice for one in CHECKS if one.name == name)
    assert found.status is (CheckStatus.ADVICE if is_advice else CheckStatus.FOUND)
    assert found.findings
    assert found.fix


def test_a_clock_that_is_off_is_found(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() + 3_600)

    assert "3600" in checked(own_url, "clock").findings[0]


def test_another_distribution_of_our_name_is_found(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"runledger": ["runledger-pg", "runledger"]})

    assert "distribution 'runledger'" in checked(own_url, "module-owner").findings[0]


def test_a_full_disk_is_found(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_blocks = 1, 100

    monkeypatch.setattr(doctor.os.path, "isdir", lambda _path: True)
    monkeypatch.setattr(doctor.os, "statvfs", lambda _path: Full)

    assert "1% of the disk" in checked(own_url, "disk").findings[0]


def test_a_forgotten_transaction_is_found(own_url: str) -> None:
    """A transaction is as old as the server says, so the check is asked for moments instead of minutes."""
    impatient = sql_check("impatient", "", "", OLD_TRANSACTIONS.replace("10 minutes", "0 seconds"))
    with psycopg.connect(own_url, application_name="a forgetful one") as other:
        other.execute("SELECT 1 FROM runledger.job_queue")
        [result] = run_doctor(own_url, checks=[impatient]).results

    assert "a forgetful one" in result.findings[0]


def test_a_check_that_takes_too_long_is_reported_so_and_is_no_all_clear(own_url: str) -> None:
    slow = sql_check("slow", "it is quick", "wait", "SELECT pg_sleep(60)::text")

    report = run_doctor(own_url, checks=[slow], timeout_seconds=0.05)

    assert [one.status for one in report.results] == [CheckStatus.TIMED_OUT]
    assert not report.is_healthy


def test_a_check_that_the_role_may_not_make_is_reported_as_failed(own_url: str) -> None:
    odd = sql_check("odd", "it works", "mend it", "SELECT nonsense FROM runledger.job_queue")

    report = run_doctor(own_url, checks=[odd])

    assert [one.status for one in report.results] == [CheckStatus.FAILED]
    assert not report.is_healthy


def test_a_finding_names_a_few_cases_and_counts_them_all(own_url: str) -> None:
    many = sql_check("many", "", "", "SELECT format('case %s', n) FROM generate_series(1, 1200) n")

    [result] = run_doctor(own_url, checks=[many]).results

    assert len(result.findings) == 6
    assert result.findings[-1] == "1,200 in all"


def test_nothing_is_written(own_url: str) -> None:
    writing = sql_check("writing", "", "", "SELECT nextval('runledger.lease_token')::text")

    [result] = run_doctor(own_url, checks=[writing]).results

    assert result.status is CheckStatus.FAILED


def test_a_name_that_is_no_check_and_a_database_that_is_away_raise(own_url: str) -> None:
    with pytest.raises(InvalidRequest):
        run_doctor(own_url, names=["nope"])
    with pytest.raises(DatabaseUnavailable):
        run_doctor("postgresql://nobody@/none?host=/nonexistent")
