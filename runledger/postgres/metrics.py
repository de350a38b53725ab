"""``get_job_metrics``: the roll-up, and beside it the newest attempts, which it does not hold yet, in one snapshot."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, Text, and_, case, cast, func, literal_column, select, union_all

from runledger.core.errors import InvalidRequest
from runledger.core.jobs import Scope, ScopeKind
from runledger.core.metrics import JobMetrics, MetricsBy, MetricsWindow, Tally, window_of
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, ONE, ZERO, as_microseconds, from_microseconds, parameter
from runledger.postgres.metrics_rollup import ANY_SERIES, GLOBAL_SERIES, WORKER_SERIES, counted_attempts, moment
from runledger.postgres.operator_tables import job_metrics_progress, job_metrics_rollup
from runledger.postgres.scopes import in_scope, scoped
from runledger.postgres.statements import Parameters, Statement
from runledger.postgres.tables import (
    job_attempts,
    job_dead_letters,
    job_definitions,
    job_leases,
    job_queue,
    job_ready,
    job_scheduled,
)

_rollup, _dead = job_metrics_rollup.c, job_dead_letters.c


def _measures(name: Any) -> Any:
    """Slots and tail, which meet at the watermark. The tail's range has two ends, so that its plan is the index."""
    counted_until = select(job_metrics_progress.c.counted_until).where(job_metrics_progress.c.id == ONE)
    finished_at = job_attempts.c.finished_at
    tail = counted_attempts(
        and_(
            finished_at >= func.greatest(counted_until.scalar_subquery(), moment("since")),
            finished_at < moment("until"),
            in_scope(job_queue.c.organization_id),
        ),
        name.label("name"),
    )
    slots = (
        select(_rollup.name, _rollup.measure, _rollup.bucket, _rollup.attempts)
        .where(_rollup.series == parameter("series", Text))
        .where(_rollup.slot >= moment("since"), _rollup.slot < moment("until"))
    )
    both = union_all(slots, tail).subquery("both")
    keys = (both.c.name, both.c.measure, both.c.bucket)
    return select(*keys, cast(func.sum(both.c.attempts), BigInteger)).group_by(*keys)


def _places(*, is_scoped: bool) -> Any:
    """The jobs of each type in each place; records are looked at only for the tenants of a scope."""
    nothing = cast(ZERO, BigInteger)
    due_for = cast(func.extract("epoch", CLOCK - func.min(literal_column("next_run_at"))), Double)
    is_stale = job_leases.c.lease_expires_at <= CLOCK
    counts = {
        job_ready: (func.count(), nothing, nothing, nothing, due_for),
        job_scheduled: (nothing, func.count(), nothing, nothing, case((due_for > ZERO, due_for))),
        job_leases: (nothing, nothing, func.count(), func.count().filter(is_stale), cast(None, Double)),
    }
    selects = []
    for place, columns in counts.items():
        one = select(place.c.job_type, *columns).select_from(place).group_by(place.c.job_type)
        if is_scoped:
            tenants = select(job_queue.c.id).where(in_scope(job_queue.c.organization_id))
            one = one.where(place.c.job_id.in_(tenants))
        selects.append(one)
    return union_all(*selects)


METRICS_BY_TYPE = Statement("metrics_by_type", _measures(job_queue.c.job_type))
METRICS_BY_WORKER = Statement("metrics_by_worker", _measures(job_attempts.c.worker_id))
METRICS_PLACES = Statement("metrics_places", _places(is_scoped=False))
METRICS_PLACES_SCOPED = Statement("metrics_places_scoped", _places(is_scoped=True))
METRICS_LEASES = Statement(
    "metrics_leases",
    select(job_leases.c.worker_id, func.count(), func.count().filter(job_leases.c.lease_expires_at <= CLOCK)).group_by(
        job_leases.c.worker_id
    ),
)
METRICS_DEAD_LETTERS = Statement(
    "metrics_dead_letters",
    select(_dead.job_type, func.count())
    .where(_dead.failed_at >= moment("since"), _dead.failed_at < moment("until"))
    .where(in_scope(_dead.organization_id))
    .group_by(_dead.job_type),
)
METRICS_TYPES = Statement(
    "metrics_types",
    select(job_definitions.c.job_type, job_definitions.c.queue).order_by(job_definitions.c.job_type),
)
METRICS_CLOCK = Statement("metrics_clock", select(as_microseconds(CLOCK)))

