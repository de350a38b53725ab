"""What the database refuses becomes one of our errors; and no text of ours repeats a value or a password."""

import traceback
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo

from runledger.core import errors
from runledger.core.requests import JobRequest
from runledger.database import Database, ensure_schema_compatible, migrate
from runledger.database.settings import connection_info, target_of
from runledger.postgres.connection import borrow
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.statements import Statement
from runledger.postgres.violations import error_for
from runledger.testing.factories import a_definition, a_job

SECRET = "s3cr3t-planted-value"
COLUMNS = "(job_type, priority, max_attempts, timeout_seconds"
KEYED = f"INSERT INTO runledger.job_queue {COLUMNS}, organization_id, idempotency_key, enqueue_request) VALUES"
LEASE = (
    "INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority,"
    " run_number, attempt, job_type, worker_id, progress_done, progress_total) VALUES"
    " (gen_random_uuid(), 1, now(), now(), now(), 0, 1, 1, 't', 'w', 2, 1)"
)
CONFIG = "INSERT INTO runledger.job_runtime_configs (job_type, schema_version, config) VALUES ('nobody', 1, '{}')"
SCHEDULE = (
    "INSERT INTO runledger.job_schedules (name, job_type, cron_expr, next_slot_at, next_fire_at)"
    " VALUES ('s', 'nobody', '* * * * *', now(), now())"
)
SLOT = (
    f"INSERT INTO runledger.job_queue {COLUMNS}, schedule_id, scheduled_for)"
    " SELECT 't', 0, 1, 1, '00000000-0000-0000-0000-000000000001', '2030-01-01' FROM generate_series(1, 2)"
)
REFUSALS = {
    "key of an organization": (
        f"{KEYED} ('t', 0, 1, 1, '{uuid4()}', 'k', '{{}}'), " + "('t', 0, 1, 1, NULL, 'k', '{}'), "
        "('t', 0, 1, 1, NULL, 'k', '{}')",
        errors.AlreadyEnqueued,
    ),
    "slot": (SLOT, errors.AlreadyEnqueued),
    "snapshot": (f"{KEYED} ('t', 0, 1, 1, NULL, 'k', NULL)", errors.RequestSnapshotMissing),
    "progress": (LEASE, errors.InvalidProgress),
    "config": (CONFIG, errors.DefinitionNotFound),
    "schedule": (SCHEDULE, errors.DefinitionNotFound),
    "other unique": ("INSERT INTO runledger.job_listeners VALUES ('h', now()), ('h', now())", errors.UniqueViolation),
    "check": (f"INSERT INTO runledger.job_queue {COLUMNS}) VALUES ('t', 0, 0, 1)", errors.BusinessRuleViolation),
    "not null": (f"INSERT INTO runledger.job_queue {COLUMNS}) VALUES (NULL, 0, 1, 1)", errors.RequiredFieldMissing),
    "foreign key": (
        "INSERT INTO runledger.workflow_step_dependencies VALUES (gen_random_uuid(), gen_random_uuid(),"
        " gen_random_uuid())",
        errors.RelatedResourceMissing,
    ),
    "table": ("SELECT * FROM runledger.nowhere", errors.SchemaMissing),
    "schema": ("SELECT 'x'::nowhere.job_status", errors.SchemaMissing),
    "column": ("SELECT nothing FROM runledger.job_queue", errors.SchemaBehind),
    "function": ("SELECT runledger.nothing()", errors.SchemaBehind),
    "type": ("SELECT 'x'::runledger.nothing", errors.SchemaBehind),
    "anything else": ("SELECT 1 / 0", errors.QueryFailed),
}


