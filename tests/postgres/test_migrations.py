"""Migrations: fresh, repeated, at once, behind, ahead, changed, blocked; and all or nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from postgres.observing import scalar, until

from runledger.core import errors
from runledger.core.jobs import Scope
from runledger.core.requests import JobRequest
from runledger.database import Database, ensure_schema_compatible, migrate, plan_migrations
from runledger.postgres.connection import borrow
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.migrations import bundled_migrations, check_server_version, pending_migrations
from runledger.postgres.operations import cancel_job
from runledger.postgres.reads import get_job, list_job_events
from runledger.postgres.settle import settle_jobs
from runledger.testing.databases import ephemeral_database
from runledger.testing.factories import a_definition, claim_one, dead_lettered, released, succeeded

REPOSITORY = Path(__file__).parents[2]
HISTORY = "runledger.runledger_migration_history"
VERSIONS = [migration.version for migration in bundled_migrations()]


@pytest.fixture
def empty_url(server_url):
    """A database without anything of ours."""
    with ephemeral_database(server_url) as url:
        yield url


@pytest.fixture
def migrated_url(server_url, database_template):
    """A migrated database for one test that spoils it."""
    with ephemeral_database(server_url, database_template) as url:
        yield url


@pytest.fixture
def checkout(tmp_path):
    """A copy of package and migrations, in which a test may change a file; ``run`` is the copy's ``migrate``."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(REPOSITORY / "runledger", copy / "runledger", ignore=ignored)
    shutil.copytree(REPOSITORY / "sql", copy / "sql")
    return copy


QUICK_MIGRATE = """
import sys
import runledger.database.migrate
from runledger.core.errors import RunledgerError
module = sys.modules["runledger.database.migrate"]
module.LOCK_TIMEOUT_MS, module.LOCK_TRIES, module.RETRY_PAUSE_SECONDS = 100, 50, 0.01
try:
    print("applied", *(migration.version for migration in module.migrate(sys.argv[1])))
except RunledgerError as error:
    print(error.code, error, error.hint)
"""


def start_migrate(checkout, url, script=QUICK_MIGRATE):
    return subprocess.Popen(
        [sys.executable, "-c", script, url],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin"},
        cwd=checkout,
    )


def output_of(process):
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    return output.strip()


def query(url, text):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def test_a_fresh_database_gets_every_migration_with_its_checksum(empty_url):
    applied = migrate(empty_url)

    assert [migration.version for migration in applied] == VERSIONS
    rows = query(empty_url, f"SELECT version, name, checksum FROM {HISTORY} ORDER BY version")
    assert rows == [(one.version, one.name, one.checksum) for one in bundled_migrations()]
    ensure_schema_compatible(empty_url)


def test_a_second_migrate_has_nothing_to_do(migrated_url):
    before = query(migrated_url, f"SELECT * FROM {HISTORY} ORDER BY version")

    assert migrate(migrated_url) == ()
    assert plan_migrations(migrated_url) == ()
    assert query(migrated_url, f"SELECT * FROM {HISTORY} ORDER BY version") == before


def test_the_plan_names_what_is_missing_and_writes_nothing(empty_url):
    assert [migration.version for migration in plan_migrations(empty_url)] == VERSIONS
    assert query(empty_url, "SELECT 1 FROM pg_namespace WHERE nspname = 'runledger'") == []


def test_two_migrators_at_once_apply_everything_once(empty_url, in_background):
    databases = [Database(empty_url) for _ in range(3)]
    running = [in_background(migrate, database) for database in databases]

    applied = [len(future.result(30)) for future in running]

    assert sorted(applied) == [0, 0, len(VERSIONS)]
    for database in databases:
        database.close()


def test_a_database_without_our_schema_is_told_to_migrate(empty_url):
    with pytest.raises(errors.SchemaMissing) as missing:
        ensure_schema_compatible(empty_url)

    assert (missing.value.code, "runledger migrate" in missing.value.hint) == ("schema.missing", True)
    assert query(empty_url, "SELECT 1 FROM pg_namespace WHERE nspname = 'runledger'") == []


def test_a_schema_that_is_behind_is_told_to_migrate(migrated_url):
    query(migrated_url, f"DELETE FROM {HISTORY} WHERE version = {VERSIONS[-1]}")

    with pytest.raises(errors.SchemaBehind, match=str(VERSIONS[-1])) as behind:
        ensure_schema_compatible(migrated_url)

    assert "runledger migrate" in behind.value.hint


