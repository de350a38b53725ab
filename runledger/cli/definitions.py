"""``runledger definition``: the stored settings of job types, and the two switches that operators hold."""

from collections.abc import Callable

import click

from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column, print_json
from runledger.cli.values import acting_person
from runledger.core.definitions import JobDefinition
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.definitions import (
    get_definitions,
    set_definition_enabled,
    set_definition_paused,
    sync_definitions,
)

Stored = tuple[JobDefinition, bool]

DEFINITION_COLUMNS: tuple[Column[Stored], ...] = (
    Column("TYPE", lambda stored: stored[0].job_type),
    Column("QUEUE", lambda stored: stored[0].queue),
    Column("ENABLED", lambda stored: stored[0].is_enabled),
    Column("PAUSED", lambda stored: stored[1]),
    Column("ATTEMPTS", lambda stored: stored[0].max_attempts),
    Column("TIMEOUT", lambda stored: f"{stored[0].timeout_seconds} s"),
    Column("PRIORITY", lambda stored: stored[0].priority),
    Column("VERSION", lambda stored: stored[0].version),
)

job_types_argument = click.argument("job_types", metavar="TYPE...", nargs=-1, required=True)
reason_option = click.option("--reason", metavar="TEXT", help="Why; stored beside the definition.")


@click.group(cls=LedgerGroup)
def definition() -> None:
    """The settings of job types."""


@definition.command("list")
@click.pass_obj
def list_(session: Session) -> None:
    """List the stored definitions of all job types."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        stored = list(get_definitions(connection).values())
    print_list(session, stored, DEFINITION_COLUMNS, document={"definitions": [_document(one) for one in stored]})


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
@click.pass_obj
def sync(session: Session) -> None:
    """Store the definitions of the catalog of --app.

    Settings are restored to those of the catalog; what an operator disabled or paused stays so, and types that the
    catalog lacks stay. Prints the types that are new or changed. A worker does this when it starts.

    \b
    Example:
      runledger definition sync --app myapp.jobs:catalog
    """
    definitions = session.catalog().definitions
    with session.changing() as ledger, ledger.begin() as connection:
        changed = sync_definitions(connection, definitions)
    session.say(f"{len(definitions)} definitions, {len(changed)} new or changed")
    if session.is_json:
        print_json({"changed": changed})
    for job_type in () if session.is_json else changed:
        click.echo(job_type)


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
        stored = list(get_definitions(connection, ordered).values())
    print_list(session, stored, DEFINITION_COLUMNS, document={"definitions": [_document(one) for one in stored]})


def _document(stored: Stored) -> dict[str, object]:
    settings, is_paused = stored
    return {"definition": settings, "is_paused": is_paused}
