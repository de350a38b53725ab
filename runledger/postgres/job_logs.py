"""A log line written from outside of an attempt: by an operator, or by a program that belongs to the job."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Text, Uuid, cast, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core.context import LOG_FIELDS_LIMIT, LOG_MESSAGE_LIMIT
from runledger.core.errors import InvalidRequest, JobNotFound
from runledger.core.gate import clean_text, encode_json
from runledger.core.jobs import JsonValue, Scope
from runledger.core.states import LogLevel
from runledger.postgres import tables
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ZERO, parameter
from runledger.postgres.reads import job_identity
from runledger.postgres.scopes import in_scope, scoped
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_logs, jobs

INSERT_LOG = Statement(
    "insert_job_log",
    insert(job_logs)
    .from_select(
        ["job_id", "run_number", "attempt", "level", "message", "fields"],
        select(
            jobs.c.id,
            jobs.c.run_number,
            func.nullif(jobs.c.attempt, ZERO),
            cast(parameter("level", Text), tables.job_log_level),
            parameter("message", Text),
            cast(parameter("fields", Text), JSONB),
        )
        .where(jobs.c.id == parameter("job_id", Uuid))
        .where(in_scope(jobs.c.organization_id)),
    )
    .returning(job_logs.c.id),
)


def insert_job_log(
    connection: AnyConnection,
    job_id: UUID | str,
    *,
    scope: Scope,
    level: LogLevel | str,
    message: str,
    fields: Mapping[str, JsonValue] | None = None,
) -> int:
    """The line stands in the job's log, under its present run and attempt; answers with its id. Needs no lease.

    The message is cleaned and cut to 4 KiB. Raises InvalidRequest for an unknown level or fields that are no JSON
    object of at most 16 KiB, and JobNotFound.
    """
    try:
        known = LogLevel(level.upper())
    except (ValueError, AttributeError):
        raise InvalidRequest("level must be DEBUG, INFO, WARNING or ERROR") from None
    text = encode_json(dict(fields or {}), error=InvalidRequest, limit_bytes=LOG_FIELDS_LIMIT, field="fields")
    parameters = scoped(scope) | {
        "job_id": job_identity(job_id),
        "level": known.value,
        "message": clean_text(message, LOG_MESSAGE_LIMIT),
        "fields": text,
    }
    rows = borrow(connection).fetch(INSERT_LOG, parameters)
    if not rows:
        raise JobNotFound("no such job in this scope")
    return int(rows[0][0])
