"""A job as Django's ``TaskResult``: status, attempts, workers and errors, read from what Runledger keeps of it."""

from typing import Any, Final

from django.utils.dateparse import parse_datetime
from django.utils.module_loading import import_string

from runledger.contrib.django.task_package import base
from runledger.core.failures import JobFailure
from runledger.core.jobs import Attempt, Job
from runledger.core.states import JobStatus, Outcome

CODE_OF_EXCEPTIONS: Final = "exception."

STATUSES: Final = {
    JobStatus.PENDING: base.TaskResultStatus.READY,
    JobStatus.LEASED: base.TaskResultStatus.RUNNING,
    JobStatus.SUCCEEDED: base.TaskResultStatus.SUCCESSFUL,
    JobStatus.DEAD_LETTERED: base.TaskResultStatus.FAILED,
    JobStatus.CANCELED: base.TaskResultStatus.FAILED,
}
WITHOUT_ERROR: Final = (Outcome.SUCCEEDED, Outcome.SNOOZED, Outcome.RELEASED)


class WorkerDied(Exception):
    """The process of the attempt ended: it was killed, or it crashed."""


_CLASSES_BY_OUTCOME: Final = {
    Outcome.TIMEOUT: "runledger.core.failures.JobTimeout",
    Outcome.CANCELED: "runledger.core.failures.JobCancelled",
    Outcome.PANICKED: f"{__name__}.WorkerDied",
    Outcome.LEASE_EXPIRED: f"{__name__}.WorkerDied",
}


def task_of(payload: dict[str, Any], *, backend: str, priority: int, queue_name: str) -> Any:
    """The task that a job was made from. Raises ImportError when its code is not there."""
    task = import_string(payload["task"])
    if not isinstance(task, base.Task):
        raise JobFailure.terminal("django.not_a_task", f"{payload['task']} is not a task")
    run_after = parse_datetime(payload["run_after"]) if payload.get("run_after") else None
    return task.using(backend=backend, priority=priority, queue_name=queue_name, run_after=run_after)


def result_of(job: Job, attempts: list[Attempt], task: Any, *, backend: str) -> Any:
    """The ``TaskResult`` of the job as it was read."""
    begun = [one for one in attempts if one.outcome is not Outcome.RELEASED]
    started = [one.started_at or one.leased_at for one in begun]
    attempted = [one.leased_at for one in begun]
    worker_ids = [one.worker_id for one in begun]
    if job.status is JobStatus.LEASED and job.leased_at is not None:
        started.append(job.leased_at)
        attempted.append(job.leased_at)
        worker_ids.append(job.worker_id or "")
    result = base.TaskResult(
        task=task,
        id=str(job.job_id),
        status=STATUSES[job.status],
        enqueued_at=job.created_at,
        started_at=started[0] if started else None,
        last_attempted_at=attempted[-1] if attempted else None,
        finished_at=job.finished_at,
        args=job.payload["args"],
        kwargs=job.payload["kwargs"],
        backend=backend,
        errors=[_error_of(one) for one in begun if one.outcome not in WITHOUT_ERROR],
        worker_ids=worker_ids,
    )
    object.__setattr__(result, "_return_value", job.output)  # as Django's own backends do: its results are frozen
    return result


def _error_of(attempt: Attempt) -> Any:
    code = attempt.error_code or ""
    if code.startswith(CODE_OF_EXCEPTIONS):
        name = code.removeprefix(CODE_OF_EXCEPTIONS)
        path = name if "." in name else f"builtins.{name}"
    else:
        path = _CLASSES_BY_OUTCOME.get(attempt.outcome, "runledger.core.failures.JobFailure")
    traceback = attempt.traceback or attempt.error_message or ""
    return base.TaskError(exception_class_path=path, traceback=traceback)
