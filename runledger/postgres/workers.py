"""The registry of worker processes: keepers announce those of their host and people read it; nothing else needs it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Double, Integer, Text, and_, cast, delete, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.workers import RegisteredWorker, WorkerAnnouncement, WorkerHost, WorkerState
from runledger.postgres.columns import Columns, decoded, decoded_moment, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import (
    CLOCK,
    ONE,
    ONE_SECOND,
    as_microseconds,
    as_text,
    constant,
    parameter,
    rows_of,
    seconds,
)
from runledger.postgres.reads import check_page
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_leases, job_workers

KEPT_SECONDS = 86_400
"""How long the row of a host that vanished stays, so that somebody can see that it did."""

_worker = job_workers.c
_host_id = parameter("host_id", Text)
_given = rows_of(
    "given",
    worker_id=Text,
    pid=Integer,
    state=Text,
    job_types=Text,
    started_ago=Double,
    running_token=BigInteger,
    jobs_done=BigInteger,
    rss_kb=Integer,
)
_of_process = {
    "worker_id": _given.c.worker_id,
    "pid": _given.c.pid,
    "state": _given.c.state,
    "job_types": cast(_given.c.job_types, JSONB),
    "started_at": CLOCK - _given.c.started_ago * ONE_SECOND,
    "running_token": _given.c.running_token,
    "jobs_done": _given.c.jobs_done,
    "rss_kb": _given.c.rss_kb,
}
_of_host = {
    "host_id": _host_id,
    "host_name": parameter("host_name", Text),
    "app": parameter("app", Text),
    "version": parameter("version", Text),
    "queues": parameter("queues", ARRAY(Text)),
    "seen_at": CLOCK,
    "expires_at": CLOCK + seconds("ttl_seconds"),
}
_values = _of_process | _of_host
_gone = (
    delete(job_workers)
    .where(
        or_(
            and_(_worker.host_id == _host_id, _worker.worker_id != func.all(parameter("worker_ids", ARRAY(Text)))),
            _worker.expires_at < CLOCK - constant(str(KEPT_SECONDS)).cast(Integer) * ONE_SECOND,
        )
    )
    .returning(_worker.worker_id)
    .cte("gone")
)
_announced = upsert(job_workers).from_select(list(_values), select(*_values.values()))
ANNOUNCE_WORKERS = Statement(
    "announce_workers",
    _announced.on_conflict_do_update(
        index_elements=["worker_id"],
        set_={
            name: _announced.excluded[name]
            for name in ("state", "job_types", "seen_at", "expires_at", "running_token", "jobs_done", "rss_kb")
        },
    ).add_cte(_gone),
)
WITHDRAW_WORKERS = Statement("withdraw_workers", delete(job_workers).where(_worker.host_id == _host_id))

_lease = job_leases.c
_held = select(func.count()).where(_lease.worker_id == _worker.worker_id).scalar_subquery()
_running = (
    select(as_text(_lease.job_id))
    .where(_lease.worker_id == _worker.worker_id)
    .order_by((_lease.lease_token == _worker.running_token).desc().nulls_last(), _lease.lease_token)
    .limit(ONE)
    .scalar_subquery()
)
IS_LIVE = _worker.expires_at > CLOCK
"""Whether the host of a row was heard of in time."""


def _texts(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


_REGISTERED: Columns = (
    (_worker.worker_id, same),
    (_worker.host_id, same),
    (_worker.host_name, same),
    (_worker.pid, same),
    (_worker.app, same),
    (_worker.version, same),
    (_worker.state, WorkerState),
    (IS_LIVE, same),
    (as_text(_worker.job_types), _texts),
    (as_text(func.to_jsonb(_worker.queues)), _texts),
    (as_microseconds(_worker.started_at), decoded_moment),
    (as_microseconds(_worker.seen_at), decoded_moment),
    (as_microseconds(_worker.expires_at), decoded_moment),
    (_running, decoded_uuid),
    (_held, same),
    (_worker.jobs_done, same),
    (_worker.rss_kb, same),
)
LIST_WORKERS = Statement(
    "list_workers",
    select(*selected(_REGISTERED))
    .where(or_(parameter("after", Text).is_(None), _worker.worker_id > parameter("after", Text)))
    .order_by(_worker.worker_id)
    .limit(parameter("limit", Integer)),
)


def announce_workers(
    connection: AnyConnection, host: WorkerHost, workers: Sequence[WorkerAnnouncement], *, ttl_seconds: float
) -> None:
    """These are the workers of the host, and no others; heard of now, and dead unless heard of again within
    ``ttl_seconds``. Rows of hosts that vanished more than a day ago are gone."""
    parameters: dict[str, Any] = {
        f"{name}s": [getattr(one, name) for one in workers]
        for name in ("worker_id", "pid", "job_types", "started_ago", "running_token", "jobs_done", "rss_kb")
    }
    borrow(connection).fetch(
        ANNOUNCE_WORKERS,
        parameters
        | {
            "states": [one.state.value for one in workers],
            "host_id": host.host_id,
            "host_name": host.host_name,
            "app": host.app,
            "version": host.version,
            "queues": None if host.queues is None else list(host.queues),
            "ttl_seconds": ttl_seconds,
        },
    )


def withdraw_workers(connection: AnyConnection, host_id: str) -> None:
    """The host has stopped; none of its workers is left."""
    borrow(connection).fetch(WITHDRAW_WORKERS, {"host_id": host_id})


def list_workers(connection: AnyConnection, *, after: str | None = None, limit: int = 1_000) -> list[RegisteredWorker]:
    """Worker processes by id, also those whose host vanished within the last day (``is_live`` is false); pass the last
    ``worker_id`` of a page as ``after`` to get the next one. One that was IDLE when its host last spoke and holds a job
    now is BUSY."""
    rows = borrow(connection).fetch(LIST_WORKERS, {"after": after, "limit": check_page(limit)})
    found = [RegisteredWorker(*decoded(_REGISTERED, row)) for row in rows]
    return [replace(one, state=WorkerState.BUSY) if _has_begun(one) else one for one in found]


def _has_begun(worker: RegisteredWorker) -> bool:
    return worker.state is WorkerState.IDLE and worker.job_id is not None
