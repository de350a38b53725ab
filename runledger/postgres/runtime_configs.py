"""Runtime configs: one JSON object for each job type, changed by operators, read by handlers."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Text, Uuid, cast, func, insert, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.errors import StoredValueInvalid
from runledger.core.gate import REASON_LIMIT, check_identifier, clean_text, decode_json, encode_json
from runledger.core.jobs import JsonValue
from runledger.core.limits import MAX_INT32, MAX_INT64, check_integer
from runledger.core.operation_errors import InvalidRuntimeConfig, RuntimeConfigConflict, RuntimeConfigNotFound
from runledger.core.operations import JobRuntimeConfig
from runledger.postgres.columns import Columns, decoded, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import (
    NOW,
    ONE,
    ZERO,
    as_microseconds,
    as_text,
    constant,
    from_microseconds,
    keyed,
    parameter,
)
from runledger.postgres.reads import check_page
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_runtime_configs, operator_actions

ACTOR_LIMIT = 200


def _object(text: str) -> dict[str, JsonValue]:
    value = decode_json(text, error=InvalidRuntimeConfig, field="config")
    if not isinstance(value, dict):
        raise StoredValueInvalid("a stored runtime config is not an object")
    return value


def _columns(row: Any) -> Columns:
    return (
        (row.job_type, same),
        (as_text(row.config), _object),
        (row.schema_version, same),
        (row.revision, same),
        (row.changed_by, same),
        (as_text(row.updated_by_user_id), decoded_uuid),
        (as_microseconds(row.created_at), from_microseconds),
        (as_microseconds(row.updated_at), from_microseconds),
    )


_stored = job_runtime_configs.c
_COLUMNS = _columns(_stored)
_expected = parameter("expected_revision", BigInteger)
_may_be_new = or_(
    _expected.is_(None),
    _expected == ZERO,
    select(_stored.job_type).where(_stored.job_type == parameter("job_type", Text)).exists(),
)
_insert = upsert(job_runtime_configs).from_select(
    ["job_type", "schema_version", "config", "changed_by", "updated_by_user_id"],
    select(
        parameter("job_type", Text),
        parameter("schema_version", Integer),
        cast(parameter("config", Text), JSONB),
        parameter("actor", Text),
        parameter("user_id", Uuid),
    ).where(_may_be_new),
)
_written = (
    _insert.on_conflict_do_update(
        index_elements=["job_type"],
        set_={
            "schema_version": _insert.excluded.schema_version,
            "config": _insert.excluded.config,
            "changed_by": _insert.excluded.changed_by,
            "updated_by_user_id": _insert.excluded.updated_by_user_id,
            "revision": _stored.revision + ONE,
            "updated_at": NOW,
        },
        where=or_(_expected.is_(None), _stored.revision == _expected),
    )
    .returning(*_stored)
    .cte("written")
)
_told = (
    insert(operator_actions)
    .from_select(
        ["action", "actor", "reason", "selection", "affected", "detail"],
        select(
            constant("config.set"),
            parameter("actor", Text),
            parameter("reason", Text),
            func.jsonb_build_object(*keyed(job_type=_written.c.job_type)),
            ONE,
            func.jsonb_build_object(
                *keyed(revision=_written.c.revision, schema_version=_written.c.schema_version, config=_written.c.config)
            ),
        ),
    )
    .cte("told")
)
UPSERT_CONFIG = Statement("upsert_runtime_config", select(*selected(_columns(_written.c))).add_cte(_told))
SELECT_CONFIG = Statement(
    "select_runtime_config", select(*selected(_COLUMNS)).where(_stored.job_type == parameter("job_type", Text))
)
LIST_CONFIGS = Statement(
    "list_runtime_configs",
    select(*selected(_COLUMNS))
    .where(or_(parameter("after", Text).is_(None), _stored.job_type > parameter("after", Text)))
    .order_by(_stored.job_type)
    .limit(parameter("limit", Integer)),
)


def upsert_job_runtime_config(
    connection: AnyConnection,
    job_type: str,
    config: dict[str, JsonValue],
    *,
    schema_version: int = 1,
    expected_revision: int | None = None,
    actor: str | None = None,
    reason: str | None = None,
    updated_by_user_id: UUID | None = None,
) -> JobRuntimeConfig:
    """The config is stored as a whole, with its next revision, and returned; what it was stays readable in the operator
    actions. ``expected_revision`` is the one the caller has read, 0 when there was none; None overwrites whatever is
    there. Locks the row.

    Raises InvalidRuntimeConfig unless ``config`` is an object of at most 256 KiB, InvalidIdentifier, InvalidRequest,
    RuntimeConfigConflict when the stored revision is another one, and DefinitionNotFound for an unknown job type.
    """
    if not isinstance(config, dict):
        raise InvalidRuntimeConfig("a runtime config must be a JSON object")
    if expected_revision is not None:
        check_integer(expected_revision, field="expected_revision", low=0, high=MAX_INT64)
    parameters = {
        "job_type": check_identifier(job_type, field="job_type"),
        "config": encode_json(config, error=InvalidRuntimeConfig, field="config"),
        "schema_version": check_integer(schema_version, field="schema_version", low=1, high=MAX_INT32),
        "expected_revision": expected_revision,
        "actor": None if actor is None else clean_text(actor, ACTOR_LIMIT),
        "reason": None if reason is None else clean_text(reason, REASON_LIMIT),
        "user_id": None if updated_by_user_id is None else str(updated_by_user_id),
    }
    rows = borrow(connection).fetch(UPSERT_CONFIG, parameters)
    if not rows:
        raise RuntimeConfigConflict(
            f"the runtime config of {job_type} is not at revision {expected_revision} any more",
            hint="read it again and repeat the change",
        )
    return JobRuntimeConfig(*decoded(_COLUMNS, rows[0]))


def get_job_runtime_config(connection: AnyConnection, job_type: str) -> JobRuntimeConfig:
    """The config as it is now. Raises RuntimeConfigNotFound."""
    found = find_job_runtime_config(connection, job_type)
    if found is None:
        raise RuntimeConfigNotFound(f"no runtime config of job type {job_type!r} is stored")
    return found


def find_job_runtime_config(connection: AnyConnection, job_type: str) -> JobRuntimeConfig | None:
    """The same for whoever can do without: None when nothing is stored."""
    rows = borrow(connection).fetch(SELECT_CONFIG, {"job_type": job_type})
    return JobRuntimeConfig(*decoded(_COLUMNS, rows[0])) if rows else None


def list_job_runtime_configs(
    connection: AnyConnection, *, after: str | None = None, limit: int = 100
) -> list[JobRuntimeConfig]:
    """Configs by job type; pass the last job type of a page as ``after`` to get the next one. A config belongs to no
    organization."""
    rows = borrow(connection).fetch(LIST_CONFIGS, {"after": after, "limit": check_page(limit)})
    return [JobRuntimeConfig(*decoded(_COLUMNS, row)) for row in rows]
