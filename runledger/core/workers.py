"""Worker processes as people see them: what each serves, what it does, and when it was last heard of."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class WorkerState(StrEnum):
    """What a worker process does: as its host last said, but BUSY as soon as it holds a job."""

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    QUIET = "QUIET"
    LEAVING = "LEAVING"


@dataclass(frozen=True, slots=True)
class WorkerAnnouncement:
    """What a keeper says of one worker of its host. ``job_types`` is the JSON text of an array, None when not known;
    ``running_token`` is the lease whose handler runs."""

    worker_id: str
    pid: int
    state: WorkerState
    job_types: str | None
    started_ago: float
    running_token: int | None
    jobs_done: int
    rss_kb: int | None


@dataclass(frozen=True, slots=True)
class WorkerHost:
    """What all workers of a host have in common. ``queues`` is None when they serve all."""

    host_id: str
    host_name: str
    app: str
    version: str
    queues: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """One worker process. ``is_live`` is false once its host has not been heard of for a lease time; it is then dead,
    or cut off. ``job_id`` is the job it runs, of the ``lease_count`` it holds. ``job_types`` is None when they are not
    known, ``queues`` when it serves all. ``rss_kb`` is its resident memory."""

    worker_id: str
    host_id: str
    host_name: str
    pid: int
    app: str
    version: str
    state: WorkerState
    is_live: bool
    job_types: tuple[str, ...] | None
    queues: tuple[str, ...] | None
    started_at: datetime
    seen_at: datetime
    expires_at: datetime
    job_id: UUID | None
    lease_count: int
    jobs_done: int
    rss_kb: int | None
