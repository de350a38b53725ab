"""Read-only models over what people read: the view of jobs, their attempts and dead letters, schedules, workflow runs.

They are unmanaged: the tables belong to ``sql/``, and whatever changes a job goes through the functions of
``runledger``, which keep its places, its trail and its run in step.
"""

from typing import Any, ClassVar

from django.db import models

from runledger.contrib.django.configuration import configuration
from runledger.core.states import JobStage, JobStatus, Outcome, WorkflowRunStatus


class ReadOnly(models.Model):
    """A row that Django reads and never writes."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises TypeError, always."""
        raise TypeError(f"{type(self).__name__} is read-only; use the functions of runledger")

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Raises TypeError, always."""
        raise TypeError(f"{type(self).__name__} is read-only; use the functions of runledger")


def _table(name: str) -> str:
    """The quoted name with its schema; Django leaves a name in quotes as it is."""
    return f'"{configuration().SCHEMA}"."{name}"'


def _choices(states: Any) -> list[tuple[str, str]]:
    return [(one.value, one.value) for one in states]


class Job(ReadOnly):
    """A job with its status, from the view ``jobs``."""

    id = models.UUIDField(primary_key=True)
    job_type = models.TextField()
    organization_id = models.UUIDField(null=True)
    status = models.TextField(choices=_choices(JobStatus))
    stage = models.TextField(choices=_choices(JobStage))
    priority = models.IntegerField()
    run_number = models.IntegerField()
    attempt = models.IntegerField()
    max_attempts = models.IntegerField()
    timeout_seconds = models.IntegerField()
    payload = models.JSONField()
    output = models.JSONField(null=True)
    checkpoint = models.JSONField(null=True)
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    idempotency_key = models.TextField(null=True)
    active_key = models.TextField(null=True)
    workflow_run_id = models.UUIDField(null=True)
    schedule_id = models.UUIDField(null=True)
    scheduled_for = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    next_run_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    leased_at = models.DateTimeField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    worker_id = models.TextField(null=True)
    finished_at = models.DateTimeField(null=True)
    status_reason = models.TextField(null=True)
    last_error_code = models.TextField(null=True)
    last_error_message = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = _table("jobs")
        default_permissions = ("view",)
        permissions: ClassVar = [("operate_job", "Can cancel and requeue jobs")]

    def __str__(self) -> str:
        return f"{self.job_type} {self.id}"


class Attempt(ReadOnly):
    """An attempt that ended. A job, a run and an attempt may have several tokens; the token names one of all."""

    lease_token = models.BigIntegerField(primary_key=True)
    job_id = models.UUIDField()
    run_number = models.IntegerField()
    attempt = models.IntegerField()
    outcome = models.TextField(choices=_choices(Outcome))
    worker_id = models.TextField()
    leased_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField()
    retry_at = models.DateTimeField(null=True)
    error_code = models.TextField(null=True)
    error_message = models.TextField(null=True)
    traceback = models.TextField(null=True)
    exit_signal = models.SmallIntegerField(null=True)
    cpu_ms = models.IntegerField(null=True)
    max_rss_kb = models.IntegerField(null=True)

    class Meta:
        managed = False
        db_table = _table("job_attempts")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"attempt {self.attempt} of run {self.run_number}: {self.outcome}"


class DeadLetter(ReadOnly):
    """A run that ended without success, kept through a requeue."""

    pk = models.CompositePrimaryKey("job_id", "run_number")
    job_id = models.UUIDField()
    run_number = models.IntegerField()
    attempt = models.IntegerField()
    job_type = models.TextField()
    organization_id = models.UUIDField(null=True)
    error_code = models.TextField(null=True)
    error_message = models.TextField(null=True)
    payload_snapshot = models.JSONField()
    checkpoint_snapshot = models.JSONField(null=True)
    failed_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = _table("job_dead_letters")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.job_type}: {self.error_code}"


class Schedule(ReadOnly):
    """When jobs of a type are enqueued by the clock."""

    id = models.UUIDField(primary_key=True)
    name = models.TextField()
    job_type = models.TextField()
    organization_id = models.UUIDField(null=True)
    payload_template = models.JSONField()
    cron_expr = models.TextField()
    timezone = models.TextField()
    missed = models.TextField()
    overlap = models.TextField()
    max_jitter_seconds = models.IntegerField()
    is_active = models.BooleanField()
    next_fire_at = models.DateTimeField()
    last_fired_at = models.DateTimeField(null=True)
    last_job_id = models.UUIDField(null=True)
    last_error_code = models.TextField(null=True)
    last_error_message = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = _table("job_schedules")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.name)


class WorkflowRun(ReadOnly):
    """A graph of jobs and gates, with the counts its status follows from."""

    id = models.UUIDField(primary_key=True)
    workflow_type = models.TextField()
    organization_id = models.UUIDField(null=True)
    status = models.TextField(choices=_choices(WorkflowRunStatus))
    metadata = models.JSONField()
    idempotency_key = models.TextField(null=True)
    step_count = models.IntegerField()
    unfinished_count = models.IntegerField()
    failed_count = models.IntegerField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    status_reason = models.TextField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = _table("workflow_runs")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.workflow_type} {self.id}"
