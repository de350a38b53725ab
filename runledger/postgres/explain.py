"""Why a job is where it is: every fact that decides about it, read in one statement, so in one snapshot."""

from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, and_, func, literal_column, or_, select, tuple_

from runledger.core.errors import JobNotFound
from runledger.core.explaining import explain
from runledger.core.explanations import RECENT_SECONDS, JobExplanation, JobFacts
from runledger.core.jobs import Scope
from runledger.core.states import JobEventType, JobStage, JobStatus, Outcome
from runledger.core.workers import WorkerState
from runledger.postgres import tables
from runledger.postgres.columns import Columns, decoded, decoded_moment, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import (
    ASKED_AT,
    CLOCK,
    ONE,
    ONE_SECOND,
    TRUE,
    as_microseconds,
    as_text,
    constant,
    literal,
    parameter,
)
from runledger.postgres.limits import HAS_PLACE
from runledger.postgres.reads import in_scope, job_identity, scoped
from runledger.postgres.statements import Statement
from runledger.postgres.tables import (
    job_attempts,
    job_definitions,
    job_events,
    job_leases,
    job_ready,
    job_starts,
    job_workers,
    jobs,
    workflow_steps,
)
from runledger.postgres.workers import IS_LIVE

MOST_COUNTED = 100_000
"""Jobs ahead of one in line are counted this far; beyond, nobody cares how many more there are."""

_job, _definition, _worker, _event = jobs.c, job_definitions.c, job_workers.c, job_events.c
_asked = (
    select(jobs, job_leases.c.renewed_at)
    .select_from(jobs.outerjoin(job_leases, job_leases.c.job_id == _job.id))
    .where(_job.id == parameter("job_id", Uuid))
    .where(in_scope(_job.organization_id))
    .cte("asked")
)
_defined = (
    select(job_definitions).where(_definition.job_type == select(_asked.c.job_type).scalar_subquery()).cte("defined")
)


def _state(state: WorkerState) -> Any:
    return _worker.state == constant(state.value)


_serves_type = or_(_worker.job_types.is_(None), _worker.job_types.has_key(select(_asked.c.job_type).scalar_subquery()))
_serves_queue = or_(_worker.queues.is_(None), select(_defined.c.queue).scalar_subquery() == func.any(_worker.queues))
_is_serving = and_(_serves_type, _serves_queue)
_known = (
    select(
        _worker.worker_id,
        _worker.job_types,
        IS_LIVE.label("is_live"),
        and_(IS_LIVE, _is_serving, ~_state(WorkerState.LEAVING)).label("is_serving"),
        and_(IS_LIVE, _serves_type, ~_serves_queue).label("is_of_other_queue"),
        and_(~IS_LIVE, _is_serving).label("is_lost"),
        _state(WorkerState.IDLE).label("is_idle"),
        _state(WorkerState.QUIET).label("is_quiet"),
    )
    .cte("known")
    .prefix_with("MATERIALIZED")
)
_served_types = (
    select(func.jsonb_array_elements_text(_known.c.job_types).label("job_type"))
    .where(_known.c.is_serving)
    .union(select(_asked.c.job_type))
    .cte("served_types")
)
_claimable = (
    select(_served_types.c.job_type)
    .select_from(_served_types.join(job_definitions, _definition.job_type == _served_types.c.job_type))
    .where(~_definition.is_paused)
    .where(HAS_PLACE)
    .cte("claimable")
)
_ahead = (
    select(ONE)
    .select_from(job_ready.join(_asked, TRUE))
    .where(job_ready.c.job_type.in_(select(_claimable.c.job_type)))
    .where(
        or_(
            job_ready.c.priority > _asked.c.priority,
            and_(
                job_ready.c.priority == _asked.c.priority,
                tuple_(job_ready.c.next_run_at, job_ready.c.job_id) < tuple_(_asked.c.next_run_at, _asked.c.id),
            ),
        )
    )
    .limit(literal_column(str(MOST_COUNTED)))
    .subquery("before_it")
)
_recent_ends = (
    select(func.count())
    .where(job_attempts.c.finished_at > ASKED_AT - literal_column(str(RECENT_SECONDS)) * ONE_SECOND)
    .where(job_attempts.c.worker_id.in_(select(_known.c.worker_id).where(_known.c.is_serving)))
    .scalar_subquery()
)
_running_limited = (
    select(func.count())
    .where(job_leases.c.job_type == _asked.c.job_type)
    .where(job_leases.c.is_limited)
    .scalar_subquery()
)
_recent_starts = (
    select(func.count())
    .select_from(job_starts.join(_defined, _defined.c.job_type == job_starts.c.job_type))
    .where(job_starts.c.started_at > ASKED_AT - _defined.c.rate_seconds * ONE_SECOND)
    .scalar_subquery()
)
_last = (
    select(
        job_attempts.c.outcome,
        job_attempts.c.error_code,
        job_attempts.c.error_message,
        job_attempts.c.worker_id,
        job_attempts.c.exit_signal,
    )
    .where(job_attempts.c.job_id == _asked.c.id)
    .where(job_attempts.c.run_number == _asked.c.run_number)
    .order_by(job_attempts.c.lease_token.desc())
    .limit(ONE)
    .lateral("last")
)
_cancel = (
    select(_event.actor, _event.reason)
    .where(_event.job_id == _asked.c.id)
    .where(_event.event_type == literal(JobEventType.CANCELED, tables.job_event_type))
    .order_by(_event.id.desc())
    .limit(ONE)
    .lateral("cancel")
)
_crashes = (
    select(func.count())
    .where(job_attempts.c.job_id == _asked.c.id)
    .where(job_attempts.c.run_number == _asked.c.run_number)
    .where(job_attempts.c.outcome == literal(Outcome.PANICKED, tables.job_outcome))
    .scalar_subquery()
)
_holder = select(_known.c.is_live).where(_known.c.worker_id == _asked.c.worker_id).scalar_subquery()
_step_key = select(workflow_steps.c.step_key).where(workflow_steps.c.id == _asked.c.workflow_step_id).scalar_subquery()


