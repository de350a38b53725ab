"""Cancel a run: all of it with one commit, whatever its jobs are doing at that moment."""

from uuid import UUID

from sqlalchemy import Text, Uuid, case, delete, func, select, update

from runledger.core import workflow_errors as errors
from runledger.core.gate import REASON_LIMIT, clean_text
from runledger.core.jobs import Scope
from runledger.core.states import ReleaseMode, WorkflowRunStatus
from runledger.postgres import tables
from runledger.postgres.cancellation import canceled
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, FALSE, ZERO, constant, literal, parameter
from runledger.postgres.statements import Statement
from runledger.postgres.tables import (
    job_leases,
    job_ready,
    job_scheduled,
    workflow_runs,
    workflow_step_dependencies,
    workflow_steps,
)
from runledger.postgres.workflow_append import run_state
from runledger.postgres.workflow_counts import BLOCKED, CANCELED, ENQUEUED, RUN_CANCELED, WAITING
from runledger.postgres.workflow_gates import run_identity
from runledger.postgres.workflow_locks import lock_runs

TRIES = 10
"""How often the places are looked at again when a job moved from one to another meanwhile."""

CANCELED_WITH_RUN = "workflow.run_canceled"
"""Stored on steps that had not ended when their run was cancelled; not an exception."""

_step, _run, _edge = workflow_steps.c, workflow_runs.c, workflow_step_dependencies.c
_run_id = parameter("run_id", Uuid)
_jobs = select(_step.job_id).where(_step.workflow_run_id == _run_id).where(_step.status == ENQUEUED).cte("live_jobs")
_locked_leases = (
    select(job_leases.c.job_id)
    .where(job_leases.c.job_id.in_(select(_jobs.c.job_id)))
    .order_by(job_leases.c.job_id)
    .with_for_update()
    .cte("locked_leases")
    .prefix_with("MATERIALIZED")
)
_ready, _scheduled, _leased = (
    delete(place).where(place.c.job_id.in_(select(chosen.c.job_id))).returning(*place.c).cte(name)
    for name, place, chosen in (
        ("ready", job_ready, _jobs),
        ("scheduled", job_scheduled, _jobs),
        ("leased", job_leases, _locked_leases),
    )
)
CANCEL_RUN_JOBS = Statement("cancel_jobs_of_run", canceled(_ready, _scheduled, _leased))
"""The jobs of the run that are in a place now. Leases are locked in the order of their ids, as every settle does."""

_live = _step.status.in_((BLOCKED, WAITING, ENQUEUED))
_prerequisite = workflow_steps.alias("prerequisite")
_newly_broken = (
    select(func.count())
    .select_from(workflow_step_dependencies.join(_prerequisite, _prerequisite.c.id == _edge.prerequisite_step_id))
    .where(_edge.dependent_step_id == _step.id)
    .where(_edge.release_mode == literal(ReleaseMode.ON_SUCCESS, tables.workflow_release_mode))
    .where(_prerequisite.c.status.in_((BLOCKED, WAITING, ENQUEUED)))
    .correlate(workflow_steps)
    .scalar_subquery()
)
_ended = (
    update(workflow_steps)
    .where(_step.workflow_run_id == _run_id)
    .where(_live)
    .values(
        status=CANCELED,
        finished_at=CLOCK,
        dependency_count_pending=ZERO,
        dependency_count_unsatisfied=_step.dependency_count_unsatisfied
        + case((_step.dependency_count_pending > ZERO, _newly_broken), else_=ZERO),
        status_reason=func.coalesce(parameter("reason", Text), constant(CANCELED_WITH_RUN)),
        last_error_code=constant(CANCELED_WITH_RUN),
    )
    .returning(_step.id)
    .cte("ended")
)
CANCEL_RUN = Statement(
    "cancel_workflow_run",
    update(workflow_runs)
    .where(_run.id == _run_id)
    .values(
        status=RUN_CANCELED,
        finished_at=CLOCK,
        failed_count=_run.failed_count + _run.unfinished_count,
        unfinished_count=ZERO,
        enqueued_count=ZERO,
        waiting_count=ZERO,
        holds_active_key=FALSE,
        status_reason=func.coalesce(parameter("reason", Text), constant("CANCELED")),
        updated_at=CLOCK,
    )
    .add_cte(_ended),
)


def cancel_workflow_run(
    connection: AnyConnection,
    *,
    run_id: UUID | str,
    reason: str | None = None,
    actor: str | None = None,
    scope: Scope | None = None,
) -> bool:
    """The run, its live jobs and every step that had not ended are CANCELED with the caller's commit; running attempts
    have lost their leases. False, and nothing happened, when the run had ended already. Steps that ended stay as they
    are.

    Locks the run, then the places of its jobs. Four statements, and one more for each time a job moved meanwhile.

    Raises TransactionRequired, CancelUnsupportedIsolation, WorkflowReleaseConflict, WorkflowRunNotFound (also outside
    ``scope``), or WorkflowInternalState when a job of the run is in no place.
    """
    ledger = borrow(connection)
    run = run_identity(run_id)
    lock_runs(ledger, [run], unsupported=errors.CancelUnsupportedIsolation)
    state = run_state(ledger, run, scope)
    if WorkflowRunStatus(state.status).is_final:
        return False
    words = {
        "run_id": run,
        "reason": None if reason is None else clean_text(reason, REASON_LIMIT),
        "actor": None if actor is None else clean_text(actor, 200),
    }
    left = state.enqueued_count
    for _ in range(TRIES):
        if not left:
            break
        left -= len(ledger.fetch(CANCEL_RUN_JOBS, words))
    if left:
        raise errors.WorkflowInternalState("a job of the run is in no place where it could be cancelled")
    ledger.fetch(CANCEL_RUN, {"run_id": run, "reason": words["reason"]})
    return True
