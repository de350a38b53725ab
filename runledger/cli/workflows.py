"""``runledger workflow``: what people look up about workflow runs and do to them."""

import functools
from collections.abc import Callable
from uuid import UUID

import click

from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column, one_line, print_json, print_rows
from runledger.cli.values import acting_person, organization_filter, read_payload
from runledger.cli.workflow_drawings import Drawing, as_document, as_dot, as_mermaid, as_text
from runledger.cli.workflow_listings import RUN_COLUMNS, print_run
from runledger.core.jobs import Scope
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflow_errors import ExternalStepOutputInvalidStatus
from runledger.core.workflow_explanations import (
    RootCause,
    UnmetEdge,
    WorkflowRunExplanation,
    WorkflowStepExplanation,
)
from runledger.core.workflows import (
    Canceled,
    ExternalOutcome,
    Failed,
    Succeeded,
    WorkflowStep,
    WorkflowStepDependency,
)
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_explain import explain_workflow_run, explain_workflow_step
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_reads import (
    get_workflow_run,
    list_workflow_runs,
    list_workflow_step_dependencies,
    list_workflow_steps,
)
from runledger.postgres.workflow_rerun import rerun_workflow_run

PAGE = 1_000
MOST_PAGES = 10_000

run_id_argument = click.argument("run_id", metavar="ID")
EDGE_COLUMNS: tuple[Column[UnmetEdge], ...] = (
    Column("WAITS FOR", lambda edge: edge.prerequisite_step_key),
    Column("STATUS", lambda edge: edge.prerequisite_status),
    Column("EDGE", lambda edge: edge.release_mode),
)
CAUSE_COLUMNS: tuple[Column[RootCause], ...] = (
    Column("ROOT CAUSE", lambda cause: cause.step_key),
    Column("STATUS", lambda cause: cause.status),
    Column("TYPE", lambda cause: cause.job_type or "(gate)"),
    Column("JOB", lambda cause: cause.job_id),
    Column("LAST ERROR", lambda cause: cause.error_code),
    Column("REASON", lambda cause: cause.status_reason),
)


@click.group(cls=LedgerGroup)
def workflow() -> None:
    """List, show and change workflow runs."""


@workflow.command("list")
@click.option("--status", type=click.Choice([status.value for status in WorkflowRunStatus], case_sensitive=False))
@click.option("--type", "workflow_type", metavar="TEXT", help="Only runs whose type contains this.")
@click.option("--before", type=click.UUID, help="Only runs that are older than this one: the next page.")
@click.option("--limit", type=int, default=50, show_default=True, metavar="N", help="Most runs, 1 to 1,000.")
@organization_filter
@click.pass_obj
def list_(
    session: Session, *, status: str | None, workflow_type: str | None, before: UUID | None, limit: int, scope: Scope
) -> None:
    """List runs, the newest first.

    \b
    Example:
      runledger workflow list --status waiting_for_external --type ingest
    """
    chosen = WorkflowRunStatus(status) if status else None
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        runs = list_workflow_runs(
            connection, scope=scope, workflow_type=workflow_type, status=chosen, before=before, limit=limit
        )
    next_before = runs[-1].run_id if len(runs) == limit else None
    print_list(session, runs, RUN_COLUMNS, document={"runs": runs, "next_before": next_before})
    if next_before is not None:
        session.say(f"there may be more; next page: --before {next_before}")


@workflow.command()
@run_id_argument
@organization_filter
@click.pass_obj
def show(session: Session, *, run_id: str, scope: Scope) -> None:
    """Show one run and its steps.

    \b
    Example:
      runledger workflow show 0198c0de-0000-7000-8000-000000000000
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        drawing = _drawing(connection, run_id, scope)
    print_run(session, drawing)


@workflow.command()
@run_id_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot", "json"]),
    default="text",
    show_default=True,
    help="Text for a terminal, Mermaid or DOT for a page, JSON for a program.",
)
@organization_filter
@click.pass_obj
def graph(session: Session, *, run_id: str, form: str, scope: Scope) -> None:
    """Draw a run with the status of each step.

    \b
    Example:
      runledger workflow graph 0198c0de-0000-7000-8000-000000000000 --format dot | dot -Tsvg
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        drawing = _drawing(connection, run_id, scope)
    if session.is_json or form == "json":
        print_json(as_document(drawing))
    else:
        click.echo({"text": as_text, "mermaid": as_mermaid, "dot": as_dot}[form](drawing))


@workflow.command()
@run_id_argument
@click.argument("step_key", metavar="[STEP]", required=False)
@organization_filter
@click.pass_obj
def explain(session: Session, *, run_id: str, step_key: str | None, scope: Scope) -> None:
    """Say why a run has not ended or not succeeded, or why a step does not run.

    For a step: the edges in its way, and the failures, gates and jobs that they lead to.

    \b
    Example:
      runledger workflow explain 0198c0de-0000-7000-8000-000000000000 publish
    """
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        found: WorkflowRunExplanation | WorkflowStepExplanation
        if step_key is None:
            found = explain_workflow_run(connection, run_id=run_id, scope=scope)
        else:
            found = explain_workflow_step(connection, run_id=run_id, step_key=step_key, scope=scope)
    if session.is_json:
        print_json({"summary": found.summary, "explanation": found})
        return
    click.echo(one_line(found.summary))
    if isinstance(found, WorkflowStepExplanation):
        print_rows(found.unmet_edges, EDGE_COLUMNS)
    print_rows(found.root_causes, CAUSE_COLUMNS)


