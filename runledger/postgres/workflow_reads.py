"""What people and programs read about workflows: runs, steps, edges. Every read names its scope and pages by key."""

from uuid import UUID

from sqlalchemy import Integer, Text, Uuid, case, func, or_, select, tuple_

from runledger.core import workflow_errors as errors
from runledger.core.errors import JobNotFound
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, ReleaseMode, StepKind, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflows import WorkflowRun, WorkflowStep, WorkflowStepDependency
from runledger.postgres import tables
from runledger.postgres.columns import Columns, decoded, decoded_json, decoded_moment, decoded_uuid, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import ZERO, as_microseconds, as_text, literal, parameter
from runledger.postgres.reads import check_page, in_scope, scoped
from runledger.postgres.statements import Statement
from runledger.postgres.tables import (
    job_leases,
    job_queue,
    workflow_runs,
    workflow_step_dependencies,
    workflow_steps,
)
from runledger.postgres.workflow_counts import ENQUEUED, run_status, step_status
from runledger.postgres.workflow_gates import run_identity

_run, _step, _edge = workflow_runs.c, workflow_steps.c, workflow_step_dependencies.c
_result_step, _result_job = workflow_steps.alias("result_step"), job_queue.alias("result_job")
_result = (
    select(func.coalesce(_result_step.c.output, _result_job.c.output))
    .select_from(_result_step.outerjoin(_result_job, _result_job.c.id == _result_step.c.job_id))
    .where(_result_step.c.workflow_run_id == _run.id)
    .where(_result_step.c.step_key == _run.result_step_key)
    .correlate(workflow_runs)
    .scalar_subquery()
)
_has_succeeded = _run.status == run_status(WorkflowRunStatus.SUCCEEDED)
_RUN: Columns = (
    (as_text(_run.id), UUID),
    (_run.workflow_type, same),
    (as_text(_run.organization_id), decoded_uuid),
    (as_text(_run.status), WorkflowRunStatus),
    (as_text(_run.metadata), decoded_json),
    (_run.idempotency_key, same),
    (_run.result_step_key, same),
    (as_text(case((_has_succeeded, _result))), decoded_json),
    (_run.step_count, same),
    (_run.unfinished_count, same),
    (_run.failed_count, same),
    (as_microseconds(_run.started_at), decoded_moment),
    (as_microseconds(_run.finished_at), decoded_moment),
    (_run.status_reason, same),
    (as_microseconds(_run.created_at), decoded_moment),
    (as_text(_run.rerun_of_run_id), decoded_uuid),
    (_run.active_key, same),
)
SELECT_RUN = Statement(
    "select_workflow_run",
    select(*selected(_RUN)).where(_run.id == parameter("run_id", Uuid)).where(in_scope(_run.organization_id)),
)
_type, _status = parameter("workflow_type", Text), parameter("status", Text)
_before = parameter("before", Uuid)
LIST_RUNS = Statement(
    "list_workflow_runs",
    select(*selected(_RUN))
    .where(in_scope(_run.organization_id))
    .where(or_(_type.is_(None), func.strpos(func.lower(_run.workflow_type), func.lower(_type)) > ZERO))
    .where(or_(_status.is_(None), as_text(_run.status) == _status))
    .where(or_(_before.is_(None), _run.id < _before))
    .order_by(_run.id.desc())
    .limit(parameter("limit", Integer)),
)

_job = job_queue.c
_is_leased = (_step.status == ENQUEUED) & job_leases.c.job_id.is_not(None)
_has_failed = _job.final_status != literal(JobStatus.SUCCEEDED, tables.job_status)
_STEP: Columns = (
    (as_text(_step.id), UUID),
    (as_text(_step.workflow_run_id), UUID),
    (_step.step_key, same),
    (as_text(_step.kind), StepKind),
    (as_text(case((_is_leased, step_status(WorkflowStepStatus.RUNNING)), else_=_step.status)), WorkflowStepStatus),
    (_step.job_type, same),
    (as_text(_step.organization_id), decoded_uuid),
    (as_text(_step.payload), decoded_json),
    (_step.priority, same),
    (_step.max_attempts, same),
    (_step.timeout_seconds, same),
    (as_text(_step.job_id), decoded_uuid),
    (_step.dependency_count_total, same),
    (_step.dependency_count_pending, same),
    (_step.dependency_count_unsatisfied, same),
    (as_text(func.coalesce(_step.output, _job.output)), decoded_json),
    (as_microseconds(_step.released_at), decoded_moment),
    (as_microseconds(_step.finished_at), decoded_moment),
    (func.coalesce(_step.status_reason, case((_has_failed, _job.status_reason))), same),
    (func.coalesce(_step.last_error_code, case((_has_failed, _job.last_error_code))), same),
    (func.coalesce(_step.last_error_message, case((_has_failed, _job.last_error_message))), same),
    (as_microseconds(_step.created_at), decoded_moment),
)
_after = parameter("after", Uuid)
LIST_STEPS = Statement(
    "list_workflow_steps",
    select(*selected(_STEP))
    .select_from(
        workflow_steps.join(workflow_runs, _run.id == _step.workflow_run_id)
        .outerjoin(job_queue, _job.id == _step.job_id)
        .outerjoin(job_leases, job_leases.c.job_id == _step.job_id)
    )
    .where(_step.workflow_run_id == parameter("run_id", Uuid))
    .where(in_scope(_run.organization_id))
    .where(or_(_after.is_(None), _step.id > _after))
    .order_by(_step.id)
    .limit(parameter("limit", Integer)),
)