Tallies = defaultdict[str, Tally]


def get_job_metrics(
    connection: AnyConnection,
    *,
    scope: Scope,
    since: datetime | None = None,
    until: datetime | None = None,
    by: MetricsBy = MetricsBy.TYPE,
) -> list[JobMetrics]:
    """A line for each defined type (zeros when idle), each queue, or each worker that ended an attempt or holds a
    lease, by name; ``since`` defaults to a day ago, and the window is widened to whole hours.

    Every attempt that is committed is counted, from the roll-up or directly, and exactly once. Not counted: attempts
    pruned before the reaper saw them, attempts settled more than 60 s after their handler ended, and what lies more
    than 31 days back. Percentiles are within 9.1 %. Only reads.

    Raises InvalidRequest for an empty window, and for workers in a scope of some tenants.
    """
    return read_metrics(connection, scope=scope, since=since, until=until, by=by)[1]


def read_metrics(
    connection: AnyConnection, *, scope: Scope, since: datetime | None, until: datetime | None, by: MetricsBy
) -> tuple[MetricsWindow, list[JobMetrics]]:
    """The lines of ``get_job_metrics``, and the whole slots that they speak of."""
    ledger = borrow(connection)
    if by is MetricsBy.WORKER and scope.kind is not ScopeKind.ANY:
        raise InvalidRequest("figures by worker are of all tenants")
    now = from_microseconds(ledger.fetch(METRICS_CLOCK)[0][0])
    window = window_of(since, until, now=now)
    parameters = scoped(scope) | {"since": window.since.isoformat(), "until": window.until.isoformat()}
    tallies = _of_workers(ledger, parameters) if by is MetricsBy.WORKER else _of_types(ledger, parameters, scope, by)
    seconds = (min(window.until, max(now, window.since)) - window.since).total_seconds()
    return window, [tally.metrics(name, seconds=seconds) for name, tally in sorted(tallies.items())]


def _of_types(ledger: Any, parameters: Parameters, scope: Scope, by: MetricsBy) -> Tallies:
    queues = dict(ledger.fetch(METRICS_TYPES))
    names = queues if by is MetricsBy.QUEUE else {job_type: job_type for job_type in queues}
    tallies: Tallies = defaultdict(Tally)
    for name in names.values():
        tallies[name]
    if scope.kind is ScopeKind.ANY:
        places = ledger.fetch(METRICS_PLACES)
    else:
        places = ledger.fetch(METRICS_PLACES_SCOPED, scoped(scope))
    for job_type, *place in places:
        tallies[names[job_type]].place(*place)
    for job_type, dead_letters in ledger.fetch(METRICS_DEAD_LETTERS, parameters):
        tallies[names[job_type]].dead_lettered += dead_letters
    for job_type, *measure in ledger.fetch(METRICS_BY_TYPE, parameters | {"series": _series_of(scope)}):
        tallies[names[job_type]].count(*measure)
    return tallies


def _of_workers(ledger: Any, parameters: Parameters) -> Tallies:
    tallies: Tallies = defaultdict(Tally)
    for worker_id, leased, stale in ledger.fetch(METRICS_LEASES):
        tallies[worker_id].place(0, 0, leased, stale, None)
    for worker_id, *measure in ledger.fetch(METRICS_BY_WORKER, parameters | {"series": WORKER_SERIES}):
        tallies[worker_id].count(*measure)
    return tallies


def _series_of(scope: Scope) -> str:
    if scope.organization_id is not None:
        return str(scope.organization_id)
    return ANY_SERIES if scope.kind is ScopeKind.ANY else GLOBAL_SERIES
