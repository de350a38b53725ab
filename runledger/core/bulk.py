"""Changes of many jobs at once: which jobs they can be about, and what came of them. Values and rules only."""

from dataclasses import dataclass, replace
from uuid import UUID

from runledger.core.errors import InvalidRequest
from runledger.core.filters import JobFilter, check_filter
from runledger.core.states import JOB_TRANSITIONS, JobStatus

CANCELABLE = tuple(JobStatus(status) for status in JOB_TRANSITIONS["cancel"].sources)
REQUEUEABLE = tuple(JobStatus(status) for status in JOB_TRANSITIONS["requeue"].sources)
REPRIORITISABLE = (JobStatus.PENDING,)


@dataclass(frozen=True, slots=True)
class ChangedJobs:
    """What came of a batch, or of all batches together: jobs that matched, and how many of them were changed.

    The rest was skipped: somebody else held them or had moved them on, or they are ``of_workflows``, which change with
    their run. ``next_before`` is where the next batch begins; None when nothing is left to look at.
    """

    matched: int = 0
    changed: int = 0
    of_workflows: int = 0
    next_before: UUID | None = None

    @property
    def skipped(self) -> int:
        """How many jobs matched and were left as they are."""
        return self.matched - self.changed

    def and_then(self, batch: "ChangedJobs") -> "ChangedJobs":
        """Both together, up to where the later one ended."""
        return ChangedJobs(
            self.matched + batch.matched,
            self.changed + batch.changed,
            self.of_workflows + batch.of_workflows,
            batch.next_before,
        )


def filters_by_status(wanted: JobFilter, possible: tuple[JobStatus, ...]) -> list[JobFilter]:
    """One filter for each status that is wanted and possible, in which order they are worked through.

    Raises InvalidRequest for a status that is not possible, and what ``check_filter`` raises.
    """
    check_filter(wanted)
    if wanted.status is None:
        return [replace(wanted, status=status) for status in possible]
    status = JobStatus(wanted.status)
    if status not in possible:
        raise InvalidRequest(f"only jobs that are {' or '.join(possible)} can be changed so, not {status}")
    return [replace(wanted, status=status)]
