"""The admin: jobs, schedules and workflow runs to look at, and jobs to cancel, requeue and run now.

Nothing is counted or sorted that could be millions of rows, and nothing is written but by the functions of
``runledger``, which record who did it and why.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.core.paginator import Paginator
from django.db import transaction
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from runledger.contrib.django.configuration import configuration
from runledger.contrib.django.connections import ledger_connection
from runledger.contrib.django.models import Job, Schedule, WorkflowRun
from runledger.contrib.django.registry import catalog
from runledger.core.errors import RunledgerError, ValidationError
from runledger.core.gate import REASON_LIMIT
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, WorkflowRunStatus
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.reads import list_job_attempts, list_job_events, list_jobs

MOST_COUNTED = 1_000
"""Rows that a list counts and offers; older ones are found by filter, id or command line."""

MOST_FILTERED = 200
"""Jobs that a filtered list offers. They are read with their payloads."""

NEWEST_RUNS = 10_000
"""Workflow runs among which a filter looks."""

MOST_AT_ONCE = 500
"""Jobs that one action changes."""

UNSEEN = "There are older jobs that this list did not look at; `manage.py runledger job list` does."

Operation = Callable[[Any, UUID, str, str], object]


class BoundedPaginator(Paginator):
    """Counts no further than ``MOST_COUNTED``."""

    @cached_property
    def count(self) -> int:
        """The number of rows, at most ``MOST_COUNTED``."""
        return int(self.object_list[:MOST_COUNTED].count())


class ReadOnlyAdmin(admin.ModelAdmin):
    """A list and a page for each row; nobody adds, changes or deletes one."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()

    def has_add_permission(self, request: Any) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Rows are found by their id: that has an index."""
        if not search_term.strip():
            return queryset, False
        try:
            return queryset.filter(pk=UUID(search_term.strip())), False
        except ValueError:
            return queryset.none(), False


class ReasonForm(ActionForm):
    """An action, and why."""

    reason = forms.CharField(max_length=REASON_LIMIT, required=False, label="Reason")


class JobFilter(admin.SimpleListFilter):
    """A choice that ``JobAdmin.get_queryset`` obeys: it asks for the jobs by all choices at once."""

    def queryset(self, request: Any, queryset: Any) -> Any:
        """As it is."""
        return queryset


class JobTypeFilter(JobFilter):
    """The job types of the project's catalog: asking the jobs themselves would read them all."""

    title = f"job type, the newest {MOST_FILTERED}"
    parameter_name = "job_type"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Each type, by name."""
        return [(one, one) for one in catalog.job_types]


class StatusFilter(JobFilter):
    """The statuses of jobs; DEAD_LETTERED lists the dead letters."""

    title = f"status, the newest {MOST_FILTERED}"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Each status."""
        return [(one.value, one.value) for one in JobStatus]


