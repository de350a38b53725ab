"""Definitions as people read them, by name and in pages."""

from sqlalchemy import Integer, Text, or_, select

from runledger.core.definitions import StoredDefinition
from runledger.core.errors import DefinitionNotFound
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.definitions import DEFINITION_COLUMNS, decoded_definition
from runledger.postgres.expressions import as_microseconds, from_microseconds, parameter
from runledger.postgres.reads import check_page
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_definitions

_stored = job_definitions.c
_shown = select(
    *DEFINITION_COLUMNS,
    _stored.is_paused,
    _stored.changed_by,
    _stored.change_reason,
    as_microseconds(_stored.created_at),
    as_microseconds(_stored.updated_at),
)
SELECT_DEFINITION = Statement("select_definition", _shown.where(_stored.job_type == parameter("job_type", Text)))
LIST_DEFINITIONS = Statement(
    "list_job_definitions",
    _shown.where(or_(parameter("queue", Text).is_(None), _stored.queue == parameter("queue", Text)))
    .where(or_(parameter("after", Text).is_(None), _stored.job_type > parameter("after", Text)))
    .order_by(_stored.job_type)
    .limit(parameter("limit", Integer)),
)


def get_job_definition(connection: AnyConnection, job_type: str) -> StoredDefinition:
    """The definition as it is now. Raises DefinitionNotFound."""
    rows = borrow(connection).fetch(SELECT_DEFINITION, {"job_type": job_type})
    if not rows:
        raise DefinitionNotFound(f"no definition of job type {job_type!r} is stored")
    return _read(rows[0])


def list_job_definitions(
    connection: AnyConnection, *, queue: str | None = None, after: str | None = None, limit: int = 100
) -> list[StoredDefinition]:
    """Definitions by job type, of one queue or of all; pass the last job type of a page as ``after`` to get the next
    one. A definition belongs to no organization."""
    rows = borrow(connection).fetch(LIST_DEFINITIONS, {"queue": queue, "after": after, "limit": check_page(limit)})
    return [_read(row) for row in rows]


def _read(row: Row) -> StoredDefinition:
    is_paused, changed_by, change_reason, created_at, updated_at = row[-5:]
    return StoredDefinition(
        definition=decoded_definition(row),
        is_paused=is_paused,
        changed_by=changed_by,
        change_reason=change_reason,
        created_at=from_microseconds(created_at),
        updated_at=from_microseconds(updated_at),
    )
