"""The client of an application: enqueue in a transaction of its own, begin one for more, wait for a job to end.

Every call is complete when it returns; nothing of the caller's is held between calls. Safe to make before a fork.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

from runledger.core.bulk import CANCELABLE, REPRIORITISABLE, REQUEUEABLE, ChangedJobs, filters_by_status
from runledger.core.errors import InvalidConfiguration, JobNotFound, WaitTimedOut
from runledger.core.filters import JobFilter
from runledger.core.jobs import EnqueuedJob, Job, JsonValue, Scope
from runledger.core.limits import MAX_DELAY_SECONDS, check_number, check_seconds
from runledger.core.requests import JobRequest
from runledger.core.states import JobStage
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflow_errors import WorkflowWaitTimedOut
from runledger.core.workflow_results import check_declares_result, result_of
from runledger.core.workflows import EnqueuedWorkflowRun, WorkflowRun, WorkflowRunRequest
from runledger.database.bulk import Operation, Watch, change_in_batches
from runledger.database.database import POOL_SIZE, Database
from runledger.database.settings import URL_VARIABLES, url_from_environment
from runledger.postgres.bulk import cancel_jobs, reprioritise_jobs, requeue_jobs
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.reads import get_job
from runledger.postgres.workflow_reads import get_workflow_run
from runledger.postgres.workflow_runs import enqueue_workflow_run

Seen = TypeVar("Seen")

ANSWER_TIMEOUT_SECONDS = 30.0
"""Longer than any statement of ours takes, and than an application would like to wait."""

SHORTEST_POLL_SECONDS = 0.001
FIRST_POLL_SECONDS = 0.01
LONGEST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.25
"""Pauses between two looks grow: most jobs that people wait for end at once, and one that has not will take a while."""


class Ledger:
    """One database and schema, as an application uses them; ``database`` serves ``migrate`` and its relatives.

    Nothing is opened before the first use, and a child after a fork opens connections of its own. Every call may raise
    DatabaseUnavailable, whose text never contains the password: also when an answer did not come within
    ``timeout_seconds``. Nobody knows then whether a commit happened; a request with a key may simply be made again.
    None waits for ever. Raises InvalidRequest for a timeout below a tenth of a second.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        pool_size: int = POOL_SIZE,
        timeout_seconds: float | None = ANSWER_TIMEOUT_SECONDS,
    ) -> None:
        self.database = Database(url, schema=schema, pool_size=pool_size, timeout_seconds=timeout_seconds)

    @classmethod
    def from_env(cls) -> Self:
        """The ledger of ``RUNLEDGER_DATABASE_URL``, else of ``DATABASE_URL``. Raises InvalidConfiguration without
        either, and InvalidDatabaseUrl."""
        url = url_from_environment()
        if url is None:
            raise InvalidConfiguration(f"none of {', '.join(URL_VARIABLES)} is set")
        return cls(url)

    def begin(self) -> AbstractContextManager[LedgerConnection]:
        """A transaction for the functions that take a connection: committed at the end of the block, rolled back when
        it raises."""
        return self.database.begin()

    def enqueue(
        self,
        job_type: str,
        payload: JsonValue = None,
        *,
        organization_id: UUID | str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_seconds: int | None = None,
        next_run_at: datetime | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        idempotency_ttl: timedelta | None = None,
        active_key: str | None = None,
        stage: JobStage | None = None,
        expires_at: datetime | None = None,
        tags: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> EnqueuedJob:
        """The job is stored and committed. Options and errors are those of ``JobRequest`` and ``enqueue_job``."""
        request = JobRequest(
            job_type,
            payload,
            organization_id=organization_id,
            priority=priority,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            next_run_at=next_run_at,
            delay=delay,
            idempotency_key=idempotency_key,
            idempotency_ttl=idempotency_ttl,
            active_key=active_key,
            stage=stage,
            expires_at=expires_at,
            tags=tags,
            headers=headers,
        )
        with self.database.autocommit() as connection:
            return enqueue_job(connection, request)

    def enqueue_many(self, requests: Sequence[JobRequest]) -> list[EnqueuedJob]:
        """All jobs are stored and committed, or none; answers stand in the order of ``requests``."""
        with self.begin() as connection:
            return enqueue_jobs(connection, requests)

    def get_job(self, job_id: UUID | str, *, scope: Scope | None = None) -> Job:
        """The job as it is now, of any organization unless ``scope`` says otherwise. Raises JobNotFound."""
        with self.database.autocommit() as connection:
            return get_job(connection, job_id, scope=Scope.any() if scope is None else scope)

    def wait_for_job(
        self, job_id: UUID | str, timeout_seconds: float | None = None, poll_seconds: float = LONGEST_POLL_SECONDS
    ) -> Job:
        """The job after it has succeeded, was dead-lettered or cancelled; without a timeout, however long that takes.

        Looks at once, then after pauses that grow from 10 ms to ``poll_seconds``. Holds no connection meanwhile.
        Raises WaitTimedOut, JobNotFound, or InvalidRequest for a pause below a millisecond.
        """
        try:
            for job in _looks(lambda: self.get_job(job_id), timeout_seconds, poll_seconds):
                if job.status.is_final:
                    return job
        except JobNotFound as error:
            raise JobNotFound(str(error), hint="has the transaction that enqueued it committed?") from None
        raise WaitTimedOut(f"the job is still {job.status} after {timeout_seconds or 0:g} s")

    def cancel_jobs(
        self,
        wanted: JobFilter,
        *,
        scope: Scope,
        reason: str | None = None,
        actor: str | None = None,
        watch: Watch | None = None,
    ) -> ChangedJobs:
        """The jobs that match and wait or run are CANCELED, at most 1,000 with each commit; one operator action says
        who, why and how many. Without a status in ``wanted``, those that wait and then those that run.

        ``watch`` hears after each commit what was done so far. Jobs of workflow runs are left out, and what somebody
        else holds is skipped; a repetition goes on. Raises InvalidRequest and what ``check_filter`` raises.
        """
        batch = functools.partial(cancel_jobs, scope=scope, reason=reason, actor=actor)
        operation = Operation("job.cancel", scope, actor, reason)
        return change_in_batches(self.database, operation, filters_by_status(wanted, CANCELABLE), batch, watch)

    def requeue_jobs(
        self,
        wanted: JobFilter,
        *,
        scope: Scope,
        reason: str | None = None,
        actor: str | None = None,
        watch: Watch | None = None,
    ) -> ChangedJobs:
        """The same for jobs that were dead-lettered or cancelled: they wait for their next run."""
        batch = functools.partial(requeue_jobs, scope=scope, reason=reason, actor=actor)
        operation = Operation("job.requeue", scope, actor, reason)
        return change_in_batches(self.database, operation, filters_by_status(wanted, REQUEUEABLE), batch, watch)

    def reprioritise_jobs(
        self,
        wanted: JobFilter,
        priority: int,
        *,
        scope: Scope,
        reason: str | None = None,
        actor: str | None = None,
        watch: Watch | None = None,
    ) -> ChangedJobs:
        """The same for jobs that wait, those of workflow runs too: they have this priority."""
        batch = functools.partial(reprioritise_jobs, priority=priority, scope=scope, reason=reason, actor=actor)
        operation = Operation("job.reprioritise", scope, actor, reason, {"priority": priority})
        return change_in_batches(self.database, operation, filters_by_status(wanted, REPRIORITISABLE), batch, watch)

    def enqueue_workflow_run(self, request: WorkflowRunRequest | WorkflowDagBuilder) -> EnqueuedWorkflowRun:
        """The run is stored and committed. Raises as ``enqueue_workflow_run`` does."""
        with self.begin() as connection:
            return enqueue_workflow_run(connection, request)

    def get_workflow_run(self, run_id: UUID | str, *, scope: Scope | None = None) -> WorkflowRun:
        """The run as it is now, of any organization unless ``scope`` says otherwise. Raises WorkflowRunNotFound."""
        with self.database.autocommit() as connection:
            return get_workflow_run(connection, run_id, scope=Scope.any() if scope is None else scope)

    def wait_for_workflow_run(
        self, run_id: UUID | str, timeout_seconds: float | None = None, poll_seconds: float = LONGEST_POLL_SECONDS
    ) -> WorkflowRun:
        """The run after it has ended, in whatever way; waits as ``wait_for_job`` does. Raises WorkflowWaitTimedOut,
        WorkflowRunNotFound or InvalidRequest."""
        for run in _looks(lambda: self.get_workflow_run(run_id), timeout_seconds, poll_seconds):
            if run.status.is_final:
                return run
        raise WorkflowWaitTimedOut(f"the run is still {run.status} after {timeout_seconds or 0:g} s")

    def wait_for_workflow_result(
        self, run_id: UUID | str, timeout_seconds: float | None = None, poll_seconds: float = 0.25
    ) -> JsonValue:
        """The output of the result step, once the run has succeeded; waits as ``wait_for_job`` does.

        Raises WorkflowResultNotDeclared at once, WorkflowResultUnsuccessful or WorkflowResultMissing when the run has
        ended, and what ``wait_for_workflow_run`` raises.
        """
        check_declares_result(self.get_workflow_run(run_id))
        return result_of(self.wait_for_workflow_run(run_id, timeout_seconds, poll_seconds))

    def close(self) -> None:
        """Every connection of this process is closed; the next call opens new ones."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _looks(look: Callable[[], Seen], timeout_seconds: float | None, poll_seconds: float) -> Iterator[Seen]:
    """What ``look`` answers at once and after each pause, until the patience ends; the last look is at its very end."""
    longest_pause = check_number(poll_seconds, field="poll_seconds", low=SHORTEST_POLL_SECONDS, high=MAX_DELAY_SECONDS)
    pause = min(FIRST_POLL_SECONDS, longest_pause)
    patience = MAX_DELAY_SECONDS if timeout_seconds is None else timeout_seconds
    deadline = time.monotonic() + check_seconds(patience, field="timeout_seconds")
    while True:
        yield look()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        time.sleep(min(pause, remaining))
        pause = min(pause * POLL_GROWTH, longest_pause)