_prerequisite, _dependent = workflow_steps.alias("prerequisite"), workflow_steps.alias("dependent")
_EDGE: Columns = (
    (as_text(_edge.workflow_run_id), UUID),
    (as_text(_edge.prerequisite_step_id), UUID),
    (_prerequisite.c.step_key, same),
    (as_text(_edge.dependent_step_id), UUID),
    (_dependent.c.step_key, same),
    (as_text(_edge.release_mode), ReleaseMode),
)
_after_edge = (parameter("after_dependent", Uuid), parameter("after_prerequisite", Uuid))
LIST_EDGES = Statement(
    "list_workflow_step_dependencies",
    select(*selected(_EDGE))
    .select_from(
        workflow_step_dependencies.join(_prerequisite, _prerequisite.c.id == _edge.prerequisite_step_id)
        .join(_dependent, _dependent.c.id == _edge.dependent_step_id)
        .join(workflow_runs, _run.id == _edge.workflow_run_id)
    )
    .where(_edge.workflow_run_id == parameter("run_id", Uuid))
    .where(in_scope(_run.organization_id))
    .where(
        or_(
            _after_edge[0].is_(None),
            tuple_(_edge.dependent_step_id, _edge.prerequisite_step_id) > tuple_(*_after_edge),
        )
    )
    .order_by(_edge.dependent_step_id, _edge.prerequisite_step_id)
    .limit(parameter("limit", Integer)),
)

SELECT_RUN_OF_JOB = Statement(
    "select_workflow_run_of_job",
    select(as_text(_job.workflow_run_id))
    .where(_job.id == parameter("job_id", Uuid))
    .where(in_scope(_job.organization_id)),
)


def get_workflow_run(connection: AnyConnection, run_id: UUID | str, *, scope: Scope) -> WorkflowRun:
    """The run as it is now, with its result once it has succeeded. Raises WorkflowRunNotFound when it does not exist in
    ``scope``."""
    rows = borrow(connection).fetch(SELECT_RUN, scoped(scope) | {"run_id": run_identity(run_id)})
    if not rows:
        raise errors.WorkflowRunNotFound("no such workflow run in this scope")
    return WorkflowRun(*decoded(_RUN, rows[0]))


def list_workflow_runs(
    connection: AnyConnection,
    *,
    scope: Scope,
    workflow_type: str | None = None,
    status: WorkflowRunStatus | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> list[WorkflowRun]:
    """Runs, the newest first, whose type contains ``workflow_type`` in whatever case; pass the last ``run_id`` of a
    page as ``before`` to get the next one."""
    parameters = scoped(scope) | {
        "workflow_type": workflow_type,
        "status": None if status is None else WorkflowRunStatus(status).value,
        "before": None if before is None else run_identity(before),
        "limit": check_page(limit),
    }
    return [WorkflowRun(*decoded(_RUN, row)) for row in borrow(connection).fetch(LIST_RUNS, parameters)]


def list_workflow_steps(
    connection: AnyConnection, run_id: UUID | str, *, scope: Scope, after: UUID | None = None, limit: int = 1_000
) -> list[WorkflowStep]:
    """The steps of a run in the order they were given; pass the last ``step_id`` of a page as ``after`` to get the
    next one. The scope is that of the run."""
    parameters = scoped(scope) | {
        "run_id": run_identity(run_id),
        "after": None if after is None else str(after),
        "limit": check_page(limit),
    }
    return [WorkflowStep(*decoded(_STEP, row)) for row in borrow(connection).fetch(LIST_STEPS, parameters)]


def list_workflow_step_dependencies(
    connection: AnyConnection,
    run_id: UUID | str,
    *,
    scope: Scope,
    after: WorkflowStepDependency | None = None,
    limit: int = 1_000,
) -> list[WorkflowStepDependency]:
    """The edges of a run by dependent and prerequisite; pass the last one of a page as ``after`` to get the next one.
    The scope is that of the run."""
    parameters = scoped(scope) | {
        "run_id": run_identity(run_id),
        "after_dependent": after and str(after.dependent_step_id),
        "after_prerequisite": after and str(after.prerequisite_step_id),
        "limit": check_page(limit),
    }
    return [WorkflowStepDependency(*decoded(_EDGE, row)) for row in borrow(connection).fetch(LIST_EDGES, parameters)]


def get_workflow_run_id_for_job(connection: AnyConnection, job_id: UUID | str, *, scope: Scope) -> UUID | None:
    """The run that the job belongs to; None for a plain job. Raises JobNotFound when it does not exist in ``scope``."""
    rows = borrow(connection).fetch(SELECT_RUN_OF_JOB, scoped(scope) | {"job_id": run_identity(job_id, JobNotFound)})
    if not rows:
        raise JobNotFound("no such job in this scope")
    return decoded_uuid(rows[0][0])
