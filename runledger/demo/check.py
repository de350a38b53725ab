"""Whether the demonstration came out right. Pure: what was planned against what the database says, nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from runledger import Attempt, DeadLetter, Job, JobStatus, Outcome
from runledger.demo.long_text import LongText, read_through
from runledger.demo.plan import MISSING_PATH, Plan
from runledger.demo.results import ResultRow
from runledger.demo.workers import Kill

SIGKILL_NUMBER = 9
MOST_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Observation:
    """What the database says after the run, and whom we killed."""

    jobs: tuple[Job, ...]
    attempts: Mapping[UUID, tuple[Attempt, ...]]
    rows: tuple[ResultRow, ...]
    dead_letters: tuple[DeadLetter, ...]
    kill: Kill | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job should have gone."""

    status: JobStatus
    outcomes: tuple[Outcome, ...]


_AT_ONCE = Ending(JobStatus.SUCCEEDED, (Outcome.SUCCEEDED,))
_AFTER_RETRY = Ending(JobStatus.SUCCEEDED, (Outcome.RETRYABLE, Outcome.SUCCEEDED))
_AFTER_KILL = Ending(JobStatus.SUCCEEDED, (Outcome.PANICKED, Outcome.SUCCEEDED))
_DEAD = Ending(JobStatus.DEAD_LETTERED, (Outcome.TERMINAL,))
LONG_JOB = "the long text"


def differences(plan: Plan, seen: Observation) -> list[str]:
    """What is not as it should be, in sentences; empty when everything is right."""
    found = [*_of_jobs(plan, seen), *_of_rows(plan, seen), *_of_kill(seen), *_of_dead_letters(seen)]
    hidden = len(found) - MOST_DIFFERENCES
    return found if hidden <= 0 else [*found[:MOST_DIFFERENCES], f"and {hidden} more"]


def subject_of(job: Job) -> str:
    """What the job is about: its file, or the long text."""
    return str(job.payload["path"]) if job.job_type == "demo.digest" else LONG_JOB


def long_job_of(seen: Observation) -> Job | None:
    """The job whose worker was to be killed."""
    return next((job for job in seen.jobs if subject_of(job) == LONG_JOB), None)


def _of_jobs(plan: Plan, seen: Observation) -> Iterator[str]:
    endings = {file.path: _AFTER_RETRY if file.stumbles else _AT_ONCE for file in plan.files}
    endings |= {LONG_JOB: _AFTER_KILL, MISSING_PATH: _DEAD}
    if len(seen.jobs) != len(endings):
        yield f"there are {len(seen.jobs)} jobs and should be {len(endings)}"
    for job in seen.jobs:
        wanted = endings.get(subject_of(job))
        if wanted is None:
            yield f"{subject_of(job)}: nobody asked for this job"
            continue
        outcomes = tuple(attempt.outcome for attempt in seen.attempts.get(job.job_id, ()))
        if job.status is not wanted.status:
            yield f"{subject_of(job)}: the job is {job.status} and should be {wanted.status}"
        if outcomes != wanted.outcomes:
            yield f"{subject_of(job)}: attempts ended {_listed(outcomes)} and should have {_listed(wanted.outcomes)}"


def _of_rows(plan: Plan, seen: Observation) -> Iterator[str]:
    jobs = {subject_of(job): job.job_id for job in seen.jobs}
    rows: dict[str, list[ResultRow]] = {}
    for row in seen.rows:
        rows.setdefault(row.path, []).append(row)
    for file in plan.files:
        written = rows.pop(file.path, [])
        if len(written) != 1:
            yield f"{file.path}: its result was written {len(written)} times and should be once"
            continue
        [row] = written
        if row.facts.sha256 != file.facts.sha256:
            yield f"{file.path}: the file was changed while the demonstration ran"
        elif row.facts != file.facts:
            yield f"{file.path}: the result is not that of the plain computation"
        if (row.job_id, row.attempt) != (jobs.get(file.path), 2 if file.stumbles else 1):
            yield f"{file.path}: its result was written by another job or attempt"
    yield from (f"{path}: there is a result and should be none" for path in rows)


def _of_kill(seen: Observation) -> Iterator[str]:
    job = long_job_of(seen)
    if seen.kill is None or job is None:
        yield "no worker was killed"
        return
    killed = [one for attempts in seen.attempts.values() for one in attempts if one.outcome is Outcome.PANICKED]
    if [one.exit_signal for one in killed] != [SIGKILL_NUMBER]:
        yield f"{len(killed)} attempts are known to have died with their worker, and should be 1, by signal 9"
    output = job.output or {}
    if output.get("resumed_at", 0) < seen.kill.step:
        yield f"{LONG_JOB}: it was begun again and not resumed at its checkpoint"
    if "text" not in output or LongText(**output["text"]) != read_through():
        yield f"{LONG_JOB}: the result is not that of the plain computation"


def _of_dead_letters(seen: Observation) -> Iterator[str]:
    paths = [letter.payload.get("path") for letter in seen.dead_letters]
    if paths != [MISSING_PATH]:
        yield f"there are {len(paths)} dead letters and should be one, for the missing file"


def _listed(outcomes: tuple[Outcome, ...]) -> str:
    return ", ".join(outcomes) or "not at all"
