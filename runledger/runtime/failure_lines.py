"""The log line of a failed attempt, the same whoever finds out that it failed."""

import logging

from runledger.core.jobs import ClaimedJob
from runledger.core.results import Ended
from runledger.core.states import JobStatus
from runledger.runtime.logs import log


def log_failure(job: ClaimedJob, end: Ended) -> None:
    """A person reads which job failed, why, where in the code, and what follows."""
    is_dead = end.final_status is JobStatus.DEAD_LETTERED
    log(
        logging.ERROR if is_dead else logging.WARNING,
        "job.dead_lettered" if is_dead else "job.retry_scheduled",
        job_id=job.job_id,
        job_type=job.job_type,
        attempt=f"{job.attempt}/{job.max_attempts}",
        outcome=end.outcome.value,
        code=end.error_code,
        message=end.error_message,
        retry_in=None if end.retry_seconds is None else f"{end.retry_seconds:.1f}s",
        traceback=end.traceback,
    )
