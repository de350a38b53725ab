"""Apply the migrations: one migrator at a time, all or nothing, never waiting long for a table that is in use."""

import time
from collections.abc import Callable
from importlib import metadata

import psycopg
from psycopg import sql

from runledger.core.errors import LockNotAvailable
from runledger.database.database import Database, allow_seconds
from runledger.postgres.connection import LedgerConnection, PsycopgConnection
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

TRANSACTION_SETTINGS = ("lock_timeout", "statement_timeout", "client_min_messages", "search_path")
"""What a migration changes until the end of its transaction."""

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
        allow_seconds(ledger, None)  # a migration may take long, and another migrator is waited for
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
    def run(script: str) -> None:
        ledger.driver.execute(script.encode(), prepare=False)

    _open_schema(ledger.schema, run)
    pending = pending_migrations(bundled_migrations(), applied_migrations(ledger))
    for migration in pending:
        run(migration.sql)
        record_migration(ledger, migration, package_version())
    return pending


def apply_migration(ledger: LedgerConnection, migration: Migration, run: Callable[[str], object]) -> bool:
    """``migration`` is applied once the caller's transaction commits; False when the database had it already.

    For frameworks that migrate in transactions of their own: ``run`` executes a script on the same connection. Changes
    ``TRANSACTION_SETTINGS`` until the transaction ends. Another migrator is waited for, a table in use two seconds.
    Raises as ``migrate`` does.
    """
    run("SET LOCAL lock_timeout = 0")
    ledger.fetch(LOCK_MIGRATIONS, {"schema": ledger.schema})
    if migration not in pending_migrations(bundled_migrations(), applied_migrations(ledger)):
        return False
    run(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    _open_schema(ledger.schema, run)
    run(migration.sql)
    record_migration(ledger, migration, package_version())
    return True


def _open_schema(schema: str, run: Callable[[str], object]) -> None:
    """Schema and history exist, and what follows in the transaction works in that schema."""
    run("SET LOCAL statement_timeout = 0")
    run("SET LOCAL client_min_messages = warning")
    run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    run(f"SET LOCAL search_path = {schema}")
    run(_HISTORY)


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
