"""Store steps and edges, thousands in one statement: the part that enqueue and append share.

Steps arrive blocked, with the counters they begin with; what is free is released by the statement that follows.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import CTE, Integer, Text, Uuid, cast, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core.dag import EncodedStep
from runledger.core.states import ReleaseMode, StepKind, WorkflowStepStatus
from runledger.postgres import tables
from runledger.postgres.arrays import plain_array, text_array
from runledger.postgres.expressions import TRUE, constant, new_id, rows_of
from runledger.postgres.statements import Parameters
from runledger.postgres.tables import job_definitions, workflow_step_dependencies, workflow_steps

WANTED = rows_of(
    "wanted",
    step_key=Text,
    kind=Text,
    job_type=Text,
    step_organization_id=Uuid,
    payload=Text,
    payload_part=Text,
    priority=Integer,
    max_attempt=Integer,
    timeout_second=Integer,
    total=Integer,
    pending=Integer,
    unsatisfied=Integer,
)
EDGES = rows_of("edges", prerequisite=Integer, prerequisite_id=Uuid, dependent=Integer, release_mode=Text)

_definition = job_definitions.c
MISSING_TYPES = (
    select(WANTED.c.job_type)
    .select_from(
        WANTED.outerjoin(
            job_definitions, (_definition.job_type == WANTED.c.job_type) & _definition.is_enabled.is_(TRUE)
        )
    )
    .where(WANTED.c.kind == constant(StepKind.JOB.value))
    .where(_definition.job_type.is_(None))
)
"""The job types of wanted steps that have no enabled definition."""


def stored_graph(run: CTE) -> tuple[CTE, CTE, CTE]:
    """The wanted steps and edges as rows of the run that ``run`` answers with, when it answers; queue settings are
    frozen here. The first of the three has the ids of the steps by ordinal."""
    is_job = WANTED.c.kind == constant(StepKind.JOB.value)
    identified = (
        select(
            new_id().label("id"),
            WANTED.c.ordinal,
            run.c.id.label("run_id"),
            WANTED.c.step_key,
            cast(WANTED.c.kind, tables.workflow_step_kind).label("kind"),
            WANTED.c.job_type,
            WANTED.c.step_organization_id.label("organization_id"),
            cast(WANTED.c.payload, JSONB).label("payload"),
            cast(WANTED.c.payload_part, JSONB).label("payload_parts"),
            func.coalesce(WANTED.c.priority, _definition.default_priority).label("priority"),
            func.coalesce(WANTED.c.max_attempt, _definition.max_attempts).label("max_attempts"),
            func.coalesce(WANTED.c.timeout_second, _definition.default_timeout_seconds).label("timeout_seconds"),
            WANTED.c.total,
            WANTED.c.pending,
            WANTED.c.unsatisfied,
        )
        .select_from(
            WANTED.outerjoin(job_definitions, is_job & (_definition.job_type == WANTED.c.job_type)).join(run, TRUE)
        )
        .order_by(WANTED.c.ordinal)
        .cte("identified")
        .prefix_with("MATERIALIZED")
    )
    return identified, _stored_steps(identified), _stored_edges(identified)


def _stored_steps(identified: CTE) -> CTE:
    row = identified.c
    values = {
        "id": row.id,
        "workflow_run_id": row.run_id,
        "step_key": row.step_key,
        "kind": row.kind,
        "job_type": row.job_type,
        "organization_id": row.organization_id,
        "payload": row.payload,
        "payload_parts": row.payload_parts,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "timeout_seconds": row.timeout_seconds,
        "dependency_count_total": row.total,
        "dependency_count_pending": row.pending,
        "dependency_count_unsatisfied": row.unsatisfied,
    }
    return (
        insert(workflow_steps)
        .from_select(list(values), select(*values.values()).order_by(row.ordinal))
        .cte("stored_steps")
    )


def _stored_edges(identified: CTE) -> CTE:
    prerequisite, dependent = identified.alias("prerequisite"), identified.alias("dependent")
    return (
        insert(workflow_step_dependencies)
        .from_select(
            ["workflow_run_id", "prerequisite_step_id", "dependent_step_id", "release_mode"],
            select(
                dependent.c.run_id,
                func.coalesce(EDGES.c.prerequisite_id, prerequisite.c.id),
                dependent.c.id,
                cast(EDGES.c.release_mode, tables.workflow_release_mode),
            ).select_from(
                EDGES.join(dependent, dependent.c.ordinal == EDGES.c.dependent).outerjoin(
                    prerequisite, prerequisite.c.ordinal == EDGES.c.prerequisite
                )
            ),
        )
        .cte("stored_edges")
    )


Existing = Mapping[str, tuple[str, WorkflowStepStatus]]
"""Steps of a live run by key: id and status, as they are under the lock of the run."""


def graph_parameters(steps: Sequence[EncodedStep], existing: Existing | None = None) -> Parameters:
    """The parameters of ``WANTED`` and ``EDGES``. An edge from an existing step that has ended counts at once."""
    known = existing or {}
    ordinals = {step.step_key: ordinal for ordinal, step in enumerate(steps, start=1)}
    counters = [_counters(step, known) for step in steps]
    edges = [
        (ordinals.get(key), known[key][0] if key in known else None, ordinals[step.step_key], mode.value)
        for step in steps
        for key, mode in step.dependencies.items()
    ]
    return {
        "step_keys": text_array([step.step_key for step in steps]),
        "kinds": plain_array([step.kind.value for step in steps]),
        "job_types": text_array([step.job_type for step in steps]),
        "step_organization_ids": plain_array([step.organization_id for step in steps]),
        "payloads": text_array([step.template.payload for step in steps]),
        "payload_parts": text_array([step.template.parts for step in steps]),
        "prioritys": plain_array([step.priority for step in steps]),
        "max_attempts": plain_array([step.max_attempts for step in steps]),
        "timeout_seconds": plain_array([step.timeout_seconds for step in steps]),
        "totals": plain_array([len(step.dependencies) for step in steps]),
        "pendings": plain_array([pending for pending, _ in counters]),
        "unsatisfieds": plain_array([unsatisfied for _, unsatisfied in counters]),
        "prerequisites": plain_array([edge[0] for edge in edges]),
        "prerequisite_ids": plain_array([edge[1] for edge in edges]),
        "dependents": plain_array([edge[2] for edge in edges]),
        "release_modes": plain_array([edge[3] for edge in edges]),
    }


def _counters(step: EncodedStep, existing: Existing) -> tuple[int, int]:
    """Edges that are still open, and edges that can never be satisfied."""
    ended = {key: existing[key][1] for key in step.dependencies if key in existing and existing[key][1].is_final}
    broken = [
        key
        for key, status in ended.items()
        if status is not WorkflowStepStatus.SUCCEEDED and step.dependencies[key] is ReleaseMode.ON_SUCCESS
    ]
    return len(step.dependencies) - len(ended), len(broken)
