"""Why a step does not run, or a run does not end: along the edges back to where the trouble began, in one statement.

From a step that waits, or was cancelled because it could never run, the way leads over each unmet edge to its
prerequisite, and so on; where it ends is a root cause. Each step is looked at once, whatever the number of ways.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

from runledger.core import workflow_errors as errors
from runledger.core.jobs import Scope
from runledger.core.states import ReleaseMode, StepKind, WorkflowRunStatus, WorkflowStepStatus
from runledger.core.workflow_explanations import (
    RootCause,
    UnmetEdge,
    WorkflowRunExplanation,
    WorkflowStepExplanation,
)
from runledger.core.workflows import DEPENDENCY_UNSATISFIED
from runledger.postgres import tables
from runledger.postgres.columns import decoded_uuid
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import FALSE, ONE, TRUE, ZERO, as_text, constant, literal, parameter
from runledger.postgres.reads import in_scope, scoped
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import (
    job_leases,
    job_queue,
    workflow_runs,
    workflow_step_dependencies,
    workflow_steps,
)
from runledger.postgres.workflow_counts import BLOCKED, CANCELED, ENQUEUED, FAILED, SUCCEEDED, WAITING, step_status
from runledger.postgres.workflow_gates import run_identity

MOST_EDGES = 100
"""How many unmet edges an explanation shows; their number is always the whole."""

MOST_CAUSES = 20
"""The same for root causes."""

_run, _step, _edge = workflow_runs.c, workflow_steps.c, workflow_step_dependencies.c
_before = workflow_steps.alias("before")
_run_id, _step_key = parameter("run_id", Uuid), parameter("step_key", Text)
_TWO: ColumnElement[Any] = literal_column("2")
_THREE: ColumnElement[Any] = literal_column("3")
_RUNNING = step_status(WorkflowStepStatus.RUNNING)


def _points_on(step: Any) -> Any:
    """Whether other steps are to blame: it is blocked, or was cancelled because of an edge."""
    is_unsatisfied = and_(step.status == CANCELED, step.last_error_code == constant(DEPENDENCY_UNSATISFIED))
    return case((step.status == BLOCKED, TRUE), (is_unsatisfied, TRUE), else_=FALSE)


def _is_unmet(release_mode: Any) -> Any:
    """Whether an edge of this mode from ``before`` is in the way: it has not ended, or not as the edge needs it."""
    is_on_success = release_mode == literal(ReleaseMode.ON_SUCCESS, tables.workflow_release_mode)
    return or_(_before.c.status.in_((BLOCKED, WAITING, ENQUEUED)), and_(is_on_success, _before.c.status != SUCCEEDED))


def _concerned(asked: CTE) -> CTE:
    """The asked step and every step that unmet edges lead back to. The lateral parts with their offset keep each turn
    of the recursion on the indexes, whatever the statistics say."""
    walk = (
        select(_step.id, _points_on(_step).label("points_on"))
        .where(_step.id == select(asked.c.id).scalar_subquery())
        .cte("concerned", recursive=True)
    )
    edge = (
        select(_edge.prerequisite_step_id, _edge.release_mode)
        .where(_edge.dependent_step_id == walk.c.id)
        .where(walk.c.points_on)
        .offset(ZERO)
        .lateral("edge")
    )
    back = (
        select(_before.c.id, _points_on(_before.c).label("points_on"))
        .where(_before.c.id == edge.c.prerequisite_step_id)
        .where(_is_unmet(edge.c.release_mode))
        .offset(ZERO)
        .lateral("back")
    )
    steps = walk.join(edge, TRUE).join(back, TRUE)
    return walk.union(select(back.c.id, back.c.points_on).select_from(steps))


def _row(part: Any, **columns: Any) -> list[Any]:
    """The columns of one part of the answer: the asked, its unmet edges, the root causes."""
    shape = dict.fromkeys(_TEXTS, _nothing) | {"total": ZERO, "rank": ZERO} | columns
    return [part.label("part"), *(value.label(name) for name, value in shape.items())]


_nothing = cast(null(), Text)
_TEXTS = ("step_key", "kind", "status", "detail", "job_id", "code", "message", "reason")
_is_leased = and_(_step.status == ENQUEUED, job_leases.c.job_id.is_not(None))
_shown_status = as_text(case((_is_leased, _RUNNING), else_=_step.status))
_rank = case(
    (_step.status == FAILED, ZERO), (_step.status == CANCELED, ONE), (_step.status == WAITING, _TWO), else_=_THREE
)


def _causes(source: Any, *conditions: Any) -> Any:
    """Root causes, the gravest first, each with the number of all of them."""
    first = (
        select(_step.id, _rank.label("rank"), func.count().over().label("total"))
        .select_from(source)
        .where(*conditions)
        .order_by(_rank, _step.id)
        .limit(literal_column(str(MOST_CAUSES)))
        .subquery("first")
    )
    job = job_queue.c
    return select(
        *_row(
            _TWO,
            step_key=_step.step_key,
            kind=as_text(_step.kind),
            status=_shown_status,
            detail=_step.job_type,
            job_id=as_text(_step.job_id),
            code=func.coalesce(_step.last_error_code, job.last_error_code),
            message=func.coalesce(_step.last_error_message, job.last_error_message),
            reason=func.coalesce(_step.status_reason, job.status_reason),
            total=first.c.total,
            rank=first.c.rank,
            id=_step.id,
        )
    ).select_from(
        first.join(workflow_steps, _step.id == first.c.id)
        .outerjoin(job_queue, job.id == _step.job_id)
        .outerjoin(job_leases, job_leases.c.job_id == _step.job_id)
    )


_asked = (
    select(
        *_row(
            ZERO,
            step_key=_step.step_key,
            kind=as_text(_step.kind),
            status=_shown_status,
            detail=as_text(_run.status),
            job_id=as_text(_step.job_id),
            id=_step.id,
        )
    )
    .select_from(
        workflow_steps.join(workflow_runs, _run.id == _step.workflow_run_id).outerjoin(
            job_leases, job_leases.c.job_id == _step.job_id
        )
    )
    .where(_step.workflow_run_id == _run_id)
    .where(_step.step_key == _step_key)
    .where(in_scope(_run.organization_id))
    .cte("asked")
)
_unmet = (
    select(
        *_row(
            ONE,
            step_key=_before.c.step_key,
            kind=as_text(_before.c.kind),
            status=as_text(_before.c.status),
            detail=as_text(_edge.release_mode),
            total=func.count().over(),
            rank=case((_before.c.status.in_((FAILED, CANCELED)), ZERO), else_=ONE),
            id=_before.c.id,
        )
    )
    .select_from(
        _asked.join(workflow_step_dependencies, _edge.dependent_step_id == _asked.c.id).join(
            _before, _before.c.id == _edge.prerequisite_step_id
        )
    )
    .where(_is_unmet(_edge.release_mode))
    .order_by(literal_column("rank"), _before.c.id)
    .limit(literal_column(str(MOST_EDGES)))
)
_walk = _concerned(_asked)
_step_causes = _causes(
    _walk.join(workflow_steps, _step.id == _walk.c.id), ~_walk.c.points_on, _step.status != SUCCEEDED
)
_ORDER: list[ColumnElement[Any]] = [literal_column("part"), literal_column("rank"), literal_column("id")]
EXPLAIN_STEP = Statement(
    "explain_workflow_step",
    union_all(select(_asked), select(_unmet.subquery("unmet")), _step_causes).order_by(*_ORDER),
)

_asked_run = (
    select(*_row(ZERO, status=as_text(_run.status), reason=_run.status_reason, id=_run.id))
    .where(_run.id == _run_id)
    .where(in_scope(_run.organization_id))
    .cte("asked")
)
_run_causes = _causes(
    workflow_steps,
    _step.workflow_run_id == select(_asked_run.c.id).scalar_subquery(),
    _step.status.in_((WAITING, ENQUEUED, FAILED, CANCELED)),
    ~_points_on(_step),
)
EXPLAIN_RUN = Statement("explain_workflow_run", union_all(select(_asked_run), _run_causes).order_by(*_ORDER))


def explain_workflow_step(
    connection: AnyConnection, *, run_id: UUID | str, step_key: str, scope: Scope
) -> WorkflowStepExplanation:
    """What holds the step up, or held it up until it was cancelled: its unmet edges, and the steps where these lead to
    in the end. One statement, which reads no more of the graph than lies on the way. The scope is that of the run.

    Raises WorkflowStepNotFound when there is no such step in ``scope``.
    """
    place = {"run_id": run_identity(run_id, errors.WorkflowStepNotFound), "step_key": str(step_key)}
    rows = borrow(connection).fetch(EXPLAIN_STEP, place | scoped(scope))
    if not rows:
        raise errors.WorkflowStepNotFound("no such step in this scope")
    asked, edges, causes = rows[0], [row for row in rows if row[0] == 1], [row for row in rows if row[0] == 2]
    return WorkflowStepExplanation(
        run_id=UUID(place["run_id"]),
        run_status=WorkflowRunStatus(asked[4]),
        step_key=asked[1],
        kind=StepKind(asked[2]),
        status=WorkflowStepStatus(asked[3]),
        job_id=decoded_uuid(asked[5]),
        unmet_edges=tuple(UnmetEdge(row[1], WorkflowStepStatus(row[3]), ReleaseMode(row[4])) for row in edges),
        unmet_edge_count=edges[0][9] if edges else 0,
        root_causes=tuple(_cause(row) for row in causes),
        root_cause_count=causes[0][9] if causes else 0,
    )


def explain_workflow_run(connection: AnyConnection, *, run_id: UUID | str, scope: Scope) -> WorkflowRunExplanation:
    """What keeps the run from ending, or from having succeeded: its failures, open gates and jobs. One statement.

    Raises WorkflowRunNotFound when it does not exist in ``scope``.
    """
    run = run_identity(run_id)
    rows = borrow(connection).fetch(EXPLAIN_RUN, {"run_id": run} | scoped(scope))
    if not rows:
        raise errors.WorkflowRunNotFound("no such workflow run in this scope")
    (_, _, _, status, _, _, _, _, reason, *_), *causes = rows
    total = causes[0][9] if causes else 0
    return WorkflowRunExplanation(
        UUID(run), WorkflowRunStatus(status), reason, tuple(_cause(row) for row in causes), total
    )


def _cause(row: Row) -> RootCause:
    _, step_key, kind, status, job_type, job_id, code, message, reason, *_ = row
    job = decoded_uuid(job_id)
    return RootCause(step_key, StepKind(kind), WorkflowStepStatus(status), job_type, job, code, message, reason)
