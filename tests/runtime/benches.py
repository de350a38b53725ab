"""A worker or keeper as an object, with what a test needs to set it up, tick it and look at what it did."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.hosts import Connection

from runledger import (
    Attempt,
    Job,
    JobCatalog,
    JobContext,
    JobRequest,
    RetryPolicy,
    Scope,
    enqueue_job,
    get_job,
    list_job_attempts,
)
from runledger.core.jobs import ClaimedJob
from runledger.postgres.tables import metadata
from runledger.runtime.host import Shared
from runledger.runtime.keeper import Keeper
from runledger.runtime.link import DatabaseLink
from runledger.runtime.obituary import Obituary
from runledger.runtime.slots import Slot, SlotState
from runledger.runtime.worker import Worker

MOST_TICKS = 50
EMPTY_ALL = "; ".join(
    f"DELETE FROM {table.fullname}"
    for table in reversed(metadata.sorted_tables)
    if not table.info.get("is_view") and table.name != "runledger_migration_history"
)


@dataclass
class Bench:
    """One worker in this process."""

    connection: Connection
    catalog: JobCatalog
    worker: Worker
    slot: Slot
    link: DatabaseLink

    def enqueue(self, job_type: str, payload: Any = None, **options: Any) -> str:
        return str(enqueue_job(self.connection, JobRequest(job_type, payload, **options)).job_id)

    def work(self) -> None:
        """Ticks until the worker finds nothing more to do."""
        for _ in range(MOST_TICKS):
            if self.worker.tick() != 0.0:
                return
        raise AssertionError(f"the worker was still busy after {MOST_TICKS} ticks")

    def run(self, job_type: str, payload: Any = None, **options: Any) -> str:
        """A new job, and everything that is due now is done."""
        job_id = self.enqueue(job_type, payload, **options)
        self.work()
        return job_id

    def job(self, job_id: str) -> Job:
        return get_job(self.connection, job_id, scope=Scope.any())

    def attempts(self, job_id: str) -> list[Attempt]:
        found = list_job_attempts(self.connection, job_id, scope=Scope.any(), limit=100)
        return sorted(found, key=lambda one: one.lease_token)

    def scalar(self, query: str, *parameters: object) -> Any:
        return scalar(self.connection, query, *parameters)


@dataclass
class KeeperBench:
    """One keeper in this process."""

    connection: Connection
    keeper: Keeper
    slots: Sequence[Slot]
    link: DatabaseLink
    shared: Shared

    def live_in(self, slot: Slot, *, incarnation: int = 1, pid: int = 0, state: SlotState = SlotState.IDLE) -> str:
        """A worker lives in the slot; answers with its id. Without a pid it is this very process."""
        slot.reset(incarnation, time.monotonic_ns())
        slot.set_pid(pid or os.getpid())
        slot.turn(state, time.monotonic_ns())
        return self.keeper.worker_id(slot)

    def run_in(self, slot: Slot, jobs: Sequence[ClaimedJob], *, position: int = 0, seconds_ago: float = 0.0) -> None:
        """The worker claimed these jobs and began the one at ``position``, this long ago."""
        then = time.monotonic_ns() - int(seconds_ago * 1e9)
        slot.turn(SlotState.BUSY, then)
        slot.hold([job.lease_token for job in jobs], then)
        slot.begin(position, jobs[position].lease_token, then, time.monotonic_ns() + 60_000_000_000)

    def die(self, obituary: Obituary) -> None:
        os.write(self.shared.obituaries.write, obituary.to_line())

    def was_woken(self, slot: Slot) -> bool:
        try:
            return bool(os.read(self.shared.wakes[slot.index].read, 4_096))
        except BlockingIOError:
            return False

    def job(self, job_id: object) -> Job:
        return get_job(self.connection, str(job_id), scope=Scope.any())

    def attempts(self, job_id: object) -> list[Attempt]:
        found = list_job_attempts(self.connection, str(job_id), scope=Scope.any(), limit=100)
        return sorted(found, key=lambda one: one.lease_token)


def scalar(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def returning(value: Any) -> JobCatalog:
    """A catalog whose one type, ``test``, returns ``value``, or raises it when it is an exception."""
    catalog = JobCatalog(retry=RetryPolicy(base_seconds=60, factor=1, jitter=False))

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return catalog


def grow_prefetch(bench: Bench, *, to: int) -> None:
    """The worker claims a batch of this size next, as short jobs would make it by themselves."""
    bench.worker._prefetch.size = to
