"""How workflow runs and their steps stand in a table, and one run on a page."""

from runledger.cli.listings import print_list
from runledger.cli.options import Session
from runledger.cli.output import Column, json_text, print_fields, print_json
from runledger.cli.workflow_drawings import Drawing
from runledger.core.states import WorkflowStepStatus
from runledger.core.workflows import WorkflowRun, WorkflowStep

MOST_NAMES = 3
"""Steps that are named where one waits for them; of more, the number is shown."""

RUN_COLUMNS: tuple[Column[WorkflowRun], ...] = (
    Column("ID", lambda run: run.run_id),
    Column("TYPE", lambda run: run.workflow_type),
    Column("STATUS", lambda run: run.status),
    Column("DONE", lambda run: f"{run.step_count - run.unfinished_count}/{run.step_count}"),
    Column("FAILED", lambda run: run.failed_count),
    Column("CREATED", lambda run: run.created_at),
    Column("FINISHED", lambda run: run.finished_at),
    Column("REASON", lambda run: run.status_reason),
)
STEP_COLUMNS: tuple[Column[WorkflowStep], ...] = (
    Column("STEP", lambda step: step.step_key),
    Column("STATUS", lambda step: step.status),
    Column("TYPE", lambda step: step.job_type or "(gate)"),
    Column("JOB", lambda step: step.job_id),
    Column("FINISHED", lambda step: step.finished_at),
    Column("LAST ERROR", lambda step: step.last_error_code),
)
WAITING_PLACE = 4
"""Where what a step waits for stands among its columns."""


def _waiting_column(drawing: Drawing) -> Column[WorkflowStep]:
    """What each step waits for: the names of a few steps, or the number of many."""
    open_keys = {step.step_key for step in drawing.steps if not step.status.is_final}
    awaited: dict[str, list[str]] = {}
    for edge in drawing.edges:
        if edge.prerequisite_step_key in open_keys:
            awaited.setdefault(edge.dependent_step_key, []).append(edge.prerequisite_step_key)

    def shown(step: WorkflowStep) -> object:
        keys = awaited.get(step.step_key, [])
        return ", ".join(keys) if len(keys) <= MOST_NAMES else len(keys)

    return Column("WAITS FOR", shown)


def print_run(session: Session, drawing: Drawing) -> None:
    """The run with its steps, or one JSON document."""
    run = drawing.run
    if session.is_json:
        print_json({"run": run, "steps": drawing.steps})
        return
    gates = [step.step_key for step in drawing.steps if step.status is WorkflowStepStatus.WAITING_FOR_EXTERNAL]
    print_fields(
        [
            ("id", run.run_id),
            ("type", run.workflow_type),
            ("status", run.status),
            ("reason", run.status_reason),
            ("organization", run.organization_id),
            ("key", run.idempotency_key),
            ("active key", run.active_key),
            ("re-run of", run.rerun_of_run_id),
            ("done", f"{run.step_count - run.unfinished_count}/{run.step_count}"),
            ("failed", run.failed_count or None),
            ("open gates", ", ".join(gates) or None),
            ("created", run.created_at),
            ("finished", run.finished_at),
            ("metadata", json_text(run.metadata)),
            ("result", None if run.result is None else json_text(run.result)),
        ]
    )
    columns = (*STEP_COLUMNS[:WAITING_PLACE], _waiting_column(drawing), *STEP_COLUMNS[WAITING_PLACE:])
    print_list(session, drawing.steps, columns, document=None)
