"""Definitions as they are stored: what a claim, an enqueue and a retry decision read of a job type."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Boolean, Double, Integer, Text, cast, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.definitions import DefinitionSync, JobDefinition, RetryPolicy, dead_letter_hook_type
from runledger.core.errors import DefinitionNotFound, InvalidRequest
from runledger.core.operation_errors import ActiveScheduleExists, EmptyJobTypeList
from runledger.core.rates import Rate, parse_rate
from runledger.postgres.connection import AnyConnection, LedgerConnection, borrow
from runledger.postgres.expressions import FALSE, NOW, as_text, constant, parameter, rows_of
from runledger.postgres.limits import COUNT_WHAT_RUNS
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import job_definitions, job_schedules

SCHEDULES_NAMED = 10
"""So many schedules an error names at most."""

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
    "max_running": Integer,
    "rate_starts": Integer,
    "rate_seconds": Integer,
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
_will_be_enabled = or_(_stored.is_enabled, parameter("is_exact", Boolean)) & _insert.excluded.is_enabled
_is_changed = or_(
    *(_stored[name].is_distinct_from(_insert.excluded[name]) for name in _OWNED),
    _stored.is_enabled != _will_be_enabled,
)
SYNC_DEFINITIONS = Statement(
    "sync_definitions",
    _insert.on_conflict_do_update(
        index_elements=["job_type"],
        set_={name: _insert.excluded[name] for name in _OWNED} | {"is_enabled": _will_be_enabled, "updated_at": NOW},
        where=_is_changed,
    ).returning(_stored.job_type),
)

_by_types = _stored.job_type == func.any(parameter("job_types", ARRAY(Text)))
LOCK_DEFINITIONS = Statement(
    "lock_definitions",
    select(_stored.job_type, _stored.is_enabled).where(_by_types).order_by(_stored.job_type).with_for_update(),
)
ACTIVE_SCHEDULES = Statement(
    "select_active_schedules",
    select(job_schedules.c.name)
    .where(job_schedules.c.job_type == func.any(parameter("job_types", ARRAY(Text))))
    .where(job_schedules.c.is_active)
    .order_by(job_schedules.c.name),
)
DISABLE_ABSENT = Statement(
    "disable_absent_definitions",
    update(job_definitions)
    .where(_by_types)
    .where(_stored.is_enabled)
    .values(is_enabled=FALSE, changed_by=null(), change_reason=constant("not in the catalog"), updated_at=NOW)
    .returning(_stored.job_type),
)

DEFINITION_COLUMNS = tuple(
    as_text(_stored[name]) if name == "retry_delay_overrides" else _stored[name] for name in _COLUMNS
)
"""What ``decoded_definition`` reads, in its order."""

SELECT_DEFINITIONS = Statement(
    "select_definitions",
    select(*DEFINITION_COLUMNS, _stored.is_paused)
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
    Raises ActiveScheduleExists when a type would be disabled while an active schedule enqueues its jobs.
    """
    given = list(definitions)
    ledger = borrow(connection)
    _lock_what_is_disabled(ledger, given, ())
    return _write(ledger, given, is_exact=False)


def sync_definitions_exact(
    connection: AnyConnection, definitions: Iterable[JobDefinition], *, scope: Sequence[str]
) -> DefinitionSync:
    """As ``sync_definitions``, but each type is enabled or not as given, and types in ``scope`` that are not given are
    disabled; never deleted, and those outside of the scope stay. A paused type stays paused.

    Locks the rows of the scope by job type; belongs into a transaction. Raises EmptyJobTypeList without definitions
    or scope, InvalidRequest for a definition outside of the scope, and ActiveScheduleExists.
    """
    given = list(definitions)
    outside = sorted({one.job_type for one in given} - set(scope))
    if not given or not scope:
        raise EmptyJobTypeList("an exact synchronisation needs at least one definition and a scope")
    if outside:
        raise InvalidRequest(f"outside the scope: {', '.join(outside)}")
    ledger = borrow(connection)
    absent = sorted(set(scope) - {one.job_type for one in given})
    disabled = _lock_what_is_disabled(ledger, given, absent)
    changed = _write(ledger, given, is_exact=True)
    if absent:
        ledger.fetch(DISABLE_ABSENT, {"job_types": absent})
    return DefinitionSync(changed, disabled)


def _lock_what_is_disabled(
    ledger: LedgerConnection, given: Sequence[JobDefinition], absent: Sequence[str]
) -> tuple[str, ...]:
    """The enabled types that are about to be disabled, sorted. All rows that will be written are locked first, in
    their order, so that no schedule of them becomes active meanwhile; nothing is locked when nothing is disabled."""
    wanted = {one.job_type for one in given if not one.is_enabled} | set(absent)
    if not wanted:
        return ()
    touched = sorted(wanted | {one.job_type for one in given})
    locked = ledger.fetch(LOCK_DEFINITIONS, {"job_types": touched})
    disabled = tuple(sorted(job_type for job_type, is_enabled in locked if is_enabled and job_type in wanted))
    _refuse_scheduled(ledger, disabled)
    return disabled


