"""``runledger definition``: the stored settings of job types, and the two switches that operators hold."""

from collections.abc import Callable

import click
from psycopg import Rollback

from runledger.cli.completing import job_types
from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column, print_json
from runledger.cli.values import acting_person
from runledger.core.catalog import JobCatalog
from runledger.core.definitions import DefinitionSync, StoredDefinition
from runledger.database.ledger import Ledger
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.definition_reads import get_job_definition, list_job_definitions
from runledger.postgres.definitions import (
    get_definitions,
    set_definition_enabled,
    set_definition_paused,
    sync_definitions,
    sync_definitions_exact,
)

DEFINITION_COLUMNS: tuple[Column[StoredDefinition], ...] = (
    Column("TYPE", lambda stored: stored.definition.job_type),
    Column("QUEUE", lambda stored: stored.definition.queue),
    Column("ENABLED", lambda stored: stored.definition.is_enabled),
    Column("PAUSED", lambda stored: stored.is_paused),
    Column("ATTEMPTS", lambda stored: stored.definition.max_attempts),
    Column("TIMEOUT", lambda stored: f"{stored.definition.timeout_seconds} s"),
    Column("PRIORITY", lambda stored: stored.definition.priority),
    Column("AT ONCE", lambda stored: stored.definition.max_running),
    Column("RATE", lambda stored: stored.definition.rate_limit),
    Column("VERSION", lambda stored: stored.definition.version),
)

job_types_argument = click.argument("job_types", metavar="TYPE...", shell_complete=job_types, nargs=-1, required=True)
reason_option = click.option("--reason", metavar="TEXT", help="Why; stored beside the definition.")


@click.group(cls=LedgerGroup)
def definition() -> None:
    """The settings of job types."""


@definition.command("list")
@click.option("--queue", metavar="NAME", help="Only job types of this queue.")
@click.option("--after", metavar="TYPE", help="Continue after this type, the last of a page.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=1_000, show_default=True, help="Most rows to print.")
@click.pass_obj
def list_(session: Session, *, queue: str | None, after: str | None, limit: int) -> None:
    """List the stored definitions of all job types."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        stored = list_job_definitions(connection, queue=queue, after=after, limit=limit)
    print_list(session, stored, DEFINITION_COLUMNS, document={"definitions": stored})


@definition.command()
@job_types_argument
@reason_option
@click.pass_obj
def enable(session: Session, *, job_types: tuple[str, ...], reason: str | None) -> None:
    """Allow jobs of these types to be enqueued again."""
    _change(session, job_types, lambda connection, job_type: _enable(connection, job_type, True, reason))


@definition.command()
@job_types_argument
@reason_option
@click.pass_obj
def disable(session: Session, *, job_types: tuple[str, ...], reason: str | None) -> None:
    """Refuse new jobs of these types.

    Jobs that are enqueued already still run, and a worker that starts does not undo it.

    \b
    Example:
      runledger definition disable report.build --reason 'replaced by report.render'
    """
    _change(session, job_types, lambda connection, job_type: _enable(connection, job_type, False, reason))


@definition.command()
@job_types_argument
@reason_option
@click.pass_obj
def pause(session: Session, *, job_types: tuple[str, ...], reason: str | None) -> None:
    """Let jobs of these types wait.

    No worker claims them any more; running ones finish, and new ones may be enqueued.

    \b
    Example:
      runledger definition pause mail.receipt --reason 'the mail server is down'
    """
    _change(session, job_types, lambda connection, job_type: _pause(connection, job_type, True, reason))


@definition.command()
@job_types_argument
@reason_option
@click.pass_obj
def resume(session: Session, *, job_types: tuple[str, ...], reason: str | None) -> None:
    """Let workers claim jobs of these types again."""
    _change(session, job_types, lambda connection, job_type: _pause(connection, job_type, False, reason))


@definition.command()
@click.option("--exact", "is_exact", is_flag=True, help="Also enable what the catalog enables, and disable the rest.")
@click.option(
    "--scope", multiple=True, metavar="TYPE", help="With --exact: only this type may be disabled.  [default: all]"
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Show what would change, and change nothing.")
@click.pass_obj
def sync(session: Session, *, is_exact: bool, scope: tuple[str, ...], is_dry_run: bool) -> None:
    """Store the definitions of the catalog of --app.

    Settings are restored to those of the catalog; what an operator disabled or paused stays so, and types that the
    catalog lacks stay. Prints the types that are new or changed. A worker does this when it starts.

    With --exact each type is enabled or not as the catalog says, and types that it lacks are disabled, never deleted.
    That has to be confirmed, or --yes given; it is refused while an active schedule enqueues such a type.

    \b
    Examples:
      runledger definition sync --app myapp.jobs:catalog
      runledger definition sync --app myapp.jobs:catalog --exact --dry-run
      runledger definition sync --app myapp.jobs:catalog --exact --scope report.old --yes
    """
    if scope and not is_exact:
        raise click.UsageError("--scope needs --exact")
    catalog = session.catalog()
    with session.changing() as ledger:
        if not is_exact:
            done = _synchronised(ledger, catalog, scope=None, is_kept=not is_dry_run)
        else:
            with ledger.database.autocommit() as connection:
                stored = get_definitions(connection)
            whole = sorted({*(scope or stored), *catalog.job_types})
            done = _synchronised(ledger, catalog, scope=whole, is_kept=False)
            if not is_dry_run:
                if done.disabled:
                    session.confirm(f"{len(done.disabled)} job types will be disabled: {', '.join(done.disabled)}")
                done = _synchronised(ledger, catalog, scope=whole, is_kept=True)
    _print_sync(session, done, len(catalog.definitions), is_dry_run)


def _synchronised(ledger: Ledger, catalog: JobCatalog, *, scope: list[str] | None, is_kept: bool) -> DefinitionSync:
    """What the synchronisation does; taken back again unless it is to be kept."""
    with ledger.begin() as connection:
        if scope is None:
            done = DefinitionSync(sync_definitions(connection, catalog.definitions))
        else:
            done = sync_definitions_exact(connection, catalog.definitions, scope=scope)
        if not is_kept:
            raise Rollback
    return done


def _print_sync(session: Session, done: DefinitionSync, total: int, is_dry_run: bool) -> None:
    would = "would be " if is_dry_run else ""
    session.say(f"{total} definitions, {len(done.changed)} {would}new or changed, {len(done.disabled)} {would}disabled")
    if session.is_json:
        print_json({"changed": done.changed, "disabled": done.disabled, "is_dry_run": is_dry_run})
        return
    for job_type in done.changed:
        click.echo(job_type)
    for job_type in sorted(set(done.disabled) - set(done.changed)):
        click.echo(f"{job_type}\tdisabled")


def _enable(connection: LedgerConnection, job_type: str, is_enabled: bool, reason: str | None) -> None:
    set_definition_enabled(connection, job_type, is_enabled=is_enabled, actor=acting_person(), reason=reason)


def _pause(connection: LedgerConnection, job_type: str, is_paused: bool, reason: str | None) -> None:
    set_definition_paused(connection, job_type, is_paused=is_paused, actor=acting_person(), reason=reason)


def _change(session: Session, job_types: tuple[str, ...], change: Callable[[LedgerConnection, str], None]) -> None:
    """Every definition is changed, or none; printed as they are afterwards."""
    ordered = sorted(set(job_types))
    with session.changing() as ledger, ledger.begin() as connection:
        for job_type in ordered:
            change(connection, job_type)
        changed = [get_job_definition(connection, job_type) for job_type in ordered]
    print_list(session, changed, DEFINITION_COLUMNS, document={"definitions": changed})
