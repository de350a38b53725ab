"""``runledger config``: the runtime configs that handlers read."""

import click

from runledger.cli.completing import job_types
from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column, json_text, print_fields, print_json
from runledger.cli.values import acting_person, read_payload
from runledger.core.operations import JobRuntimeConfig
from runledger.postgres.runtime_configs import (
    get_job_runtime_config,
    list_job_runtime_configs,
    upsert_job_runtime_config,
)

CONFIG_COLUMNS: tuple[Column[JobRuntimeConfig], ...] = (
    Column("TYPE", lambda config: config.job_type),
    Column("SCHEMA VERSION", lambda config: config.schema_version),
    Column("REVISION", lambda config: config.revision),
    Column("CHANGED", lambda config: config.updated_at),
    Column("BY", lambda config: config.changed_by),
    Column("CONFIG", lambda config: json_text(config.config)),
)


@click.group(cls=LedgerGroup)
def config() -> None:
    """The runtime configs of job types."""


@config.command("list")
@click.option("--after", metavar="TYPE", help="Continue after this type, the last of a page.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="Most rows to print.")
@click.pass_obj
def list_(session: Session, *, after: str | None, limit: int) -> None:
    """List the runtime configs, by job type."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        found = list_job_runtime_configs(connection, after=after, limit=limit)
    print_list(session, found, CONFIG_COLUMNS, document={"configs": found})
    if len(found) == limit:
        session.say(f"there may be more; next page: --after {found[-1].job_type}")


@config.command()
@click.argument("job_type", metavar="TYPE", shell_complete=job_types)
@click.pass_obj
def get(session: Session, *, job_type: str) -> None:
    """Show the runtime config of a job type."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        _print(session, get_job_runtime_config(connection, job_type))


@config.command("set")
@click.argument("job_type", metavar="TYPE", shell_complete=job_types)
@click.argument("value", metavar="JSON|@FILE|-")
@click.option("--schema-version", type=int, default=1, show_default=True, metavar="N", help="The shape of the config.")
@click.option("--expect", type=int, metavar="REVISION", help="Only over this revision; 0: only if there is none.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the operator actions.")
@click.pass_obj
def set_(
    session: Session, *, job_type: str, value: str, schema_version: int, expect: int | None, reason: str | None
) -> None:
    """Store the runtime config of a job type, as a whole.

    Handlers see it from their next attempt on. With --expect a change that somebody else made meanwhile is not
    overwritten: the exit code is 5.

    \b
    Examples:
      runledger config set mail.receipt '{"sender": "shop@example.org"}'
      runledger config set mail.receipt @receipt.json --expect 3 --reason 'new sender'
    """
    config = read_payload(value, what="config")
    with session.changing() as ledger, ledger.begin() as connection:
        stored = upsert_job_runtime_config(
            connection,
            job_type,
            config,
            schema_version=schema_version,
            expected_revision=expect,
            actor=acting_person(),
            reason=reason,
        )
    _print(session, stored)


def _print(session: Session, found: JobRuntimeConfig) -> None:
    if session.is_json:
        print_json(found)
        return
    print_fields(
        [
            ("type", found.job_type),
            ("schema version", found.schema_version),
            ("revision", found.revision),
            ("changed", found.updated_at),
            ("by", found.changed_by),
            ("config", json_text(found.config)),
        ]
    )