def _refuse_scheduled(ledger: LedgerConnection, job_types: Sequence[str]) -> None:
    names = [row[0] for row in ledger.fetch(ACTIVE_SCHEDULES, {"job_types": list(job_types)})] if job_types else []
    if names:
        shown = ", ".join(names[:SCHEDULES_NAMED]) + (", …" if len(names) > SCHEDULES_NAMED else "")
        raise ActiveScheduleExists(
            f"an active schedule would enqueue a disabled job type: {shown}", hint="pause or delete the schedule first"
        )


def _write(ledger: LedgerConnection, definitions: Sequence[JobDefinition], *, is_exact: bool) -> tuple[str, ...]:
    rows = sorted((_row(definition) for definition in definitions), key=lambda row: str(row["job_type"]))
    if not rows:
        return ()
    parameters = {f"{name}s": [row[name] for row in rows] for name in _COLUMNS} | {"is_exact": is_exact}
    changed = {row[0] for row in ledger.fetch(SYNC_DEFINITIONS, parameters)}
    limited = sorted(one.job_type for one in definitions if one.is_limited and one.job_type in changed)
    if limited:
        ledger.fetch(COUNT_WHAT_RUNS, {"job_types": limited})
    return tuple(sorted(changed))


def _row(definition: JobDefinition) -> dict[str, Any]:
    retry = definition.retry
    rate = None if definition.rate_limit is None else parse_rate(definition.rate_limit)
    return {
        "job_type": definition.job_type,
        "version": definition.version,
        "max_attempts": definition.max_attempts,
        "default_timeout_seconds": definition.timeout_seconds,
        "default_priority": definition.priority,
        "queue": definition.queue,
        "retry_base_seconds": float(retry.base_seconds),
        "retry_factor": float(retry.factor),
        "retry_cap_seconds": float(retry.cap_seconds),
        "retry_jitter": retry.jitter,
        "retry_delay_overrides": json.dumps(dict(retry.overrides), sort_keys=True),
        "crash_budget": definition.crash_budget,
        "dead_letter_job_type": (
            dead_letter_hook_type(definition.job_type) if definition.has_dead_letter_hook else None
        ),
        "is_enabled": definition.is_enabled,
        "max_running": definition.max_running,
        "rate_starts": None if rate is None else rate.starts,
        "rate_seconds": None if rate is None else rate.seconds,
    }


def get_definitions(
    connection: AnyConnection, job_types: Sequence[str] | None = None
) -> dict[str, tuple[JobDefinition, bool]]:
    """The stored definition of each type, and whether it is paused; all types without ``job_types``."""
    rows = borrow(connection).fetch(SELECT_DEFINITIONS, {"job_types": None if job_types is None else list(job_types)})
    return {row[0]: (decoded_definition(row), row[-1]) for row in rows}


def decoded_definition(row: Row) -> JobDefinition:
    """The definition that a row of ``DEFINITION_COLUMNS`` begins with."""
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
        max_running=row[14],
        rate_limit=None if row[15] is None else str(Rate(row[15], row[16])),
    )


def set_definition_paused(
    connection: AnyConnection, job_type: str, *, is_paused: bool, actor: str | None = None, reason: str | None = None
) -> None:
    """Claims of this type stop, or start again, everywhere with the caller's commit. Raises DefinitionNotFound."""
    _change(connection, SET_PAUSED, job_type, {"is_paused": is_paused, "actor": actor, "reason": reason})


def set_definition_enabled(
    connection: AnyConnection, job_type: str, *, is_enabled: bool, actor: str | None = None, reason: str | None = None
) -> None:
    """Enqueue of this type is refused, or allowed again; what is queued still runs.

    Locks the row. Raises DefinitionNotFound, and ActiveScheduleExists when an active schedule enqueues jobs of a type
    that would be disabled. In a transaction no schedule can become active behind that check.
    """
    if not is_enabled:
        ledger = borrow(connection)
        ledger.fetch(LOCK_DEFINITIONS, {"job_types": [job_type]})
        _refuse_scheduled(ledger, [job_type])
    _change(connection, SET_ENABLED, job_type, {"is_enabled": is_enabled, "actor": actor, "reason": reason})


def _change(connection: AnyConnection, statement: Statement, job_type: str, values: dict[str, Any]) -> None:
    if not borrow(connection).fetch(statement, values | {"job_type": job_type}):
        raise DefinitionNotFound(f"no definition of job type {job_type!r} is stored")