def _workers(*conditions: Any) -> Any:
    return select(func.count()).select_from(_known).where(*conditions).scalar_subquery()


def _outcome(text: str | None) -> Outcome | None:
    return None if text is None else Outcome(text)


_FACTS: Columns = (
    (as_microseconds(CLOCK), decoded_moment),
    (as_text(_asked.c.id), UUID),
    (_asked.c.job_type, same),
    (as_text(_asked.c.status), JobStatus),
    (_asked.c.stage, JobStage),
    (_asked.c.run_number, same),
    (_asked.c.attempt, same),
    (_asked.c.max_attempts, same),
    (_asked.c.timeout_seconds, same),
    (_asked.c.priority, same),
    (as_microseconds(_asked.c.created_at), decoded_moment),
    (as_microseconds(_asked.c.next_run_at), decoded_moment),
    (as_microseconds(_asked.c.expires_at), decoded_moment),
    (as_microseconds(_asked.c.leased_at), decoded_moment),
    (as_microseconds(_asked.c.renewed_at), decoded_moment),
    (as_microseconds(_asked.c.lease_expires_at), decoded_moment),
    (_asked.c.worker_id, same),
    (as_microseconds(_asked.c.finished_at), decoded_moment),
    (as_microseconds(_asked.c.quiesces_at), decoded_moment),
    (_asked.c.status_reason, same),
    (_defined.c.job_type.is_not(None), same),
    (_defined.c.queue, same),
    (_defined.c.is_enabled, same),
    (_defined.c.is_paused, same),
    (_defined.c.max_running, same),
    (_running_limited, same),
    (_defined.c.rate_starts, same),
    (_defined.c.rate_seconds, same),
    (_recent_starts, same),
    (_defined.c.changed_by, same),
    (_defined.c.change_reason, same),
    (as_microseconds(_defined.c.updated_at), decoded_moment),
    (_defined.c.crash_budget, same),
    (_crashes, same),
    (_workers(_known.c.is_serving), same),
    (_workers(_known.c.is_serving, _known.c.is_idle), same),
    (_workers(_known.c.is_serving, _known.c.is_quiet), same),
    (_workers(_known.c.is_of_other_queue), same),
    (_workers(_known.c.is_live), same),
    (_workers(_known.c.is_lost), same),
    (_holder, same),
    (select(func.count()).select_from(_ahead).scalar_subquery(), same),
    (_recent_ends, same),
    (as_text(_last.c.outcome), _outcome),
    (_last.c.error_code, same),
    (_last.c.error_message, same),
    (_last.c.worker_id, same),
    (_last.c.exit_signal, same),
    (_cancel.c.actor, same),
    (_cancel.c.reason, same),
    (as_text(_asked.c.workflow_run_id), decoded_uuid),
    (_step_key, same),
)
SELECT_FACTS = Statement(
    "select_job_facts",
    select(*(column.label(f"fact_{number}") for number, column in enumerate(selected(_FACTS)))).select_from(
        _asked.outerjoin(_defined, TRUE).outerjoin(_last, TRUE).outerjoin(_cancel, TRUE)
    ),
)


def explain_job(connection: AnyConnection, job_id: UUID | str, *, scope: Scope) -> JobExplanation:
    """Why the job waits, who runs it, or why it ended; in one statement, which locks nothing.

    Place and start in line are guesses: jobs before it that the same workers serve, at the rate at which these ended
    attempts lately. Raises JobNotFound when the job does not exist in ``scope``.
    """
    rows = borrow(connection).fetch(SELECT_FACTS, scoped(scope) | {"job_id": job_identity(job_id)})
    if not rows:
        raise JobNotFound("no such job in this scope")
    return explain(JobFacts(*decoded(_FACTS, rows[0])))
