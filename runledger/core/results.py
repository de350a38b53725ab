"""How an attempt ended, as data: decided first, written afterwards, by whoever learned of it.

Made for every job on the hottest path, so these are slotted and not frozen.
"""

from dataclasses import dataclass
from enum import StrEnum

from runledger.core.states import JobStatus, Outcome


class LeaseCheck(StrEnum):
    """What a settle demands of the lease besides its token. A worker's lease must be live, without grace; the reaper
    takes only lapsed ones; the keeper settles for a process that is provably gone, live or not."""

    LIVE = "LIVE"
    LAPSED = "LAPSED"
    ANY = "ANY"


@dataclass(slots=True)
class Succeeded:
    """An attempt whose handler returned. ``output`` is JSON text; times are seconds before the settle is sent."""

    job_id: str
    lease_token: int
    output: str | None = None
    started_ago: float | None = None
    finished_ago: float = 0.0
    cpu_ms: int | None = None
    max_rss_kb: int | None = None


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