def test_a_schema_that_is_ahead_is_left_alone(migrated_url):
    query(migrated_url, f"INSERT INTO {HISTORY} VALUES (209901010001, 'future', 'x', '9.9')")

    for ask in (ensure_schema_compatible, migrate, plan_migrations):
        with pytest.raises(errors.SchemaAhead, match="209901010001_future") as ahead:
            ask(migrated_url)
        assert "upgrade" in ahead.value.hint


def test_a_migration_with_another_text_is_refused(migrated_url):
    query(migrated_url, f"UPDATE {HISTORY} SET checksum = 'other' WHERE version = {VERSIONS[1]}")

    for ask in (ensure_schema_compatible, migrate, plan_migrations):
        with pytest.raises(errors.SchemaChanged, match=str(VERSIONS[1])):
            ask(migrated_url)


@pytest.mark.parametrize("change", ["DROP CONSTRAINT {0}", "DROP CONSTRAINT {0}, ADD CONSTRAINT {0} {1} NOT VALID"])
def test_a_constraint_that_is_missing_or_not_validated_is_found(migrated_url, change):
    constraint = "ck_job_queue_idempotency_enqueue_request"
    check = "CHECK (idempotency_key IS NULL OR enqueue_request IS NOT NULL)"
    query(migrated_url, f"ALTER TABLE runledger.job_queue {change.format(constraint, check)}")

    with pytest.raises(errors.ConstraintNotValidated, match=constraint) as found:
        ensure_schema_compatible(migrated_url)

    assert "VALIDATE" in found.value.hint


def test_one_failing_file_leaves_nothing_of_any(empty_url, checkout):
    (checkout / "sql" / "209901010001_broken.sql").write_text("CREATE TABLE fine (); SELECT 1 / 0;")

    output = output_of(start_migrate(checkout, empty_url))

    assert output.startswith("db.query_failed")
    assert query(empty_url, "SELECT nspname FROM pg_namespace WHERE nspname = 'runledger'") == []


def test_a_failing_file_leaves_the_migrations_before_it_as_they_were(migrated_url, checkout):
    (checkout / "sql" / "209901010001_good.sql").write_text("CREATE TABLE good ();")
    (checkout / "sql" / "209901010002_broken.sql").write_text("SELECT nonsense FROM nowhere;")

    output = output_of(start_migrate(checkout, migrated_url))

    assert output.startswith("schema.")
    assert query(migrated_url, "SELECT to_regclass('runledger.good')") == [(None,)]
    ensure_schema_compatible(migrated_url)


def test_a_later_release_applies_only_what_is_new_and_this_one_then_sees_it_is_ahead(migrated_url, checkout):
    (checkout / "sql" / "209901010001_more.sql").write_text("CREATE TABLE more (id integer);")

    assert output_of(start_migrate(checkout, migrated_url)) == "applied 209901010001"

    with pytest.raises(errors.SchemaAhead):
        ensure_schema_compatible(migrated_url)


def test_a_table_in_use_is_waited_for_in_short_turns(migrated_url, checkout):
    (checkout / "sql" / "209901010001_more.sql").write_text("ALTER TABLE job_queue ADD COLUMN more integer;")
    with psycopg.connect(migrated_url) as user, psycopg.connect(migrated_url, autocommit=True) as observer:
        user.execute("SELECT count(*) FROM runledger.job_queue")
        migrating = start_migrate(checkout, migrated_url)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        until(lambda: scalar(observer, waiting))
        until(lambda: not scalar(observer, waiting))  # it gave up for now, so that others get through
        user.rollback()

        assert output_of(migrating) == "applied 209901010001"


def test_a_table_that_stays_in_use_ends_in_an_error_with_nothing_changed(migrated_url, checkout):
    (checkout / "sql" / "209901010001_more.sql").write_text("ALTER TABLE job_queue ADD COLUMN more integer;")
    with psycopg.connect(migrated_url) as user:
        user.execute("SELECT count(*) FROM runledger.job_queue")

        output = output_of(start_migrate(checkout, migrated_url, QUICK_MIGRATE.replace("50, 0.01", "2, 0.01")))

    assert output.startswith("db.lock_not_available")
    ensure_schema_compatible(migrated_url)


def test_a_locked_history_is_not_waited_for_without_end(migrated_url, checkout):
    (checkout / "sql" / "209901010001_more.sql").write_text("CREATE TABLE more (id integer);")
    with psycopg.connect(migrated_url) as user:
        user.execute(f"LOCK TABLE {HISTORY} IN ACCESS EXCLUSIVE MODE")

        output = output_of(start_migrate(checkout, migrated_url, QUICK_MIGRATE.replace("50, 0.01", "2, 0.01")))

    assert output.startswith("db.lock_not_available")


