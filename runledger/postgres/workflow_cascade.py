"""Cancel all that can never run behind steps that ended without success: two statements, however deep the graph.

A level at a time would take a statement for each step of a long chain. So what is still blocked is read once, its
counters are counted down here, and what came of it is written at once. The caller holds the rows of the runs.
"""

from collections.abc import Collection

from sqlalchemy import ARRAY, Integer, Uuid, func, select, update

from runledger.core.states import ReleaseMode
from runledger.core.workflows import DEPENDENCY_UNSATISFIED
from runledger.postgres import tables
from runledger.postgres.arrays import plain_array
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.expressions import CLOCK, TRUE, ZERO, as_text, constant, literal, parameter, rows_of
from runledger.postgres.statements import Row, Statement
from runledger.postgres.tables import workflow_step_dependencies, workflow_steps
from runledger.postgres.workflow_counts import BLOCKED, CANCELED, changes_of, counted

_step, _edge = workflow_steps.c, workflow_step_dependencies.c

_ended = workflow_steps.alias("ended")
_runs = select(_ended.c.workflow_run_id).where(_ended.c.id == func.any(parameter("step_ids", ARRAY(Uuid)))).distinct()
_edges = (
    select(
        _edge.prerequisite_step_id,
        (_edge.release_mode == literal(ReleaseMode.ON_SUCCESS, tables.workflow_release_mode)).label("is_on_success"),
    )
    .where(_edge.dependent_step_id == _step.id)
    .offset(ZERO)
    .lateral("edges")
)
SELECT_OPEN_EDGES = Statement(
    "select_open_edges",
    select(
        as_text(_edges.c.prerequisite_step_id),
        as_text(_step.id),
        _edges.c.is_on_success,
        _step.dependency_count_pending,
        _step.dependency_count_unsatisfied,
    )
    .select_from(workflow_steps.join(_edges, TRUE))
    .where(_step.workflow_run_id == func.any(func.array(_runs.scalar_subquery())))
    .where(_step.status == BLOCKED),
)
"""Every edge to a blocked step in the runs of these steps, found by its dependent alone. Asking only for what stands
behind them would recurse in the server, which takes the square of the depth."""

_doomed = rows_of("doomed", step_id=Uuid, unsatisfied=Integer)
_canceled = (
    update(workflow_steps)
    .where(_step.id == _doomed.c.step_id)
    .where(_step.status == BLOCKED)
    .values(
        status=CANCELED,
        dependency_count_pending=ZERO,
        dependency_count_unsatisfied=_doomed.c.unsatisfied,
        finished_at=CLOCK,
        status_reason=constant(DEPENDENCY_UNSATISFIED),
        last_error_code=constant(DEPENDENCY_UNSATISFIED),
    )
    .returning(_step.workflow_run_id)
    .cte("canceled")
)
CANCEL_DOOMED = Statement(
    "cancel_doomed_steps",
    select(func.count()).select_from(_canceled).add_cte(counted(changes_of(_canceled, BLOCKED, CANCELED))),
)


def cancel_behind(ledger: LedgerConnection, hopeless: Collection[str]) -> list[str]:
    """Every step that waited for these, directly or through others, and can never be released now, is CANCELED. Answers
    with those of all of them behind which a step is still blocked: it is free, or has less to wait for, and is for the
    caller to advance."""
    edges = ledger.fetch(SELECT_OPEN_EDGES, {"step_ids": plain_array(hopeless)})
    doomed = _count_down(hopeless, edges)
    if doomed:
        parameters = {"step_ids": plain_array(doomed), "unsatisfieds": plain_array(doomed.values())}
        ledger.fetch(CANCEL_DOOMED, parameters)
    ended = doomed.keys() | set(hopeless)
    return sorted({edge[0] for edge in edges if edge[0] in ended and edge[1] not in doomed})


def _count_down(hopeless: Collection[str], edges: list[Row]) -> dict[str, int]:
    """The steps that end as cancelled, with their count of unsatisfied edges: those whose last prerequisite has ended
    and of whose edges one can never be satisfied."""
    dependents: dict[str, list[tuple[str, bool]]] = {}
    counters: dict[str, list[int]] = {}
    for prerequisite, dependent, is_on_success, pending, unsatisfied in edges:
        dependents.setdefault(prerequisite, []).append((dependent, is_on_success))
        counters[dependent] = [pending, unsatisfied]
    doomed: dict[str, int] = {}
    ended = list(hopeless)
    while ended:
        for dependent, is_on_success in dependents.get(ended.pop(), ()):
            counter = counters[dependent]
            counter[0] -= 1
            counter[1] += is_on_success
            if counter[0] == 0 and counter[1] > 0:
                doomed[dependent] = counter[1]
                ended.append(dependent)
    return doomed
