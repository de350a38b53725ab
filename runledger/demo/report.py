"""The figures of a finished demonstration."""

from dataclasses import dataclass
from uuid import UUID

from runledger import Outcome
from runledger.demo.check import Observation, differences, long_job_of
from runledger.demo.plan import Plan


@dataclass(frozen=True, slots=True)
class Report:
    """What happened. ``seconds`` run from the first claim to the last end; ``database_url`` is None when the database
    is gone again."""

    is_correct: bool
    files: int
    words: int
    jobs: int
    attempts: int
    retried: int
    recovered: int
    dead_lettered: int
    seconds: float
    jobs_per_second: float
    killed_pid: int | None
    killed_job_id: UUID | None
    resumed_at_step: int | None
    database_url: str | None
    differences: tuple[str, ...]


def make_report(plan: Plan, seen: Observation, *, trouble: list[str], database_url: str | None) -> Report:
    """The figures, and everything that differs; ``trouble`` is what went wrong outside of the database."""
    attempts = [one for of_job in seen.attempts.values() for one in of_job]
    outcomes = [one.outcome for one in attempts]
    seconds = 0.0
    if attempts:
        ends = max(one.finished_at for one in attempts) - min(one.leased_at for one in attempts)
        seconds = ends.total_seconds()
    found = (*trouble, *differences(plan, seen))
    long_job = long_job_of(seen)
    output = (long_job.output if long_job else None) or {}
    jobs = len(seen.jobs)
    return Report(
        is_correct=not found,
        files=len(plan.files),
        words=sum(row.facts.words for row in seen.rows),
        jobs=jobs,
        attempts=len(attempts),
        retried=outcomes.count(Outcome.RETRYABLE),
        recovered=outcomes.count(Outcome.PANICKED),
        dead_lettered=len(seen.dead_letters),
        seconds=round(seconds, 2),
        jobs_per_second=round(jobs / seconds, 1) if seconds else 0.0,
        killed_pid=seen.kill.pid if seen.kill else None,
        killed_job_id=long_job.job_id if long_job else None,
        resumed_at_step=output.get("resumed_at"),
        database_url=database_url,
        differences=found,
    )
