"""The migrations in ``sql/``, the history of what was applied, and the questions asked of both.

A migration is known by version, name and checksum. The history says what a database has; comparing the two gives
the plan. Who applies it, and in which transaction, is ``runledger.database.migrate``'s business.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sqlalchemy import Boolean, Integer, Text, column, func, insert, literal_column, select, table
from sqlalchemy.types import BigInteger

from runledger.core import errors
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import CLOCK, constant, parameter
from runledger.postgres.statements import Statement
from runledger.postgres.tables import runledger_migration_history

OLDEST_SERVER = 140000
MIGRATION_LOCK = 0x72756E6C
MIGRATE_HINT = "run `runledger migrate` (Django: `manage.py migrate`)"
"""The key of the advisory lock that one migrator at a time holds; spells ``runl``."""

RELIED_ON_CONSTRAINTS = ("ck_job_queue_idempotency_enqueue_request", "ck_workflow_runs_idempotency_enqueue_request")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``sql/``. The checksum is SHA-256 of its text with Unix line ends."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def bundled_migrations() -> tuple[Migration, ...]:
    """The migrations of this package in their order: from the wheel, or from ``sql/`` beside it in a checkout."""
    files = [file for file in _folder().iterdir() if file.name.endswith(".sql")]
    return tuple(sorted((_read(file) for file in files), key=lambda migration: migration.version))


def _folder() -> Traversable:
    installed = resources.files("runledger") / "sql"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "sql"


def _read(file: Traversable) -> Migration:
    version, _, name = file.name.removesuffix(".sql").partition("_")
    return Migration(int(version), name, file.read_text(encoding="utf-8").replace("\r\n", "\n"))


SELECT_SERVER = Statement(
    "select_server",
    select(
        func.current_setting(constant("server_version_num")).cast(Integer),
        func.to_regclass(parameter("history", Text)).is_not(None).cast(Boolean),
    ),
)
SELECT_HISTORY = Statement(
    "select_migration_history",
    select(
        runledger_migration_history.c.version,
        runledger_migration_history.c.name,
        runledger_migration_history.c.checksum,
    ).order_by(runledger_migration_history.c.version),
)
RECORD_MIGRATION = Statement(
    "record_migration",
    insert(runledger_migration_history).values(
        version=parameter("version", BigInteger),
        name=parameter("name", Text),
        checksum=parameter("checksum", Text),
        package_version=parameter("package_version", Text),
        applied_at=CLOCK,
    ),
)
LOCK_MIGRATIONS = Statement(
    "lock_migrations",
    select(func.pg_advisory_xact_lock(literal_column(str(MIGRATION_LOCK)), func.hashtext(parameter("schema", Text)))),
)
_constraints = table(
    "pg_constraint", column("conname"), column("convalidated"), column("connamespace"), schema="pg_catalog"
)
SELECT_VALIDATED = Statement(
    "select_validated_constraints",
    select(_constraints.c.conname)
    .where(_constraints.c.convalidated)
    .where(_constraints.c.connamespace == func.to_regnamespace(parameter("schema", Text))),
)


def check_server_version(version: int) -> None:
    """``version`` (as in ``server_version_num``) is one we support. Raises UnsupportedServer below PostgreSQL 14."""
    if version < OLDEST_SERVER:
        raise errors.UnsupportedServer(
            f"PostgreSQL {version // 10000} is too old; Runledger needs PostgreSQL 14 or newer"
        )


def applied_migrations(connection: AnyConnection) -> list[tuple[int, str, str]] | None:
    """Version, name and checksum of each applied migration; None when the schema has no history at all.

    Raises UnsupportedServer below PostgreSQL 14. Reads only.
    """
    ledger = borrow(connection)
    [(version, has_history)] = ledger.fetch(
        SELECT_SERVER, {"history": f"{ledger.schema}.{runledger_migration_history.name}"}
    )
    check_server_version(version)
    return [(row[0], row[1], row[2]) for row in ledger.fetch(SELECT_HISTORY)] if has_history else None


def pending_migrations(
    bundled: Sequence[Migration], applied: Sequence[tuple[int, str, str]] | None
) -> tuple[Migration, ...]:
    """The bundled migrations that are not applied yet.

    Raises SchemaAhead when the database knows a newer one, SchemaChanged when one was applied with another text.
    """
    known = {migration.version: migration for migration in bundled}
    for version, name, checksum in applied or ():
        if version not in known:
            raise errors.SchemaAhead(
                f"the schema has migration {version}_{name}, which this version of Runledger does not know",
                hint="upgrade the runledger-pg package on this machine",
            )
        if known[version].checksum != checksum:
            raise errors.SchemaChanged(
                f"migration {version}_{name} was applied with a different text than this package carries",
                hint="run the release that applied it, or restore the database from before",
            )
    done = {version for version, _, _ in applied or ()}
    return tuple(migration for migration in bundled if migration.version not in done)


def check_schema(connection: AnyConnection) -> None:
    """The schema is exactly what this package needs. Reads only; locks nothing.

    Raises SchemaMissing, SchemaBehind, SchemaAhead, SchemaChanged, ConstraintNotValidated or UnsupportedServer, each
    with the command that helps.
    """
    ledger = borrow(connection)
    applied = applied_migrations(ledger)
    if not applied:
        raise errors.SchemaMissing(f"the database has no Runledger schema {ledger.schema!r}", hint=MIGRATE_HINT)
    pending = pending_migrations(bundled_migrations(), applied)
    if pending:
        raise errors.SchemaBehind(
            f"{len(pending)} migrations are not applied, the first is {pending[0].version}_{pending[0].name}",
            hint=MIGRATE_HINT,
        )
    validated = {row[0] for row in ledger.fetch(SELECT_VALIDATED, {"schema": ledger.schema})}
    for constraint in RELIED_ON_CONSTRAINTS:
        if constraint not in validated:
            raise errors.ConstraintNotValidated(
                f"the constraint {constraint} is missing or not validated",
                hint="find and mend the rows it refuses, then run ALTER TABLE … VALIDATE CONSTRAINT",
            )


def record_migration(ledger: LedgerConnection, migration: Migration, package_version: str) -> None:
    """The history knows that ``migration`` is applied, once the caller's transaction commits."""
    ledger.fetch(
        RECORD_MIGRATION,
        {
            "version": migration.version,
            "name": migration.name,
            "checksum": migration.checksum,
            "package_version": package_version,
        },
    )