@workflow.command()
@run_id_argument
@click.option("--reason", metavar="TEXT", help="Why; kept on the run and in the timeline of its jobs.")
@organization_filter
@click.pass_obj
def cancel(session: Session, *, run_id: str, reason: str | None, scope: Scope) -> None:
    """Cancel a run: all its steps and jobs that have not ended.

    A run that has ended already stays as it is.

    \b
    Example:
      runledger workflow cancel 0198c0de-0000-7000-8000-000000000000 --reason 'wrong document'
    """

    def change(connection: LedgerConnection) -> None:
        is_done = cancel_workflow_run(connection, run_id=run_id, reason=reason, actor=acting_person(), scope=scope)
        if not is_done:
            session.say("the run had already ended")

    _change(session, run_id, change)


@workflow.command()
@run_id_argument
@click.option(
    "--also", metavar="STEP", multiple=True, help="Run this step again though it succeeded; a gate is opened anew."
)
@click.option("--reason", metavar="TEXT", help="Why; kept on the new run.")
@organization_filter
@click.pass_obj
def rerun(session: Session, *, run_id: str, also: tuple[str, ...], reason: str | None, scope: Scope) -> None:
    """Run a failed or cancelled run again: a new run that keeps what succeeded.

    While a run like that is live or has succeeded, it is shown, and no other one is made. --also may be given more than
    once; what waits behind such a step runs again too.

    \b
    Examples:
      runledger workflow rerun 0198c0de-0000-7000-8000-000000000000 --reason 'bucket was full'
      runledger workflow rerun 0198c0de-0000-7000-8000-000000000000 --also approve
    """
    with session.changing() as ledger:
        with ledger.begin() as connection:
            made = rerun_workflow_run(connection, run_id=run_id, scope=scope, reason=reason, also=also)
        with ledger.database.autocommit() as connection:
            drawing = _drawing(connection, str(made.run_id), Scope.any())
    if not made.is_new:
        session.say("it is being run again, or was, with success")
    print_run(session, drawing)


@workflow.command("complete-step")
@run_id_argument
@click.argument("step_key", metavar="STEP")
@click.option(
    "--status",
    type=click.Choice(["succeeded", "failed", "canceled"]),
    default="succeeded",
    show_default=True,
    help="How the gate ends.",
)
@click.option("--output", metavar="JSON|@file|-", help="The output of a gate that succeeds.")
@click.option("--code", metavar="CODE", help="The error code of a gate that does not succeed.")
@click.option("--message", metavar="TEXT", help="The error message of a gate that does not succeed.")
@click.option("--reason", metavar="TEXT", help="Why; kept on the step.")
@organization_filter
@click.pass_obj
def complete_step(
    session: Session,
    *,
    run_id: str,
    step_key: str,
    status: str,
    output: str | None,
    code: str | None,
    message: str | None,
    reason: str | None,
    scope: Scope,
) -> None:
    """Complete a gate, once; the same answer again does nothing.

    \b
    Example:
      runledger workflow complete-step 0198c0de-0000-7000-8000-000000000000 approve --output '{"by": "ada"}'
    """
    outcome = _outcome(status, output, code, message, reason)
    _change(
        session,
        run_id,
        functools.partial(
            complete_external_workflow_step, run_id=run_id, step_key=step_key, outcome=outcome, scope=scope
        ),
    )


def _outcome(
    status: str, output: str | None, code: str | None, message: str | None, reason: str | None
) -> ExternalOutcome:
    if status == "succeeded":
        if code is not None or message is not None:
            raise click.UsageError("a gate that succeeds has neither --code nor --message")
        return Succeeded(None if output is None else read_payload(output, what="output"), reason=reason)
    if output is not None:
        raise ExternalStepOutputInvalidStatus("only a gate that succeeds has an output")
    return (Failed if status == "failed" else Canceled)(code, message, reason=reason)


def _change(session: Session, run_id: str, change: Callable[[LedgerConnection], None]) -> None:
    """The change is committed, then the run is shown as it is."""
    with session.changing() as ledger:
        with ledger.begin() as connection:
            change(connection)
        with ledger.database.autocommit() as connection:
            drawing = _drawing(connection, run_id, Scope.any())
    print_run(session, drawing)


def _drawing(connection: LedgerConnection, run_id: str, scope: Scope) -> Drawing:
    run = get_workflow_run(connection, run_id, scope=scope)
    steps: list[WorkflowStep] = []
    edges: list[WorkflowStepDependency] = []
    for _ in range(MOST_PAGES):
        page = list_workflow_steps(
            connection, run.run_id, scope=scope, after=steps[-1].step_id if steps else None, limit=PAGE
        )
        steps += page
        if len(page) < PAGE:
            break
    for _ in range(MOST_PAGES):
        more = list_workflow_step_dependencies(
            connection, run.run_id, scope=scope, after=edges[-1] if edges else None, limit=PAGE
        )
        edges += more
        if len(more) < PAGE:
            break
    return Drawing(run, steps, edges)
