"""What a preflight looks at: the jobs that live and the schedules that fire, page by page along their keys.

A job that lives stands in one of three places at any moment, and a page reads all three in one snapshot: so a job that
moves from one to another while pages are read is met once. Nothing is locked.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Text, Uuid, func, select

from runledger.core.filters import FIRST_ID
from runledger.core.preflight import StoredPayload
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ONE, TRUE, as_text, keyed, parameter
from runledger.postgres.fired_jobs import payload_of
from runledger.postgres.reads import check_page
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_leases, job_queue, job_ready, job_scheduled, job_schedules

_after_id = parameter("after", Uuid)
_limit = parameter("limit", Integer)


def _ids_in(place: Any) -> Any:
    """Stops by itself, so that the planner follows the key of each place and merges them."""
    return select(
        select(place.c.job_id.label("id"))
        .where(place.c.job_id > _after_id)
        .order_by(place.c.job_id)
        .limit(_limit)
        .subquery(place.name)
    )


_first, *_others = (_ids_in(place) for place in (job_ready, job_scheduled, job_leases))
_live = _first.union_all(*_others).subquery("live")
_page = select(_live.c.id).order_by(_live.c.id).limit(_limit).subquery("page")
_record = (
    select(job_queue.c.job_type, as_text(job_queue.c.payload).label("payload"))
    .where(job_queue.c.id == _page.c.id)
    .limit(ONE)
    .lateral("record")
)
LIST_LIVE_PAYLOADS = Statement(
    "list_live_payloads",
    select(as_text(_page.c.id), _record.c.job_type, _record.c.payload)
    .select_from(_page.join(_record, TRUE))
    .order_by(_page.c.id),
)

_schedule = job_schedules.c
_origin: ColumnElement[Any] = func.jsonb_build_object(
    *keyed(schedule_id=_schedule.id, schedule_name=_schedule.name, scheduled_for=_schedule.next_slot_at)
)
LIST_SCHEDULED_PAYLOADS = Statement(
    "list_scheduled_payloads",
    select(_schedule.name, _schedule.job_type, as_text(payload_of(_origin)))
    .where(_schedule.is_active)
    .where(_schedule.name > parameter("after", Text))
    .order_by(_schedule.name)
    .limit(_limit),
)


def list_live_payloads(connection: AnyConnection, *, after: str = "", limit: int) -> list[StoredPayload]:
    """The payloads of jobs that wait or are leased, the oldest first; pass the last id of a page as ``after`` to get
    the next one."""
    parameters = {"after": str(UUID(after) if after else FIRST_ID), "limit": check_page(limit)}
    return [StoredPayload(*row) for row in borrow(connection).fetch(LIST_LIVE_PAYLOADS, parameters)]


def list_scheduled_payloads(connection: AnyConnection, *, after: str = "", limit: int) -> list[StoredPayload]:
    """What the next jobs of the active schedules get as payload, by name; pass the last name of a page as ``after`` to
    get the next one."""
    parameters = {"after": after, "limit": check_page(limit)}
    return [StoredPayload(*row) for row in borrow(connection).fetch(LIST_SCHEDULED_PAYLOADS, parameters)]