@pytest.mark.parametrize(("query", "error"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_has_its_error(connection, query, error):
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(query)

    translated = error_for(refused.value)

    assert type(translated) is error
    assert refused.value.sqlstate in translated.internal_message
    assert "= " not in translated.internal_message


@pytest.mark.parametrize(
    ("original", "error"),
    [
        (pg.lookup("55P03"), errors.LockNotAvailable),
        (pg.lookup("40001"), errors.SerializationFailure),
        (pg.lookup("40P01"), errors.SerializationFailure),
        (pg.lookup("25P02"), errors.TransactionAborted),
        (pg.lookup("42501"), errors.PermissionDenied),
        (pg.lookup("23001"), errors.RelatedResourceStillReferenced),
        (pg.lookup("25006"), errors.DatabaseUnavailable),
        (pg.lookup("53300"), errors.DatabaseUnavailable),
        (pg.lookup("57P01"), errors.DatabaseUnavailable),
        (pg.lookup("57P03"), errors.DatabaseUnavailable),
        (pg.lookup("08006"), errors.DatabaseUnavailable),
        (pg.lookup("25P03"), errors.DatabaseUnavailable),
        (pg.lookup("28P01"), errors.DatabaseUnavailable),
        (psycopg.OperationalError, errors.DatabaseUnavailable),
        (psycopg.InterfaceError, errors.DatabaseUnavailable),
        (psycopg.InternalError, errors.DatabaseUnavailable),
        (psycopg.DataError, errors.QueryFailed),
        (ValueError, errors.QueryFailed),
    ],
)
def test_each_sqlstate_has_its_error(original, error):
    assert type(error_for(original(SECRET))) is error


def test_an_aborted_transaction_is_named(connection, connect):
    caller = connect(autocommit=False)
    with pytest.raises(psycopg.Error):
        caller.execute("SELECT 1 / 0")

    with pytest.raises(errors.TransactionAborted) as aborted:
        enqueue_job(caller, JobRequest("test.job"))

    assert aborted.value.code == "db.transaction_aborted"


def test_a_connection_that_was_ended_is_unavailable(connection, connect):
    caller = connect()
    connection.execute("SELECT pg_terminate_backend(%s)", (caller.info.backend_pid,))

    with pytest.raises(errors.DatabaseUnavailable):
        enqueue_job(caller, JobRequest("test.job"))
    with pytest.raises(errors.DatabaseUnavailable):
        enqueue_job(caller, JobRequest("test.job"))


def assert_secret_is_nowhere(error):
    shown = [str(error), repr(error), "".join(traceback.format_exception(error)), str(error.internal_message)]
    assert not [text for text in shown if SECRET in text]


def test_a_refused_row_is_never_shown(connection):
    a_definition(connection)
    connection.execute(
        "ALTER TABLE runledger.job_queue ADD CONSTRAINT ck_planted CHECK (payload ->> 'card' IS NULL) NOT VALID"
    )
    try:
        with pytest.raises(errors.BusinessRuleViolation) as refused:
            enqueue_job(connection, JobRequest("test.job", {"card": SECRET}))
    finally:
        connection.execute("ALTER TABLE runledger.job_queue DROP CONSTRAINT ck_planted")

    assert "ck_planted" in refused.value.internal_message
    assert_secret_is_nowhere(refused.value)


def test_an_idempotency_conflict_shows_values_only_where_they_are_asked_for(connection):
    a_job(connection, payload={"card": SECRET}, idempotency_key="k")

    with pytest.raises(errors.IdempotencyConflict) as conflict:
        a_job(connection, payload={"card": "other"}, idempotency_key="k")

    assert_secret_is_nowhere(conflict.value)
    assert SECRET in conflict.value.differences[0].stored


def test_a_lock_that_is_not_granted_shows_no_parameter_of_sqlalchemy(connection, connect, database_url):
    from sqlalchemy import create_engine

    a_definition(connection)
    holder = connect(autocommit=False)
    holder.execute("LOCK TABLE runledger.job_queue")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url))
    with engine.connect() as core:
        core.exec_driver_sql("SET lock_timeout = '20ms'")
        with pytest.raises(errors.LockNotAvailable) as refused:
            enqueue_job(core, JobRequest("test.job", {"card": SECRET}))
    engine.dispose()

    assert_secret_is_nowhere(refused.value)


URLS = [
    f"postgresql://ada:{SECRET}@127.0.0.1:1/nowhere",
    f"postgresql://ada:{SECRET}@127.0.0.1:0/nowhere",
    f"postgresql://ada:{SECRET}@127.0.0.1:port/nowhere",
    f"postgresql://ada:{SECRET}@[::1/nowhere",
    f"postgresql://ada:{SECRET}@h/db?nonsense={SECRET}",
    f"mysql://ada:{SECRET}@h/db",
    f"postgresql+psycopg://ada:{SECRET}@127.0.0.1:1/nowhere",
    f"host=127.0.0.1 port=1 user=ada password={SECRET} dbname=nowhere",
    f"host=127.0.0.1 port=1 password={SECRET} nonsense",
    f"postgresql://ada:{SECRET}@127.0.0.1:1/nowhere\n",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("use", [migrate, ensure_schema_compatible], ids=lambda use: use.__name__)
def test_no_text_about_a_database_url_repeats_its_password(url, use):
    with pytest.raises(errors.RunledgerError) as refused:
        use(url)

    assert refused.value.code in ("db.unavailable", "db.invalid_url")
    assert_secret_is_nowhere(refused.value)
    assert SECRET not in target_of(url)


def test_a_wrong_password_is_unavailable_and_not_shown(database_url):
    with pytest.raises(errors.RunledgerError) as refused:
        migrate(make_conninfo(database_url, user="rl_nobody_here", password=SECRET))

    assert_secret_is_nowhere(refused.value)


def test_a_database_that_is_not_there_is_unavailable(database_url):
    database = Database(make_conninfo(database_url, dbname="rl_no_such_database"))

    with pytest.raises(errors.DatabaseUnavailable), database.begin():
        raise AssertionError("a transaction began")


def test_every_url_names_its_target_and_our_defaults():
    assert target_of("postgresql://ada:x@db.example:5433/app") == "db.example:5433/app"
    assert target_of("postgresql:///app?host=/tmp/socket") == "local socket/app"
    assert "application_name=mine" in connection_info("postgresql:///app?application_name=mine", "runledger")
    assert "connect_timeout=10" in connection_info("postgresql:///app", "runledger")


def test_a_transaction_block_of_our_own_commits_or_rolls_back(connection, database_url):
    a_definition(connection)
    database = Database(database_url)
    with database.begin() as ledger:
        enqueue_job(ledger, JobRequest("test.job"))
    with pytest.raises(ZeroDivisionError), database.begin() as ledger:
        enqueue_job(ledger, JobRequest("test.job"))
        raise ZeroDivisionError
    with pytest.raises(errors.QueryFailed), database.begin() as ledger:
        ledger.driver.execute("SELECT 1 / 0")
    database.close()
    database.close()

    assert connection.execute("SELECT count(*) FROM runledger.job_queue").fetchone() == (1,)


def test_what_is_no_connection_is_refused():
    with pytest.raises(errors.InvalidConfiguration, match="object"):
        borrow(object())


def test_a_statement_that_hides_a_value_is_refused():
    from sqlalchemy import literal, select

    with pytest.raises(AssertionError, match="hides values"):
        Statement("hiding", select(literal("x"))).text("runledger")
