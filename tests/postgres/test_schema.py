"""The schema, the tables as SQLAlchemy sees them, the state tables and every statement say the same thing."""

import importlib
import pkgutil
import re

import pytest
from postgres.observing import scalar
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.dialects.postgresql.base import PGDialect

import runledger.postgres
from runledger.core import states
from runledger.postgres.definitions import get_definitions
from runledger.postgres.statements import Statement
from runledger.postgres.tables import SCHEMA, metadata
from runledger.testing.factories import a_job

DIALECT = PGDialect()
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, c.relkind = 'v'
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'runledger'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY c.relname, a.attnum
"""
ENUMS = {
    "job_status": states.JobStatus,
    "job_outcome": states.Outcome,
    "job_event_type": states.JobEventType,
    "job_log_level": states.LogLevel,
    "workflow_run_status": states.WorkflowRunStatus,
    "workflow_step_status": states.WorkflowStepStatus,
    "workflow_step_kind": states.StepKind,
    "workflow_release_mode": states.ReleaseMode,
}
SHORT = {"timestamp with time zone": "timestamptz", "double precision": "double precision"}


def statements():
    found = {}
    for module in pkgutil.iter_modules(runledger.postgres.__path__):
        values = vars(importlib.import_module(f"runledger.postgres.{module.name}")).values()
        found |= {value.name: value for value in values if isinstance(value, Statement)}
    return found


STATEMENTS = statements()


def type_name(column):
    if isinstance(column.type, ENUM):
        return f"{SCHEMA}.{column.type.name}"
    return column.type.compile(DIALECT).lower()


def test_every_declared_table_is_in_the_database_column_by_column(connection):
    stored = {}
    for table, name, kind, is_required, is_view in connection.execute(COLUMNS).fetchall():
        stored.setdefault(table, {})[name] = (kind, None if is_view else is_required)

    declared = {
        table.name: {
            column.name: (type_name(column), None if table.info.get("is_view") else not column.nullable)
            for column in table.columns
        }
        for table in metadata.sorted_tables
    }

    assert {name: stored.get(name) for name in declared} == declared


@pytest.mark.parametrize("name", ENUMS)
def test_every_enum_has_the_same_values_in_the_same_order(connection, name):
    stored = scalar(connection, f"SELECT enum_range(NULL::runledger.{name})::text[]")

    assert stored == [value.value for value in ENUMS[name]]


def test_every_transition_leads_between_statuses_the_database_knows(connection):
    known = set(scalar(connection, "SELECT enum_range(NULL::runledger.job_status)::text[]"))

    used = {status for one in states.JOB_TRANSITIONS.values() for status in (*one.sources, one.target)}
    assert {status.value for status in used} == known


def test_there_is_a_statement_to_check():
    assert len(STATEMENTS) > 25


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_planned_by_the_server_with_generic_parameters(connection, name):
    text = STATEMENTS[name].text(SCHEMA)
    parameters = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, parameter in enumerate(parameters, 1):
        text = text.replace(f"%({parameter})s", f"${number}")
    nothing = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE checked AS {text.replace('%%', '%')}")
        connection.execute(f"EXPLAIN EXECUTE checked{nothing}")
        connection.execute("DEALLOCATE checked")


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_names_every_table_with_its_schema(name):
    text = STATEMENTS[name].text("other")

    assert f"{SCHEMA}." not in text
    named = {table.name for table in metadata.sorted_tables}
    assert not re.findall(rf"(?:FROM|JOIN|INTO|UPDATE) ({'|'.join(named)})\b", text)


def test_no_status_is_a_bound_parameter():
    for statement in STATEMENTS.values():
        assert not re.search(r"final_status\s*(=|IN)\s*\(?%", statement.text(SCHEMA)), statement.name


def test_the_completion_of_a_job_touches_no_indexed_column(connection):
    """What a settle writes on the record stands in no index, so the new version stays on its page (heap-only)."""
    written = {"final_status", "finished_at", "status_reason", "attempt", "output", "last_error_code", "progress_done"}
    indexes = connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'runledger' AND tablename = 'job_queue'"
    ).fetchall()

    assert not [name for name in written for (definition,) in indexes if re.search(rf"\b{name}\b", definition)]


def test_ids_are_version_seven_and_carry_the_time(connection):
    job = a_job(connection)
    created = scalar(connection, "SELECT extract(epoch FROM clock_timestamp()) * 1000")

    milliseconds = job.job_id.int >> 80

    assert (job.job_id.version, job.job_id.variant) == (7, "specified in RFC 4122")
    assert abs(int(created) - milliseconds) < 5_000
    assert get_definitions(connection, ["test.job"])
