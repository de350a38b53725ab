"""How an attempt ended, as data: decided first, written afterwards, by whoever learned of it.

Made for every job on the hottest path, so these are slotted and not frozen.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from runledger.core.failures import DeadLetter, Failure, Retry
from runledger.core.states import JobStatus, Outcome


class LeaseCheck(StrEnum):
    """What a settle demands of the lease besides its token. A worker's lease must be live, without grace; the reaper
    takes only lapsed ones; the keeper settles for a process that is provably gone, live or not."""

    LIVE = "LIVE"
    LAPSED = "LAPSED"
    ANY = "ANY"


@dataclass(slots=True)
class Succeeded:
    """An attempt whose handler returned. ``output`` is JSON text; times are seconds before the settle is sent; a job of
    a workflow run names its run, which is locked first."""

    job_id: str
    lease_token: int
    output: str | None = None
    started_ago: float | None = None
    finished_ago: float = 0.0
    cpu_ms: int | None = None
    max_rss_kb: int | None = None
    workflow_run_id: str | None = None


@dataclass(slots=True)
class Ended:
    """An attempt that ended in any other way, with what follows from it.

    ``final_status`` ends the job; without it the job waits ``retry_seconds`` (none or zero: back to its place in
    line). ``is_refunded`` leaves the attempt count as before the claim; ``is_continued`` begins the next run;
    ``is_unstarted`` means that no handler ran, so no attempt row is left behind.
    """

    job_id: str
    lease_token: int
    outcome: Outcome
    final_status: JobStatus | None = None
    status_reason: str | None = None
    retry_seconds: float | None = None
    is_refunded: bool = False
    is_continued: bool = False
    is_unstarted: bool = False
    error_code: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    exit_signal: int | None = None
    output: str | None = None
    started_ago: float | None = None
    finished_ago: float = 0.0
    cpu_ms: int | None = None
    max_rss_kb: int | None = None
    workflow_run_id: str | None = None


def failed_end(
    job_id: str,
    lease_token: int,
    failure: Failure,
    decision: Retry | DeadLetter,
    *,
    workflow_run_id: str | None = None,
) -> Ended:
    """The end of a failed attempt as it was decided: the same for worker, keeper and reaper."""
    end = Ended(
        job_id,
        lease_token,
        failure.outcome,
        status_reason=failure.outcome.value,
        error_code=failure.code,
        error_message=failure.message,
        traceback=failure.traceback,
        exit_signal=failure.exit_signal,
        workflow_run_id=workflow_run_id,
    )
    if isinstance(decision, DeadLetter):
        end.final_status = JobStatus.DEAD_LETTERED
        end.status_reason = decision.reason.value
    else:
        end.retry_seconds = decision.delay_seconds
    return end


def ends_a_step(end: Succeeded | Ended) -> bool:
    """Whether the job belongs to a workflow run and ends for good, so that its step ends with it."""
    return end.workflow_run_id is not None and (isinstance(end, Succeeded) or end.final_status is not None)


def runs_to_lock(ends: Iterable[Succeeded | Ended]) -> list[str]:
    """The workflow runs whose rows must be locked before these ends are written, in the order of their ids. Empty for
    plain jobs."""
    return sorted({str(end.workflow_run_id) for end in ends if ends_a_step(end)})
