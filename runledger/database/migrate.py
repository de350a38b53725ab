"""Apply the migrations: one migrator at a time, all or nothing, never waiting long for a table that is in use."""

import time
from importlib import metadata

import psycopg
from psycopg import sql

from runledger.core.errors import LockNotAvailable
from runledger.database.database import Database
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.migrations import (
    LOCK_MIGRATIONS,
    Migration,
    applied_migrations,
    bundled_migrations,
    check_schema,
    pending_migrations,
    record_migration,
)
from runledger.postgres.violations import error_for

LOCK_TIMEOUT_MS = 2_000
LOCK_TRIES = 10
RETRY_PAUSE_SECONDS = 0.5

_HISTORY = """
CREATE TABLE IF NOT EXISTS runledger_migration_history (
    version bigint PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    package_version text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


def migrate(database: Database | str, *, schema: str | None = None) -> tuple[Migration, ...]:
    """The schema is up to date; the answer names the migrations that this call applied, in order.

    All of them commit together or none does. A second migrator waits for the first and finds nothing to do. A table
    in use is waited for two seconds at a time, ten times, so that a queue of waiters never builds up behind us.

    Raises SchemaAhead, SchemaChanged, UnsupportedServer, PermissionDenied, DatabaseUnavailable or LockNotAvailable.
    """
    target = Database(database, schema=schema) if isinstance(database, str) else database
    try:
        for remaining in reversed(range(LOCK_TRIES)):
            try:
                return _migrate_once(target)
            except LockNotAvailable:
                if not remaining:
                    raise
                time.sleep(RETRY_PAUSE_SECONDS)
        raise AssertionError("unreachable: the last try returns or raises")
    finally:
        if isinstance(database, str):
            target.close()


def _migrate_once(database: Database) -> tuple[Migration, ...]:
    with database.begin() as ledger:
        assert isinstance(ledger, PsycopgConnection)
        try:
            _set_lock_timeout(ledger, LOCK_TIMEOUT_MS)
            applied = applied_migrations(ledger)
            if applied is not None and not pending_migrations(bundled_migrations(), applied):
                return ()
            _set_lock_timeout(ledger, 0)  # another migrator is waited for as long as it takes
            ledger.fetch(LOCK_MIGRATIONS, {"schema": ledger.schema})
            _set_lock_timeout(ledger, LOCK_TIMEOUT_MS)
            return _apply_pending(ledger)
        except psycopg.Error as error:
            raise error_for(error) from None


def _set_lock_timeout(ledger: PsycopgConnection, milliseconds: int) -> None:
    ledger.driver.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(milliseconds)))


def _apply_pending(ledger: PsycopgConnection) -> tuple[Migration, ...]:
    schema = sql.Identifier(ledger.schema)
    run = ledger.driver.execute
    run("SET LOCAL statement_timeout = 0")
    run("SET LOCAL client_min_messages = warning")
    run(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    run(sql.SQL("SET LOCAL search_path = {}").format(schema))
    run(_HISTORY)
    pending = pending_migrations(bundled_migrations(), applied_migrations(ledger))
    for migration in pending:
        run(migration.sql.encode(), prepare=False)
        record_migration(ledger, migration, package_version())
    return pending


def plan_migrations(database: Database | str, *, schema: str | None = None) -> tuple[Migration, ...]:
    """The migrations that ``migrate`` would apply now; nothing is written."""
    target = Database(database, schema=schema) if isinstance(database, str) else database
    try:
        with target.autocommit() as ledger:
            return pending_migrations(bundled_migrations(), applied_migrations(ledger))
    finally:
        if isinstance(database, str):
            target.close()


def migrations_as_sql(schema: str, migrations: tuple[Migration, ...]) -> str:
    """One script that does what ``migrate`` does for ``migrations``, for teams that apply DDL by other means."""
    records = "\n".join(
        "INSERT INTO runledger_migration_history (version, name, checksum, package_version) "  # noqa: S608 - all ours
        f"VALUES ({one.version}, '{one.name}', '{one.checksum}', '{package_version()}');"
        for one in migrations
    )
    return "\n".join(
        [
            "BEGIN;",
            f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};",
            f"CREATE SCHEMA IF NOT EXISTS {schema};",
            f"SET LOCAL search_path = {schema};",
            _HISTORY.strip() + ";",
            *(f"\n-- {one.version}_{one.name}\n{one.sql.strip()}" for one in migrations),
            "",
            records,
            "COMMIT;",
        ]
    )


def ensure_schema_compatible(database: Database | str, *, schema: str | None = None) -> None:
    """The schema is what this package needs. Reads only.

    Raises SchemaMissing, SchemaBehind, SchemaAhead, SchemaChanged, ConstraintNotValidated or UnsupportedServer.
    """
    target = Database(database, schema=schema) if isinstance(database, str) else database
    try:
        with target.autocommit() as ledger:
            check_schema(ledger)
    finally:
        if isinstance(database, str):
            target.close()


def package_version() -> str:
    """The version of the installed distribution, or ``0+checkout`` when it is not installed."""
    try:
        return metadata.version("runledger-pg")
    except metadata.PackageNotFoundError:
        return "0+checkout"
