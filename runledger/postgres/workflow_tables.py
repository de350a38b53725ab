"""The tables of graphs: runs, their steps, edges, and the mutations of live runs. Import them from ``tables``."""

from sqlalchemy import Boolean, Column, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core import states
from runledger.postgres.metadata import Timestamp, enum_of, metadata

workflow_run_status = enum_of("workflow_run_status", states.WorkflowRunStatus)
workflow_step_status = enum_of("workflow_step_status", states.WorkflowStepStatus)
workflow_step_kind = enum_of("workflow_step_kind", states.StepKind)
workflow_release_mode = enum_of("workflow_release_mode", states.ReleaseMode)

workflow_runs = Table(
    "workflow_runs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("workflow_type", Text, nullable=False),
    Column("organization_id", Uuid),
    Column("status", workflow_run_status, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("headers", JSONB),
    Column("idempotency_key", Text),
    Column("enqueue_request", JSONB),
    Column("result_step_key", Text),
    Column("step_count", Integer, nullable=False),
    Column("unfinished_count", Integer, nullable=False),
    Column("enqueued_count", Integer, nullable=False),
    Column("waiting_count", Integer, nullable=False),
    Column("failed_count", Integer, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    Column("status_reason", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("rerun_of_run_id", Uuid),
    Column("active_key", Text),
    Column("holds_active_key", Boolean, nullable=False),
)

workflow_steps = Table(
    "workflow_steps",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("workflow_run_id", Uuid, nullable=False),
    Column("step_key", Text, nullable=False),
    Column("kind", workflow_step_kind, nullable=False),
    Column("status", workflow_step_status, nullable=False),
    Column("job_type", Text),
    Column("organization_id", Uuid),
    Column("payload", JSONB, nullable=False),
    Column("payload_parts", JSONB),
    Column("priority", Integer),
    Column("max_attempts", Integer),
    Column("timeout_seconds", Integer),
    Column("job_id", Uuid),
    Column("dependency_count_total", Integer, nullable=False),
    Column("dependency_count_pending", Integer, nullable=False),
    Column("dependency_count_unsatisfied", Integer, nullable=False),
    Column("output", JSONB),
    Column("released_at", Timestamp),
    Column("finished_at", Timestamp),
    Column("status_reason", Text),
    Column("last_error_code", Text),
    Column("last_error_message", Text),
    Column("created_at", Timestamp, nullable=False),
)

workflow_step_dependencies = Table(
    "workflow_step_dependencies",
    metadata,
    Column("workflow_run_id", Uuid, nullable=False),
    Column("prerequisite_step_id", Uuid, primary_key=True),
    Column("dependent_step_id", Uuid, primary_key=True),
    Column("release_mode", workflow_release_mode, nullable=False),
)

workflow_run_mutations = Table(
    "workflow_run_mutations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("workflow_run_id", Uuid, nullable=False),
    Column("mutation_key", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
