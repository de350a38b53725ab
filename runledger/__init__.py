"""Durable jobs on PostgreSQL for synchronous Python, committed together with your own rows.

Everything public stands here, flat. Names that bring the database driver and SQLAlchemy with them are loaded when they
are first used: importing those two takes four times as long as all the rest, and a program that only declares a value
or catches an error, or prints its version, needs neither.
"""

import importlib
from typing import TYPE_CHECKING, Final

from runledger.core import errors, operation_errors, workflow_errors
from runledger.core.blocking import BlockingCallWarning
from runledger.core.bulk import ChangedJobs
from runledger.core.checkups import CheckResult, CheckStatus, DoctorReport
from runledger.core.context import JobContext
from runledger.core.definitions import DefinitionSync, JobDefinition, RetryPolicy, StoredDefinition
from runledger.core.errors import *  # noqa: F403 - each named in its __all__
from runledger.core.explanations import Gate, GateState, JobExplanation
from runledger.core.failures import Continue, DeadLetterReason, JobCancelled, JobFailure, JobTimeout, Snooze
from runledger.core.filters import JobFilter
from runledger.core.handlers import DeadLetterInfo, JobHandler
from runledger.core.jobs import Attempt, DeadLetter, EnqueuedJob, Job, JobEvent, JobLog, JobPage, JsonValue, Scope
from runledger.core.metrics import JobMetrics, MetricsBy, Percentiles
from runledger.core.middleware import Middleware, SettledAttempt, use_for_enqueues
from runledger.core.operation_errors import *  # noqa: F403 - each named in its __all__
from runledger.core.operations import JobRuntimeConfig, OperatorAction
from runledger.core.preflight import PreflightFinding, PreflightReport, PreflightSource
from runledger.core.requests import JobRequest
from runledger.core.schedules import JobSchedule, ScheduleRequest, ScheduleSync
from runledger.core.states import (
    JobEventType,
    JobStage,
    JobStatus,
    LogLevel,
    MissedPolicy,
    Outcome,
    OverlapPolicy,
    ReleaseMode,
    StepKind,
    WorkflowRunStatus,
    WorkflowStepStatus,
)
from runledger.core.workers import RegisteredWorker, WorkerState
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflow_errors import *  # noqa: F403 - fifty classes, each named in its __all__
from runledger.core.workflow_explanations import (
    RootCause,
    UnmetEdge,
    WorkflowRunExplanation,
    WorkflowStepExplanation,
)
from runledger.core.workflows import (
    AppendedSteps,
    AppendOutcome,
    Canceled,
    EnqueuedWorkflowRun,
    Failed,
    OutputOf,
    StepDependency,
    StepRequest,
    Succeeded,
    WorkflowRun,
    WorkflowRunRequest,
    WorkflowStep,
    WorkflowStepDependency,
    output_of,
)

if TYPE_CHECKING:
    from runledger.catalog import JobCatalog
    from runledger.database.doctor import run_doctor
    from runledger.database.ledger import Ledger
    from runledger.database.migrate import ensure_schema_compatible, migrate
    from runledger.database.preflight import run_preflight
    from runledger.postgres.bulk import cancel_jobs, count_jobs, reprioritise_jobs, requeue_jobs
    from runledger.postgres.definition_reads import get_job_definition, list_job_definitions
    from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
    from runledger.postgres.explain import explain_job
    from runledger.postgres.firing import trigger_job_schedule
    from runledger.postgres.job_logs import insert_job_log
    from runledger.postgres.metrics import get_job_metrics
    from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
    from runledger.postgres.operator_actions import list_operator_actions
    from runledger.postgres.priorities import reprioritise_job
    from runledger.postgres.reads import (
        get_job,
        list_dead_letters,
        list_job_attempts,
        list_job_events,
        list_job_logs,
        list_jobs,
    )
    from runledger.postgres.retention import Pruned, Retention, count_prunable, prune_jobs, prune_workflow_runs
    from runledger.postgres.runtime_configs import (
        get_job_runtime_config,
        list_job_runtime_configs,
        upsert_job_runtime_config,
    )
    from runledger.postgres.schedule_reads import get_job_schedule, list_job_schedules
    from runledger.postgres.schedules import (
        delete_job_schedule,
        set_job_schedule_active,
        set_job_schedule_next_fire_at,
        upsert_job_schedule,
    )
    from runledger.postgres.workers import list_workers
    from runledger.postgres.workflow_append import append_workflow_steps
    from runledger.postgres.workflow_cancel import cancel_workflow_run
    from runledger.postgres.workflow_explain import explain_workflow_run, explain_workflow_step
    from runledger.postgres.workflow_gates import complete_external_workflow_step
    from runledger.postgres.workflow_reads import (
        get_workflow_run,
        get_workflow_run_id_for_job,
        list_workflow_runs,
        list_workflow_step_dependencies,
        list_workflow_steps,
    )
    from runledger.postgres.workflow_rerun import rerun_workflow_run
    from runledger.postgres.workflow_runs import enqueue_workflow_run
    from runledger.runtime.config import JobsConfig
    from runledger.runtime.supervisor import Supervisor

    __version__: str