def test_a_second_migrator_waits_for_the_first_to_commit(empty_url, in_background, server_url):
    database = Database(empty_url)
    with psycopg.connect(empty_url) as first, psycopg.connect(empty_url, autocommit=True) as observer:
        first.execute("SELECT pg_advisory_xact_lock(%s, hashtext('runledger'))", (0x72756E6C,))
        migrating = in_background(migrate, database)
        until(lambda: scalar(observer, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"))

        first.rollback()

        assert len(migrating.result(30)) == len(VERSIONS)
    database.close()
    assert query(empty_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 0") == [(0,)]


def test_another_schema_name_holds_a_ledger_of_its_own(migrated_url):
    migrate(migrated_url, schema="other_ledger")
    ensure_schema_compatible(migrated_url, schema="other_ledger")
    with psycopg.connect(migrated_url) as connection:
        ours, other = borrow(connection), borrow(connection, "other_ledger")
        a_definition(other, "mail.send", has_dead_letter_hook=True)
        a_definition(other, "mail.send.on_dead_letter")
        jobs = enqueue_jobs(other, [JobRequest("mail.send", {"n": n}) for n in range(1000)])
        enqueue_job(other, JobRequest("mail.send", idempotency_key="k"))
        enqueue_job(other, JobRequest("mail.send", idempotency_key="k"))
        for end in (succeeded, released, dead_lettered):
            assert settle_jobs(other, [end(claim_one(other, "mail.send"))])
        cancel_job(other, jobs[-1].job_id, scope=Scope.any())

        assert len(list_job_events(other, jobs[0].job_id, scope=Scope.any())) == 3
        with pytest.raises(errors.JobNotFound):
            get_job(ours, jobs[0].job_id, scope=Scope.any())
        assert scalar(connection, "SELECT count(*) FROM runledger.job_queue") == 0
        assert scalar(connection, "SELECT count(*) FROM other_ledger.job_queue") == 1002


@pytest.mark.parametrize("name", ["Upper", "pg_ours", "a-b", 'x"; DROP SCHEMA public; --', "", "a" * 64, "1a", "a b"])
def test_a_schema_name_outside_the_plain_alphabet_is_refused(database_url, name):
    with pytest.raises(errors.InvalidConfiguration):
        migrate(database_url, schema=name)


@pytest.mark.parametrize("version", [90600, 130022, 139999])
def test_a_server_that_is_too_old_is_refused(version):
    with pytest.raises(errors.UnsupportedServer) as refused:
        check_server_version(version)

    assert refused.value.code == "db.unsupported_version"
    assert str(version // 10000) in str(refused.value)


@pytest.mark.parametrize("version", [140000, 150020, 180006, 190000])
def test_a_server_that_is_new_enough_is_taken(version):
    check_server_version(version)


def test_what_is_pending_is_what_is_bundled_and_not_applied():
    bundled = bundled_migrations()
    applied = [(one.version, one.name, one.checksum) for one in bundled]

    assert pending_migrations(bundled, None) == pending_migrations(bundled, []) == bundled
    assert pending_migrations(bundled, applied[:2]) == bundled[2:]
    assert pending_migrations(bundled, applied) == ()


def test_a_role_without_rights_is_told_so(migrated_url, server_url):
    role = f"rl_nobody_{migrated_url.count('x')}_{abs(hash(migrated_url)) % 10**8}"
    query(server_url, f"CREATE ROLE {role}")
    try:
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}")
            with pytest.raises(errors.PermissionDenied) as denied:
                enqueue_job(connection, JobRequest("test.job"))
            assert denied.value.code == "db.permission_denied"
    finally:
        query(server_url, f"DROP ROLE {role}")


def test_a_settle_that_waits_for_a_locked_table_ends_with_the_callers_lock_timeout(migrated_url):
    with psycopg.connect(migrated_url) as user, psycopg.connect(migrated_url, autocommit=True) as caller:
        a_definition(caller)
        user.execute("LOCK TABLE runledger.job_queue IN ACCESS EXCLUSIVE MODE")
        caller.execute("SET lock_timeout = '50ms'")

        with pytest.raises(errors.LockNotAvailable) as refused:
            enqueue_job(caller, JobRequest("test.job"))

    assert refused.value.code == "db.lock_not_available"
