"""The tables as SQLAlchemy sees them, in the order of the migrations; a test compares them with the real schema.

Everything is qualified with the placeholder schema ``runledger``; ``statements.py`` puts the chosen one in.
"""

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Double, Integer, Sequence, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core import states
from runledger.postgres.metadata import SCHEMA as SCHEMA
from runledger.postgres.metadata import Timestamp as Timestamp
from runledger.postgres.metadata import enum_of
from runledger.postgres.metadata import metadata as metadata
from runledger.postgres.operator_tables import job_runtime_configs as job_runtime_configs
from runledger.postgres.operator_tables import operator_actions as operator_actions
from runledger.postgres.workflow_tables import workflow_release_mode as workflow_release_mode
from runledger.postgres.workflow_tables import workflow_run_mutations as workflow_run_mutations
from runledger.postgres.workflow_tables import workflow_run_status as workflow_run_status
from runledger.postgres.workflow_tables import workflow_runs as workflow_runs
from runledger.postgres.workflow_tables import workflow_step_dependencies as workflow_step_dependencies
from runledger.postgres.workflow_tables import workflow_step_kind as workflow_step_kind
from runledger.postgres.workflow_tables import workflow_step_status as workflow_step_status
from runledger.postgres.workflow_tables import workflow_steps as workflow_steps

job_status = enum_of("job_status", states.JobStatus)
job_outcome = enum_of("job_outcome", states.Outcome)
job_event_type = enum_of("job_event_type", states.JobEventType)
job_log_level = enum_of("job_log_level", states.LogLevel)
schedule_missed_policy = enum_of("schedule_missed_policy", states.MissedPolicy)
schedule_overlap_policy = enum_of("schedule_overlap_policy", states.OverlapPolicy)

lease_token = Sequence("lease_token", schema=SCHEMA, data_type=BigInteger)

runledger_migration_history = Table(
    "runledger_migration_history",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("package_version", Text, nullable=False),
    Column("applied_at", Timestamp, nullable=False),
)