else:
    _NAMES_BY_MODULE: Final = {
        "runledger.catalog": "JobCatalog",
        "runledger.database.doctor": "run_doctor",
        "runledger.database.ledger": "Ledger",
        "runledger.database.migrate": "ensure_schema_compatible migrate",
        "runledger.database.preflight": "run_preflight",
        "runledger.postgres.bulk": "cancel_jobs count_jobs reprioritise_jobs requeue_jobs",
        "runledger.postgres.definition_reads": "get_job_definition list_job_definitions",
        "runledger.postgres.enqueue": "enqueue_job enqueue_jobs",
        "runledger.postgres.explain": "explain_job",
        "runledger.postgres.firing": "trigger_job_schedule",
        "runledger.postgres.job_logs": "insert_job_log",
        "runledger.postgres.metrics": "get_job_metrics",
        "runledger.postgres.operations": "cancel_job requeue_job reschedule_job",
        "runledger.postgres.priorities": "reprioritise_job",
        "runledger.postgres.reads": (
            "get_job list_dead_letters list_job_attempts list_job_events list_job_logs list_jobs"
        ),
        "runledger.postgres.operator_actions": "list_operator_actions",
        "runledger.postgres.retention": "Pruned Retention count_prunable prune_jobs prune_workflow_runs",
        "runledger.postgres.runtime_configs": (
            "get_job_runtime_config list_job_runtime_configs upsert_job_runtime_config"
        ),
        "runledger.postgres.schedule_reads": "get_job_schedule list_job_schedules",
        "runledger.postgres.schedules": (
            "delete_job_schedule set_job_schedule_active set_job_schedule_next_fire_at upsert_job_schedule"
        ),
        "runledger.postgres.workflow_append": "append_workflow_steps",
        "runledger.postgres.workflow_cancel": "cancel_workflow_run",
        "runledger.postgres.workers": "list_workers",
        "runledger.postgres.workflow_explain": "explain_workflow_run explain_workflow_step",
        "runledger.postgres.workflow_gates": "complete_external_workflow_step",
        "runledger.postgres.workflow_reads": (
            "get_workflow_run get_workflow_run_id_for_job list_workflow_runs list_workflow_steps "
            "list_workflow_step_dependencies"
        ),
        "runledger.postgres.workflow_rerun": "rerun_workflow_run",
        "runledger.postgres.workflow_runs": "enqueue_workflow_run",
        "runledger.runtime.config": "JobsConfig",
        "runledger.runtime.supervisor": "Supervisor",
    }
    _LOADED_ON_USE: Final = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from runledger.version import package_version

            value = package_version()
        elif name in _LOADED_ON_USE:
            value = getattr(importlib.import_module(_LOADED_ON_USE[name]), name)
        else:
            raise AttributeError(f"module 'runledger' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "__version__",
    # a catalog and what its handlers meet
    "JobCatalog",
    "JobContext",
    "JobHandler",
    "JobDefinition",
    "RetryPolicy",
    "DeadLetterInfo",
    "DeadLetterReason",
    # how an attempt ends
    "JobFailure",
    "Snooze",
    "Continue",
    "JobCancelled",
    "JobTimeout",
    # code around every enqueue and attempt
    "Middleware",
    "SettledAttempt",
    "use_for_enqueues",
    # an application's client
    "Ledger",
    # enqueue, on a connection
    "JobRequest",
    "EnqueuedJob",
    "enqueue_job",
    "enqueue_jobs",
    # change, on a connection
    "cancel_job",
    "requeue_job",
    "reschedule_job",
    "OperatorAction",
    "list_operator_actions",
    "ChangedJobs",
    "cancel_jobs",
    "requeue_jobs",
    "reprioritise_jobs",
    "reprioritise_job",
    "count_jobs",
    # read, on a connection
    "Scope",
    "get_job",
    "list_jobs",
    "list_job_attempts",
    "list_job_events",
    "list_job_logs",
    "list_dead_letters",
    "Job",
    "Attempt",
    "JobEvent",
    "JobFilter",
    "JobPage",
    "insert_job_log",
    "JobLog",
    "DeadLetter",
    "JsonValue",
    # definitions and runtime configs
    "StoredDefinition",
    "DefinitionSync",
    "get_job_definition",
    "list_job_definitions",
    "JobRuntimeConfig",
    "upsert_job_runtime_config",
    "get_job_runtime_config",
    "list_job_runtime_configs",
    # schedules
    "ScheduleRequest",
    "JobSchedule",
    "ScheduleSync",
    "MissedPolicy",
    "OverlapPolicy",
    "upsert_job_schedule",
    "set_job_schedule_active",
    "set_job_schedule_next_fire_at",
    "delete_job_schedule",
    "trigger_job_schedule",
    "get_job_schedule",
    "list_job_schedules",
    # workflows: what is asked
    "WorkflowDagBuilder",
    "WorkflowRunRequest",
    "StepRequest",
    "StepDependency",
    "OutputOf",
    "output_of",
    "Succeeded",
    "Failed",
    "Canceled",
    # workflows, on a connection
    "enqueue_workflow_run",
    "append_workflow_steps",
    "complete_external_workflow_step",
    "cancel_workflow_run",
    "rerun_workflow_run",
    "get_workflow_run",
    "get_workflow_run_id_for_job",
    "list_workflow_runs",
    "list_workflow_steps",
    "list_workflow_step_dependencies",
    "explain_workflow_step",
    "explain_workflow_run",
    # workflows: what is answered
    "EnqueuedWorkflowRun",
    "AppendedSteps",
    "AppendOutcome",
    "WorkflowRun",
    "WorkflowStep",
    "WorkflowStepDependency",
    "WorkflowStepExplanation",
    "WorkflowRunExplanation",
    "UnmetEdge",
    "RootCause",
    # states
    "JobStatus",
    "JobStage",
    "JobEventType",
    "Outcome",
    "LogLevel",
    "WorkflowRunStatus",
    "WorkflowStepStatus",
    "StepKind",
    "ReleaseMode",
    # figures and retention
    "JobMetrics",
    "MetricsBy",
    "Percentiles",
    "get_job_metrics",
    "Retention",
    "Pruned",
    "prune_jobs",
    "prune_workflow_runs",
    "count_prunable",
    # the schema
    "migrate",
    "ensure_schema_compatible",
    # the processes
    "Supervisor",
    "JobsConfig",
    "list_workers",
    "RegisteredWorker",
    "WorkerState",
    # why it does not run, and what is wrong
    "explain_job",
    "JobExplanation",
    "Gate",
    "GateState",
    "run_doctor",
    "DoctorReport",
    "CheckResult",
    "CheckStatus",
    # before a deploy
    "run_preflight",
    "PreflightReport",
    "PreflightFinding",
    "PreflightSource",
    # a warning
    "BlockingCallWarning",
]
__all__ += errors.__all__
__all__ += operation_errors.__all__
__all__ += workflow_errors.__all__