class RunStatusFilter(admin.SimpleListFilter):
    """The statuses of workflow runs, among the newest: a rare one is not looked for in millions."""

    title = f"status, among the newest {NEWEST_RUNS:,} runs"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Each status."""
        return [(one.value, one.value) for one in WorkflowRunStatus]

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Those of the chosen status."""
        if self.value() not in list(WorkflowRunStatus):
            return queryset
        newest = WorkflowRun.objects.order_by("-pk").values("pk")[:NEWEST_RUNS]
        return queryset.filter(status=self.value(), pk__in=newest)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """Jobs, newest first; the page of a job shows its attempts and its timeline."""

    list_display = ("id", "job_type", "status", "stage", "attempt", "created_at", "finished_at", "last_error_code")
    list_filter = (StatusFilter, JobTypeFilter)
    search_fields = ("id",)
    search_help_text = "the id of a job"
    readonly_fields = ("attempts", "timeline")
    actions = ("cancel_jobs", "requeue_jobs", "run_jobs_now")
    action_form = ReasonForm

    def get_queryset(self, request: Any) -> Any:
        """All jobs, or those that ``list_jobs`` finds by the choices of the filters: along an index, however few there
        are. What it did not look at is said."""
        queryset = super().get_queryset(request)
        names = [one.parameter_name for one in (StatusFilter, JobTypeFilter)]
        chosen: Any = {name: request.GET[name] for name in names if request.GET.get(name)}
        if not chosen:
            return queryset
        try:
            page = list_jobs(ledger_connection(), scope=Scope.any(), limit=MOST_FILTERED, **chosen)
        except ValidationError:
            return queryset.none()
        if page.next_before is not None and len(page) < MOST_FILTERED:
            self.message_user(request, UNSEEN, messages.WARNING)
        return queryset.filter(pk__in=[one.job_id for one in page])

    def has_operate_permission(self, request: Any) -> bool:
        """For actions: ``runledger.operate_job``."""
        return bool(request.user.has_perm("runledger.operate_job"))

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel_jobs(self, request: Any, queryset: Any) -> None:
        """Each job that has not ended is CANCELED."""

        def cancel(ledger: Any, job_id: UUID, reason: str, actor: str) -> None:
            cancel_job(ledger, job_id, scope=Scope.any(), reason=reason, actor=actor)

        self._operate(request, queryset, cancel, "cancelled")

    @admin.action(description="Requeue, from the start", permissions=["operate"])
    def requeue_jobs(self, request: Any, queryset: Any) -> None:
        """Each dead-lettered or cancelled job begins its next run."""

        def requeue(ledger: Any, job_id: UUID, reason: str, actor: str) -> None:
            requeue_job(ledger, job_id, scope=Scope.any(), reason=reason, actor=actor)

        self._operate(request, queryset, requeue, "requeued")

    @admin.action(description="Retry now, without waiting", permissions=["operate"])
    def run_jobs_now(self, request: Any, queryset: Any) -> None:
        """Each job that waits for a time or a retry is due."""

        def run_now(ledger: Any, job_id: UUID, reason: str, actor: str) -> None:
            reschedule_job(ledger, job_id, next_run_at=_aware_now(), scope=Scope.any(), reason=reason, actor=actor)

        self._operate(request, queryset, run_now, "due now")

    def _operate(self, request: Any, queryset: Any, operation: Operation, done: str) -> None:
        reason = request.POST.get("reason", "").strip()
        job_ids = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if not reason:
            self.message_user(request, "Say why: the reason is kept in the job's timeline.", messages.ERROR)
        elif len(job_ids) > MOST_AT_ONCE:
            self.message_user(request, f"At most {MOST_AT_ONCE} jobs at once; filter further.", messages.ERROR)
        else:
            refused = _refusals(operation, job_ids, reason, request.user.get_username())
            self.message_user(request, f"{len(job_ids) - len(refused)} jobs {done}.")
            for job_id, error in refused:
                self.message_user(request, f"{job_id}: {error}", messages.WARNING)

    @admin.display(description="Attempts")
    def attempts(self, job: Job) -> str:
        """The ended attempts as a table, each with its traceback where it left one."""
        found = list_job_attempts(ledger_connection(), job.pk, scope=Scope.any())
        return _table(
            ("run", "attempt", "outcome", "started", "finished", "worker", "error", "traceback"),
            [
                (
                    one.run_number,
                    one.attempt,
                    one.outcome,
                    one.started_at or one.leased_at,
                    one.finished_at,
                    one.worker_id,
                    f"{one.error_code or ''} {one.error_message or ''}",
                    _folded(one.traceback),
                )
                for one in found
            ],
        )

    @admin.display(description="Timeline")
    def timeline(self, job: Job) -> str:
        """Everything that happened to the job, in order."""
        found = list_job_events(ledger_connection(), job.pk, scope=Scope.any())
        return _table(
            ("when", "run", "attempt", "event", "by", "reason"),
            [
                (one.occurred_at, one.run_number, one.attempt or "", one.event_type, one.actor or "", one.reason or "")
                for one in found
            ],
        )


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    """Schedules by name."""

    list_display = ("name", "job_type", "cron_expr", "timezone", "is_active", "next_fire_at", "last_fired_at")
    list_filter = ("is_active",)
    ordering = ("name",)


@admin.register(WorkflowRun)
class WorkflowRunAdmin(ReadOnlyAdmin):
    """Workflow runs, newest first."""

    list_display = ("id", "workflow_type", "status", "step_count", "unfinished_count", "failed_count", "created_at")
    list_filter = (RunStatusFilter,)
    search_fields = ("id",)


def _refusals(
    operation: Operation, job_ids: Iterable[UUID], reason: str, actor: str
) -> list[tuple[UUID, RunledgerError]]:
    """The jobs that could not be changed, each with why; every other is changed and committed."""
    refused = []
    for job_id in job_ids:
        try:
            with transaction.atomic(using=configuration().DATABASE):
                operation(ledger_connection(), job_id, reason, actor)
        except RunledgerError as error:
            refused.append((job_id, error))
    return refused


def _table(headings: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """An HTML table; what handlers and people wrote is escaped."""
    head = format_html_join("", "<th>{}</th>", ((one,) for one in headings))
    lines = [(format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows]
    return format_html("<table><tr>{}</tr>{}</table>", head, format_html_join("", "<tr>{}</tr>", lines))  # type: ignore[no-any-return]  # Django is untyped


def _folded(traceback: str | None) -> str:
    """The traceback behind a click; empty without one."""
    if not traceback:
        return ""
    shown = "<details><summary>show</summary><pre>{}</pre></details>"
    return format_html(shown, traceback)  # type: ignore[no-any-return]  # Django is untyped


def _aware_now() -> Any:
    now = timezone.now()
    return now if timezone.is_aware(now) else timezone.make_aware(now)
