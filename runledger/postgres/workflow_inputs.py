"""What a job of a workflow run needs besides what every claim returns: the key of its step, and its inputs.

A worker that runs steps claims with it. One that ran plain jobs asks in a statement of its own when a claim brings the
first steps, so that the hot claim of plain jobs stays as it is. Outputs of steps that have ended never change, so it
does not matter when it is asked.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, Uuid, case, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core.gate import DECODE_LIMIT
from runledger.core.jobs import ClaimedJob
from runledger.postgres.arrays import plain_array
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.expressions import TRUE, ZERO, any_of_few, as_text, constant
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_queue, workflow_step_dependencies, workflow_steps

TOO_LARGE = "the inputs of the step are too large"

_step, _edge = workflow_steps.c, workflow_step_dependencies.c
_source, _source_job = workflow_steps.alias("source"), job_queue.alias("source_job")
_job_output = select(_source_job.c.output).where(_source_job.c.id == _source.c.job_id).scalar_subquery()
_prerequisite = (
    select(
        _source.c.step_key, func.coalesce(_source.c.output, _job_output, cast(constant("null"), JSONB)).label("output")
    )
    .where(_source.c.id == _edge.prerequisite_step_id)
    .offset(ZERO)
    .lateral("prerequisite")
)
_is_small = func.sum(func.pg_column_size(_prerequisite.c.output)) <= literal_column(str(DECODE_LIMIT))


def step_key_of(step_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """The key of the step with this id."""
    return select(_step.step_key).where(_step.id == step_id).scalar_subquery()


def inputs_of(step_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """The outputs of the prerequisites of the step with this id, by step key, as the text of a JSON object."""
    return (
        select(
            case(
                (_is_small, as_text(func.jsonb_object_agg(_prerequisite.c.step_key, _prerequisite.c.output))),
                (func.count() > ZERO, cast(func.to_jsonb(cast(constant(TOO_LARGE), Text)), Text)),
            )
        )
        .select_from(workflow_step_dependencies.join(_prerequisite, TRUE))
        .where(_edge.dependent_step_id == step_id)
        .scalar_subquery()
    )


SELECT_INPUTS = Statement(
    "select_inputs_of_claimed",
    select(
        as_text(job_queue.c.id), step_key_of(job_queue.c.workflow_step_id), inputs_of(job_queue.c.workflow_step_id)
    ).where(job_queue.c.id == any_of_few("job_ids", Uuid)),
)


def add_inputs(ledger: LedgerConnection, jobs: Sequence[ClaimedJob]) -> None:
    """Those of these jobs that belong to a workflow run know their step key and the outputs of their prerequisites:
    null for one that has no output. Asks nothing when there is none. Locks nothing."""
    of_runs = {job.job_id: job for job in jobs if job.workflow_run_id is not None}
    if not of_runs:
        return
    for job_id, step_key, inputs in ledger.fetch(SELECT_INPUTS, {"job_ids": plain_array(of_runs)}):
        of_runs[job_id].step_key = step_key
        of_runs[job_id].inputs = inputs
