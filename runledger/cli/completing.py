"""What a shell may offer where a job type or a schedule is asked for: the names that the database knows.

Completion must never hang and never complain: whatever takes longer than a second, or fails, offers nothing.
"""

from collections.abc import Callable, Iterable

import click
from psycopg.conninfo import make_conninfo

from runledger.core.jobs import Scope
from runledger.database.ledger import Ledger
from runledger.database.settings import url_from_environment
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.definition_reads import list_job_definitions
from runledger.postgres.schedule_reads import list_job_schedules

PATIENCE_SECONDS = 1
MOST_NAMES = 1_000


def job_types(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The stored job types that begin so."""
    return _offered(
        ctx,
        incomplete,
        lambda connection: (one.definition.job_type for one in list_job_definitions(connection, limit=MOST_NAMES)),
    )


def schedule_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of stored schedules that begin so."""
    return _offered(
        ctx,
        incomplete,
        lambda connection: (one.name for one in list_job_schedules(connection, scope=Scope.any(), limit=MOST_NAMES)),
    )


def _offered(ctx: click.Context, incomplete: str, names: Callable[[LedgerConnection], Iterable[str]]) -> list[str]:
    url = ctx.params.get("database_url") or url_from_environment()
    if not url:
        return []
    try:
        hasty = make_conninfo(
            url, connect_timeout=PATIENCE_SECONDS, options=f"-c statement_timeout={PATIENCE_SECONDS * 1_000}"
        )
        with (
            Ledger(hasty, schema=ctx.params.get("schema") or None, pool_size=1) as ledger,
            ledger.database.autocommit() as connection,
        ):
            return [name for name in names(connection) if name.startswith(incomplete)]
    except Exception:  # a shell that asks for words has no place for an error
        return []
