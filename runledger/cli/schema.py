"""``runledger migrate``: bring the schema up to date, or say what that would take."""

from collections.abc import Sequence

import click

from runledger.cli.exits import SCHEMA_ERRORS, ExitCode, complain_of
from runledger.cli.listings import print_list
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import Column, print_json
from runledger.database.grants import DEFAULT_PREFIX, grants_as_sql
from runledger.database.ledger import Ledger
from runledger.database.migrate import ensure_schema_compatible, migrate, migrations_as_sql, plan_migrations
from runledger.postgres.connection import default_schema
from runledger.postgres.migrations import Migration, bundled_migrations
from runledger.postgres.statements import check_schema_name

MIGRATION_COLUMNS: tuple[Column[Migration], ...] = (
    Column("VERSION", lambda migration: migration.version),
    Column("NAME", lambda migration: migration.name),
)


@click.command("migrate", cls=LedgerCommand)
@click.option("--check", "is_check", is_flag=True, help="Change nothing; exit code 3 unless the schema is up to date.")
@click.option("--plan", "is_plan", is_flag=True, help="Change nothing; list the migrations that are not applied.")
@click.option("--sql", "is_sql", is_flag=True, help="Print all migrations as one SQL script; needs no database.")
@click.option(
    "--grants", "is_grants", is_flag=True, help="Print SQL for roles with least privilege; needs no database."
)
@click.option("--role-prefix", default=DEFAULT_PREFIX, help="What the role names of --grants begin with.")
@click.pass_obj
def migrate_schema(
    session: Session, *, is_check: bool, is_plan: bool, is_sql: bool, is_grants: bool, role_prefix: str
) -> None:
    """Bring the schema up to date.

    Applies the migrations that are missing, all of them or none, and lists them. May be run again at any time, and by
    several programs at once; workers of the previous release go on.

    \b
    Examples:
      runledger migrate --database-url postgresql://owner@localhost/app
      runledger migrate --check
      runledger migrate --sql --schema jobs > runledger.sql
      runledger migrate --grants | psql postgresql://postgres@localhost/app
    """
    if is_check + is_plan + is_sql + is_grants > 1:
        raise click.UsageError("--check, --plan, --sql and --grants exclude each other")
    schema = check_schema_name(session.schema) if session.schema else default_schema()
    if is_sql:
        click.echo(migrations_as_sql(schema, bundled_migrations()))
    elif is_grants:
        click.echo(grants_as_sql(schema, prefix=role_prefix))
    elif is_plan:
        with session.reading() as ledger:
            _print_migrations(session, plan_migrations(ledger.database), name="pending")
    elif is_check:
        with session.reading() as ledger:
            check_schema_or_exit(session, ledger)
        session.say("the schema is up to date")
        if session.is_json:
            print_json({"pending": []})
    else:
        with session.changing() as ledger:
            applied = migrate(ledger.database)
        session.say(f"{len(applied)} migrations applied" if applied else "the schema is up to date")
        _print_migrations(session, applied, name="applied")


def check_schema_or_exit(session: Session, ledger: Ledger) -> None:
    """The schema is what this package needs. Otherwise says why, and ends the command with the code of a check."""
    try:
        ensure_schema_compatible(ledger.database)
    except SCHEMA_ERRORS as error:
        complain_of(error, is_json=session.is_json, is_verbose=session.is_verbose)
        raise click.exceptions.Exit(ExitCode.CHECK_SAID_NO) from error


def _print_migrations(session: Session, migrations: Sequence[Migration], *, name: str) -> None:
    shown = [{"version": one.version, "name": one.name, "checksum": one.checksum} for one in migrations]
    print_list(session, migrations, MIGRATION_COLUMNS, document={name: shown})
