"""``tables.py`` and ``core/states.py`` say what the migrated schema says."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import MetaData, Table, create_engine
from sqlalchemy.dialects import postgresql

from runledger.core import states
from runledger.postgres import tables

ENUMS = {
    "job_status": states.JobStatus,
    "job_outcome": states.Outcome,
    "job_event_type": states.JobEventType,
    "job_log_level": states.LogLevel,
    "schedule_missed_policy": states.MissedPolicy,
    "schedule_overlap_policy": states.OverlapPolicy,
    "workflow_run_status": states.WorkflowRunStatus,
    "workflow_step_status": states.WorkflowStepStatus,
    "workflow_step_kind": states.StepKind,
    "workflow_release_mode": states.ReleaseMode,
}
NOT_USED_YET: set[str] = set()
"""Tables of migrations whose code is not written; a name leaves this list with the code that uses the table."""

SELECT_ENUMS = """
SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = 'runledger' GROUP BY 1
"""
SELECT_CHECK = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def reflected(database: Connection) -> MetaData:
    found = MetaData(schema="runledger")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.info.dsn))
    found.reflect(engine, views=True)
    engine.dispose()
    return found


@pytest.mark.parametrize("name", sorted(table.name for table in tables.metadata.sorted_tables))
def test_a_table_is_what_the_migrations_made(reflected: MetaData, name: str) -> None:
    ours, theirs = tables.metadata.tables[f"runledger.{name}"], reflected.tables[f"runledger.{name}"]

    assert _columns(ours) == _columns(theirs)


def test_every_table_is_known(reflected: MetaData) -> None:
    known = {table.name for table in tables.metadata.sorted_tables}

    assert {table.name for table in reflected.sorted_tables} - known - NOT_USED_YET == set()


def test_enums_have_the_members_of_the_states_in_their_order(database: Connection) -> None:
    stored: dict[str, list[str]] = dict(database.execute(SELECT_ENUMS).fetchall())

    assert {name: stored[name] for name in ENUMS} == {name: [one.value for one in kind] for name, kind in ENUMS.items()}
    assert stored.keys() == ENUMS.keys()


@pytest.mark.parametrize(
    ("constraint", "statuses"),
    [("ck_job_queue_final", states.FINAL_JOB_STATUSES), ("ck_workflow_runs_final", states.FINAL_RUN_STATUSES)],
)
def test_a_check_names_the_final_statuses(database: Connection, constraint: str, statuses: frozenset[Any]) -> None:
    row = database.execute(SELECT_CHECK, (constraint,)).fetchone()

    assert row is not None
    members = type(next(iter(statuses)))
    assert {one for one in members if f"'{one.value}'" in row[0]} == statuses


@pytest.mark.parametrize("table", [states.JOB_TRANSITIONS, states.STEP_TRANSITIONS, states.RUN_TRANSITIONS])
def test_nothing_leads_out_of_a_final_state_but_a_requeue(table: dict[str, states.Transition]) -> None:
    final = states.FINAL_JOB_STATUSES | states.FINAL_STEP_STATUSES | states.FINAL_RUN_STATUSES
    kind = type(next(iter(table.values())).target)
    leaving = {
        name for name, one in table.items() for source in one.sources if type(source) is kind and source in final
    }

    assert leaving <= {"requeue"}


def _columns(table: Table) -> list[tuple[str, str, bool | None]]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    is_view = bool(table.info.get("is_view"))
    view_names = {one.name for one in tables.metadata.sorted_tables if one.info.get("is_view")}
    return sorted(
        (
            column.name,
            column.type.compile(dialect).removeprefix("runledger."),
            None if is_view or table.name in view_names else column.nullable,
        )
        for column in table.columns
    )
