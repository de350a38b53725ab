"""The jobs that schedules make: one for each schedule and slot, whoever fires and wherever somebody moved the cursor,
because the database allows no second one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, Uuid, case, cast, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.headers import SCHEDULE_HEADER
from runledger.core.payloads import ORIGIN_KEY
from runledger.postgres import tables
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.enqueue import WOKEN
from runledger.postgres.expressions import NOW, ONE, ZERO, as_text, constant, new_id, rows_of
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_definitions, job_queue, job_ready, job_schedules

_schedule = job_schedules.c
_fired = rows_of("fired", schedule_id=Uuid, slot=tables.Timestamp, origin=Text)


def payload_of(origin: ColumnElement[Any]) -> ColumnElement[Any]:
    """What the job of a schedule gets: its template, in an object where it is none, and where the job comes from."""
    template = _schedule.payload_template
    written = func.jsonb_build_object(constant(ORIGIN_KEY), origin)
    return case(
        (func.jsonb_typeof(template) == constant("object"), template.op("||")(written)),
        else_=func.jsonb_build_object(constant("payload"), template).op("||")(written),
    )


_identified = (
    select(
        new_id().label("id"),
        _fired.c.ordinal,
        _schedule.id.label("schedule_id"),
        _fired.c.slot.label("scheduled_for"),
        _schedule.job_type,
        _schedule.organization_id,
        payload_of(cast(_fired.c.origin, JSONB)).label("payload"),
        job_definitions.c.default_priority.label("priority"),
        job_definitions.c.max_attempts,
        job_definitions.c.default_timeout_seconds.label("timeout_seconds"),
        func.jsonb_build_object(constant(SCHEDULE_HEADER), _schedule.name).label("headers"),
    )
    .select_from(
        _fired.join(job_schedules, _schedule.id == _fired.c.schedule_id).join(
            job_definitions, job_definitions.c.job_type == _schedule.job_type
        )
    )
    .order_by(_fired.c.ordinal)
    .cte("identified")
    .prefix_with("MATERIALIZED")
)
_recorded_columns = [column for column in _identified.c if column.name != "ordinal"]
_recorded = (
    upsert(job_queue)
    .from_select([column.name for column in _recorded_columns], select(*_recorded_columns))
    .on_conflict_do_nothing()
    .returning(job_queue.c.id)
    .cte("recorded")
)
_was_recorded = _identified.c.id.in_(select(_recorded.c.id))
_readied = (
    insert(job_ready)
    .from_select(
        ["job_id", "next_run_at", "priority", "run_number", "attempt", "job_type"],
        select(_identified.c.id, NOW, _identified.c.priority, ONE, ZERO, _identified.c.job_type)
        .where(_was_recorded)
        .order_by(_identified.c.ordinal),
    )
    .cte("readied")
)
FIRE_SLOTS = Statement(
    "fire_slots",
    select(_identified.c.ordinal, as_text(_identified.c.id), WOKEN)
    .where(_was_recorded)
    .order_by(_identified.c.ordinal)
    .add_cte(_readied),
)


def record_firings(ledger: LedgerConnection, wanted: Sequence[tuple[str, datetime | None, str]]) -> dict[int, str]:
    """A job, ready to run, for each schedule id, slot and origin; the ids of the new ones by their place in ``wanted``,
    in its order. A slot that has fired before makes none; without a slot there is no such identity.
    """
    schedule_ids, slots, origins = (list(column) for column in zip(*wanted, strict=True))
    parameters = {"schedule_ids": schedule_ids, "slots": slots, "origins": origins, "schema": ledger.schema}
    return {ordinal - 1: job_id for ordinal, job_id, _woken in ledger.fetch(FIRE_SLOTS, parameters)}
