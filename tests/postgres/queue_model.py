"""What the queue should do, in plain Python: the other half of ``test_queue_machine.py``."""

from dataclasses import dataclass, field
from typing import Any

from runledger.core.results import LeaseCheck
from runledger.core.states import JOB_TRANSITIONS, JobStatus

CRASH_BUDGET = 2


@dataclass
class ModelLease:
    job_id: str
    token: int
    worker_id: str
    attempt: int
    is_lapsed: bool = False
    checkpoint: Any = None


@dataclass
class ModelJob:
    """``place`` is ready, scheduled, leased or nothing; ``errors`` holds the codes of the run's ended attempts."""

    job_id: str
    job_type: str
    priority: int
    max_attempts: int
    place: str
    status: JobStatus = JobStatus.PENDING
    run: int = 1
    attempt: int = 0
    lease: ModelLease | None = None
    progress: tuple[int | None, int | None] = (None, None)
    checkpoint: Any = None
    reason: str | None = None
    final_code: str | None = None
    errors: list[tuple[int, int, str | None]] = field(default_factory=list)
    crashes: int = 0
    events: list[str] = field(default_factory=lambda: ["ENQUEUED"])
    is_quiescing: bool = False

    def tell(self, transition: str) -> None:
        self.events += [event.value for event in JOB_TRANSITIONS[transition].events]

    @property
    def stage(self) -> str:
        return {"ready": "queued", "scheduled": "scheduled", "leased": "running"}.get(self.place, "completed")

    @property
    def last_error(self) -> str | None:
        if self.status.is_final:
            return self.final_code
        return max(self.errors)[2] if self.errors else None

    @property
    def shown_checkpoint(self) -> Any:
        own = self.lease.checkpoint if self.lease else None
        return self.checkpoint if own is None else own

    def projection(self) -> tuple[Any, ...]:
        return (
            self.job_type,
            self.status.value,
            self.stage,
            self.priority,
            self.run,
            self.attempt,
            self.lease.token if self.lease else None,
            self.lease.worker_id if self.lease else None,
            *self.progress,
            self.shown_checkpoint,
            self.reason,
            self.last_error,
        )

    def claim(self, token: int, worker_id: str) -> ModelLease:
        self.attempt += 1
        self.status, self.place = JobStatus.LEASED, "leased"
        self.lease = ModelLease(self.job_id, token, worker_id, self.attempt)
        self.tell("claim")
        return self.lease

    def admits(self, token: int, check: LeaseCheck) -> bool:
        if self.lease is None or self.lease.token != token:
            return False
        return check is LeaseCheck.ANY or self.lease.is_lapsed == (check is LeaseCheck.LAPSED)

    def save_progress(self, done: int | None, total: int | None, checkpoint: Any) -> bool:
        """Whether the merged values are valid; then they are kept."""
        assert self.lease is not None
        done = self.progress[0] if done is None else done
        total = self.progress[1] if total is None else total
        if (done or 0) < 0 or (total or 0) < 0 or (done is not None and total is not None and done > total):
            return False
        self.progress = (done, total)
        self.lease.checkpoint = self.lease.checkpoint if checkpoint is None else checkpoint
        return True

    def _end_attempt(self, code: str | None = None, *, is_recorded: bool = True) -> None:
        assert self.lease is not None
        self.checkpoint = self.shown_checkpoint
        if is_recorded:
            self.errors.append((self.attempt, self.lease.token, code))
        self.lease = None

    def _wait(self, place: str) -> None:
        self.status, self.place = JobStatus.PENDING, place

    def _finish(self, status: JobStatus, reason: str | None, code: str | None) -> None:
        self.status, self.place, self.reason, self.final_code = status, "", reason, code

    def succeed(self) -> None:
        self._end_attempt()
        self._finish(JobStatus.SUCCEEDED, None, None)
        self.tell("succeed")

    def retry(self, code: str, place: str) -> None:
        self._end_attempt(code)
        self._wait(place)
        self.tell("retry")

    def dead_letter(self, code: str, reason: str) -> None:
        self._end_attempt(code)
        self._finish(JobStatus.DEAD_LETTERED, reason, code)
        self.tell("dead_letter")

    def snooze(self, place: str) -> None:
        self._end_attempt()
        self.attempt -= 1
        self._wait(place)
        self.tell("snooze")

    def release(self) -> None:
        self._end_attempt(is_recorded=False)
        self.attempt -= 1
        self._wait("ready")
        self.tell("release")

    def expire(self) -> None:
        self._end_attempt(is_recorded=False)
        self.attempt -= 1
        self._finish(JobStatus.CANCELED, "EXPIRED", None)
        self.tell("expire")

    def continue_(self, place: str) -> None:
        self._end_attempt()
        self.run, self.attempt, self.errors, self.crashes = self.run + 1, 0, [], 0
        self._wait(place)
        self.tell("continue")

    def fail_by_decision(self, code: str, *, is_crash: bool = False, place: str = "scheduled") -> str:
        """What reaper and keeper decide; answers with where the job went."""
        self.crashes += is_crash
        if is_crash and self.crashes >= CRASH_BUDGET:
            self.dead_letter(code, "CRASH_BUDGET_SPENT")
        elif self.attempt >= self.max_attempts:
            self.dead_letter(code, "ATTEMPTS_EXHAUSTED")
        else:
            self.retry(code, place)
            return "retried"
        return "dead_lettered"

    def cancel(self) -> None:
        if self.lease:
            self.is_quiescing = not self.lease.is_lapsed
            self._end_attempt("job.canceled")
        self._finish(JobStatus.CANCELED, "CANCELED", None)
        self.tell("cancel")

    def requeue(self) -> None:
        self.run, self.attempt, self.errors, self.crashes = self.run + 1, 0, [], 0
        self.progress, self.checkpoint, self.reason, self.final_code = (None, None), None, None, None
        self._wait("ready")
        self.tell("requeue")
