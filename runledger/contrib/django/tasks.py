"""A backend for Django's tasks: ``"BACKEND": "runledger.contrib.django.tasks.RunledgerBackend"`` in ``TASKS``.

A task becomes a job in the caller's transaction. There is one job type for each queue of a backend, so workers know
them all without having imported any task, and an operator can pause a queue.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from runledger.catalog import JobCatalog
from runledger.contrib.django.connections import ledger_connection
from runledger.contrib.django.task_package import BaseTaskBackend, base, exceptions, signals, tasks
from runledger.contrib.django.task_results import result_of, task_of
from runledger.core.context import JobContext
from runledger.core.errors import JobNotFound, ValidationError
from runledger.core.jobs import Scope
from runledger.core.middleware import Middleware, SettledAttempt
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.reads import get_job, list_job_attempts

OPTIONS: Final = {"MAX_ATTEMPTS": "max_attempts", "TIMEOUT_SECONDS": "timeout_seconds"}
"""What ``OPTIONS`` of a backend may hold, and the setting of a job it is."""

_PREFIX: Final = "django.task"


class RunledgerBackend(BaseTaskBackend):
    """Tasks are jobs: retried, killable, explainable, committed with the caller's rows."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """The task is stored with the caller's transaction; its result's id is that of the job. Raises what Django
        documents and what ``enqueue_job`` raises."""
        self.validate_task(task)
        result = base.TaskResult(
            task=task,
            id="",
            status=base.TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        run_after = _aware(task.run_after)
        payload = {"task": task.module_path, "args": result.args, "kwargs": result.kwargs}
        if run_after is not None:
            payload["run_after"] = run_after.isoformat()
        request = JobRequest(
            job_type_of(self.alias, task.queue_name), payload, priority=task.priority, next_run_at=run_after
        )
        job = enqueue_job(ledger_connection(), request)
        object.__setattr__(result, "id", str(job.job_id))  # as Django's own backends do: its results are frozen
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """The result as it is now. Raises TaskResultDoesNotExist, also for a job that is no task of this backend."""
        ledger = ledger_connection()
        try:
            job = get_job(ledger, result_id, scope=Scope.any())
        except JobNotFound:
            raise exceptions.TaskResultDoesNotExist(result_id) from None
        queue_name = queue_of(self.alias, job.job_type)
        if queue_name is None:
            raise exceptions.TaskResultDoesNotExist(result_id)
        task = task_of(job.payload, backend=self.alias, priority=job.priority, queue_name=queue_name)
        return result_of(job, list_job_attempts(ledger, job.job_id, scope=Scope.any()), task, backend=self.alias)

    def findings(self) -> Iterator[checks.CheckMessage]:
        """What is wrong with the settings of this backend, for ``manage.py check``."""
        if not self.queues:
            message, hint = f"TASKS[{self.alias!r}]['QUEUES'] is empty", "name the queues; workers serve a known list"
            yield checks.Error(message, hint=hint, id="runledger.E011")
        for name in sorted(set(self.options) - OPTIONS.keys()):
            message, hint = f"TASKS[{self.alias!r}]['OPTIONS'] has no {name!r}", f"there are {', '.join(OPTIONS)}"
            yield checks.Error(message, hint=hint, id="runledger.E012")

    def job_options(self) -> dict[str, Any]:
        """``OPTIONS`` as the settings of our job types."""
        return {ours: self.options[theirs] for theirs, ours in OPTIONS.items() if theirs in self.options}


class TaskHandler:
    """Runs the tasks of one queue of one backend."""

    def __init__(self, alias: str, queue_name: str) -> None:
        self.alias = alias
        self.job_type = job_type_of(alias, queue_name)

    def execute(self, context: JobContext, payload: dict) -> Any:  # type: ignore[type-arg]  # a plain payload
        """What the task returns; what it raises fails the attempt."""
        backend = tasks.task_backends[self.alias]
        result = backend.get_result(str(context.job_id))
        signals.task_started.send(type(backend), task_result=result)
        first = (base.TaskContext(task_result=result),) if result.task.takes_context else ()
        return result.task.call(*first, *result.args, **result.kwargs)


class TaskFinished(Middleware):
    """``task_finished`` is sent once the end of a task is committed; not for one whose process was killed."""

    def on_settled(self, attempt: SettledAttempt) -> None:
        """In the worker that ran the last attempt."""
        if attempt.final_status is None:
            return
        for backend in our_backends():
            if queue_of(backend.alias, attempt.job_type) is not None:
                result = backend.get_result(str(attempt.job_id))
                signals.task_finished.send(type(backend), task_result=result)


def our_backends() -> list[RunledgerBackend]:
    """The backends in ``TASKS`` that are ours."""
    found = [tasks.task_backends[alias] for alias in getattr(settings, "TASKS", {})]
    return [one for one in found if isinstance(one, RunledgerBackend)]


def register_tasks(catalog: JobCatalog) -> None:
    """Workers of ``catalog`` run the tasks of every queue of our backends. Raises ImproperlyConfigured for a queue or
    an option that a job cannot have."""
    for backend in our_backends():
        for queue_name in sorted(backend.queues):
            try:
                catalog.register(TaskHandler(backend.alias, queue_name), queue=queue_name, **backend.job_options())
            except ValidationError as error:
                raise ImproperlyConfigured(f"TASKS[{backend.alias!r}]: {error}") from None
    catalog.use(TaskFinished())


def job_type_of(alias: str, queue_name: str) -> str:
    """The job type for a queue of a backend."""
    return f"{_PREFIX}.{alias}.{queue_name}"


def queue_of(alias: str, job_type: str) -> str | None:
    """The queue of a job type that belongs to the backend; None for any other."""
    prefix = job_type_of(alias, "")
    return job_type.removeprefix(prefix) if job_type.startswith(prefix) else None


def _aware(moment: datetime | None) -> datetime | None:
    """With USE_TZ off, Django's times are naive and in its zone."""
    is_naive = moment is not None and timezone.is_naive(moment)
    aware: datetime | None = timezone.make_aware(moment) if is_naive else moment
    return aware
