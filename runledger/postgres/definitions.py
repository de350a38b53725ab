"""Definitions as they are stored: what a claim, an enqueue and a retry decision read of a job type."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Boolean, Double, Integer, Text, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.definitions import JobDefinition, RetryPolicy, dead_letter_hook_type
from runledger.core.errors import DefinitionNotFound
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import NOW, as_text, parameter, rows_of
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_definitions

_stored = job_definitions.c
_COLUMNS: dict[str, Any] = {
    "job_type": Text,
    "version": Integer,
    "max_attempts": Integer,
    "default_timeout_seconds": Integer,
    "default_priority": Integer,
    "queue": Text,
    "retry_base_seconds": Double,
    "retry_factor": Double,
    "retry_cap_seconds": Double,
    "retry_jitter": Boolean,
    "retry_delay_overrides": Text,
    "crash_budget": Integer,
    "dead_letter_job_type": Text,
    "is_enabled": Boolean,
}
_given = rows_of("given", **_COLUMNS)
_OWNED = [name for name in _COLUMNS if name not in ("job_type", "is_enabled")]
"""The settings a catalog owns: restored at every synchronisation. ``is_enabled`` is shared with operators."""

_insert = upsert(job_definitions).from_select(
    list(_COLUMNS),
    select(
        *(cast(_given.c[name], JSONB) if name == "retry_delay_overrides" else _given.c[name] for name in _COLUMNS)
    ).order_by(_given.c.job_type),
)
_is_changed = or_(
    *(_stored[name].is_distinct_from(_insert.excluded[name]) for name in _OWNED),
    _stored.is_enabled & ~_insert.excluded.is_enabled,
)
SYNC_DEFINITIONS = Statement(
    "sync_definitions",
    _insert.on_conflict_do_update(
        index_elements=["job_type"],
        set_={name: _insert.excluded[name] for name in _OWNED}
        | {"is_enabled": _stored.is_enabled & _insert.excluded.is_enabled, "updated_at": NOW},
        where=_is_changed,
    ).returning(_stored.job_type),
)

SELECT_DEFINITIONS = Statement(
    "select_definitions",
    select(
        *(as_text(_stored[name]) if name == "retry_delay_overrides" else _stored[name] for name in _COLUMNS),
        _stored.is_paused,
    )
    .where(
        or_(
            parameter("job_types", ARRAY(Text)).is_(None),
            _stored.job_type == func.any(parameter("job_types", ARRAY(Text))),
        )
    )
    .order_by(_stored.job_type),
)

SET_PAUSED = Statement(
    "set_definition_paused",
    update(job_definitions)
    .where(_stored.job_type == parameter("job_type", Text))
    .values(
        is_paused=parameter("is_paused", Boolean),
        changed_by=parameter("actor", Text),
        change_reason=parameter("reason", Text),
        updated_at=NOW,
    )
    .returning(_stored.job_type),
)

SET_ENABLED = Statement(
    "set_definition_enabled",
    update(job_definitions)
    .where(_stored.job_type == parameter("job_type", Text))
    .values(
        is_enabled=parameter("is_enabled", Boolean),
        changed_by=parameter("actor", Text),
        change_reason=parameter("reason", Text),
        updated_at=NOW,
    )
    .returning(_stored.job_type),
)


def sync_definitions(connection: AnyConnection, definitions: Iterable[JobDefinition]) -> tuple[str, ...]:
    """Every given definition is stored; the answer names the job types whose row is new or changed, sorted.

    Additive: types that are absent stay. Settings are restored to the given values, except that a type which an
    operator disabled or paused stays so; a given ``is_enabled=False`` disables. Locks the changed rows by job type.
    """
    rows = sorted((_row(definition) for definition in definitions), key=lambda row: str(row["job_type"]))
    if not rows:
        return ()
    parameters = {f"{name}s": [row[name] for row in rows] for name in _COLUMNS}
    return tuple(sorted(row[0] for row in borrow(connection).fetch(SYNC_DEFINITIONS, parameters)))


def _row(definition: JobDefinition) -> dict[str, Any]:
    retry = definition.retry
    return {
        "job_type": definition.job_type,
        "version": definition.version,
        "max_attempts": definition.max_attempts,
        "default_timeout_seconds": definition.timeout_seconds,
        "default_priority": definition.priority,
        "queue": definition.queue,
        "retry_base_seconds": retry.base_seconds,
        "retry_factor": retry.factor,
        "retry_cap_seconds": retry.cap_seconds,
        "retry_jitter": retry.jitter,
        "retry_delay_overrides": json.dumps(dict(retry.overrides), sort_keys=True),
        "crash_budget": definition.crash_budget,
        "dead_letter_job_type": (
            dead_letter_hook_type(definition.job_type) if definition.has_dead_letter_hook else None
        ),
        "is_enabled": definition.is_enabled,
    }


def get_definitions(
    connection: AnyConnection, job_types: Sequence[str] | None = None
) -> dict[str, tuple[JobDefinition, bool]]:
    """The stored definition of each type, and whether it is paused; all types without ``job_types``."""
    rows = borrow(connection).fetch(SELECT_DEFINITIONS, {"job_types": None if job_types is None else list(job_types)})
    return {row[0]: (_definition(row), row[-1]) for row in rows}


def _definition(row: Row) -> JobDefinition:
    return JobDefinition(
        job_type=row[0],
        version=row[1],
        max_attempts=row[2],
        timeout_seconds=row[3],
        priority=row[4],
        queue=row[5],
        retry=RetryPolicy(row[6], row[7], row[8], row[9], json.loads(row[10])),
        crash_budget=row[11],
        has_dead_letter_hook=row[12] is not None,
        is_enabled=row[13],
    )


def set_definition_paused(
    connection: AnyConnection, job_type: str, *, is_paused: bool, actor: str | None = None, reason: str | None = None
) -> None:
    """Claims of this type stop, or start again, everywhere with the caller's commit. Raises DefinitionNotFound."""
    _change(connection, SET_PAUSED, job_type, {"is_paused": is_paused, "actor": actor, "reason": reason})


def set_definition_enabled(
    connection: AnyConnection, job_type: str, *, is_enabled: bool, actor: str | None = None, reason: str | None = None
) -> None:
    """Enqueue of this type is refused, or allowed again; what is queued still runs. Raises DefinitionNotFound."""
    _change(connection, SET_ENABLED, job_type, {"is_enabled": is_enabled, "actor": actor, "reason": reason})


def _change(connection: AnyConnection, statement: Statement, job_type: str, values: dict[str, Any]) -> None:
    if not borrow(connection).fetch(statement, values | {"job_type": job_type}):
        raise DefinitionNotFound(f"no definition of job type {job_type!r} is stored")