job_definitions = Table(
    "job_definitions",
    metadata,
    Column("job_type", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("default_timeout_seconds", Integer, nullable=False),
    Column("default_priority", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("retry_base_seconds", Double, nullable=False),
    Column("retry_factor", Double, nullable=False),
    Column("retry_cap_seconds", Double, nullable=False),
    Column("retry_jitter", Boolean, nullable=False),
    Column("retry_delay_overrides", JSONB, nullable=False),
    Column("crash_budget", Integer, nullable=False),
    Column("dead_letter_job_type", Text),
    Column("is_enabled", Boolean, nullable=False),
    Column("is_paused", Boolean, nullable=False),
    Column("changed_by", Text),
    Column("change_reason", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("max_running", Integer),
    Column("rate_starts", Integer),
    Column("rate_seconds", Integer),
)

job_queue = Table(
    "job_queue",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_type", Text, nullable=False),
    Column("organization_id", Uuid),
    Column("payload", JSONB, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("timeout_seconds", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("idempotency_key", Text),
    Column("idempotency_expires_at", Timestamp),
    Column("enqueue_request", JSONB),
    Column("workflow_run_id", Uuid),
    Column("workflow_step_id", Uuid),
    Column("schedule_id", Uuid),
    Column("scheduled_for", Timestamp),
    Column("parent_job_id", Uuid),
    Column("expires_at", Timestamp),
    Column("tags", ARRAY(Text)),
    Column("headers", JSONB),
    Column("run_number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("final_status", job_status),
    Column("finished_at", Timestamp),
    Column("quiesces_at", Timestamp),
    Column("status_reason", Text),
    Column("last_error_code", Text),
    Column("last_error_message", Text),
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    Column("checkpoint", JSONB),
    Column("output", JSONB),
    Column("active_key", Text),
)


def _place(name: str) -> Table:
    """``job_ready`` and ``job_scheduled`` have one shape: a job waits in exactly one of them."""
    return Table(
        name,
        metadata,
        Column("job_id", Uuid, primary_key=True),
        Column("next_run_at", Timestamp, nullable=False),
        Column("workflow_run_id", Uuid),
        Column("priority", Integer, nullable=False),
        Column("run_number", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("job_type", Text, nullable=False),
    )


job_ready = _place("job_ready")
job_scheduled = _place("job_scheduled")

job_leases = Table(
    "job_leases",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("lease_token", BigInteger, nullable=False),
    Column("leased_at", Timestamp, nullable=False),
    Column("lease_expires_at", Timestamp, nullable=False),
    Column("renewed_at", Timestamp),
    Column("next_run_at", Timestamp, nullable=False),
    Column("workflow_run_id", Uuid),
    Column("priority", Integer, nullable=False),
    Column("run_number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("job_type", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    Column("checkpoint", JSONB),
    Column("is_limited", Boolean, nullable=False),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("lease_token", BigInteger, primary_key=True, autoincrement=False),
    Column("run_number", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("leased_at", Timestamp, nullable=False),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp, nullable=False),
    Column("retry_at", Timestamp),
    Column("outcome", job_outcome, nullable=False),
    Column("exit_signal", SmallInteger),
    Column("cpu_ms", Integer),
    Column("max_rss_kb", Integer),
    Column("worker_id", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("traceback", Text),
    Column("next_run_at", Timestamp),
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("run_number", Integer, nullable=False),
    Column("attempt", Integer),
    Column("event_type", job_event_type, nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("detail", JSONB, nullable=False),
)

job_dead_letters = Table(
    "job_dead_letters",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("run_number", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("job_type", Text, nullable=False),
    Column("organization_id", Uuid),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("payload_snapshot", JSONB, nullable=False),
    Column("checkpoint_snapshot", JSONB),
    Column("failed_at", Timestamp, nullable=False),
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("run_number", Integer, nullable=False),
    Column("attempt", Integer),
    Column("level", job_log_level, nullable=False),
    Column("message", Text, nullable=False),
    Column("fields", JSONB, nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
)

job_starts = Table(
    "job_starts",
    metadata,
    Column("job_type", Text, primary_key=True),
    Column("started_at", Timestamp, primary_key=True),
    Column("lease_token", BigInteger, primary_key=True, autoincrement=False),
)

job_listeners = Table(
    "job_listeners",
    metadata,
    Column("host_id", Text, primary_key=True),
    Column("listening_until", Timestamp, nullable=False),
)

job_workers = Table(
    "job_workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("host_id", Text, nullable=False),
    Column("host_name", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("app", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("job_types", JSONB),
    Column("queues", ARRAY(Text)),
    Column("started_at", Timestamp, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("running_token", BigInteger),
    Column("jobs_done", BigInteger, nullable=False),
    Column("rss_kb", Integer),
)

job_schedules = Table(
    "job_schedules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("job_type", Text, nullable=False),
    Column("organization_id", Uuid),
    Column("payload_template", JSONB, nullable=False),
    Column("cron_expr", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("missed", schedule_missed_policy, nullable=False),
    Column("overlap", schedule_overlap_policy, nullable=False),
    Column("max_jitter_seconds", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("next_slot_at", Timestamp, nullable=False),
    Column("next_fire_at", Timestamp, nullable=False),
    Column("last_fired_at", Timestamp),
    Column("last_job_id", Uuid),
    Column("last_error_code", Text),
    Column("last_error_message", Text),
    Column("created_by_user_id", Uuid),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid),
    Column("job_type", Text),
    Column("organization_id", Uuid),
    Column("status", job_status),
    Column("stage", Text),
    Column("priority", Integer),
    Column("run_number", Integer),
    Column("attempt", Integer),
    Column("max_attempts", Integer),
    Column("timeout_seconds", Integer),
    Column("payload", JSONB),
    Column("output", JSONB),
    Column("checkpoint", JSONB),
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    Column("tags", ARRAY(Text)),
    Column("idempotency_key", Text),
    Column("enqueue_request", JSONB),
    Column("workflow_run_id", Uuid),
    Column("workflow_step_id", Uuid),
    Column("schedule_id", Uuid),
    Column("scheduled_for", Timestamp),
    Column("parent_job_id", Uuid),
    Column("created_at", Timestamp),
    Column("next_run_at", Timestamp),
    Column("expires_at", Timestamp),
    Column("leased_at", Timestamp),
    Column("lease_expires_at", Timestamp),
    Column("lease_token", BigInteger),
    Column("worker_id", Text),
    Column("finished_at", Timestamp),
    Column("quiesces_at", Timestamp),
    Column("status_reason", Text),
    Column("last_error_code", Text),
    Column("last_error_message", Text),
    Column("active_key", Text),
    info={"is_view": True},
)

job_timeline = Table(
    "job_timeline",
    metadata,
    Column("job_id", Uuid),
    Column("event_type", job_event_type),
    Column("run_number", Integer),
    Column("attempt", Integer),
    Column("occurred_at", Timestamp),
    Column("position", BigInteger),
    Column("actor", Text),
    Column("reason", Text),
    Column("detail", JSONB),
    info={"is_view": True},
)
