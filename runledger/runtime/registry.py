"""The registry of a host's workers: what each serves stands on a notice board in shared memory, and the keeper, who has
a connection anyway, tells the database every third of a lease time, and soon after something changed.
"""

import json
import logging
import mmap
import socket
import struct
import time
from collections.abc import Sequence

from runledger.core.errors import RunledgerError, UnavailableError
from runledger.core.gate import clean_text
from runledger.core.workers import WorkerAnnouncement, WorkerHost, WorkerState
from runledger.postgres.workers import announce_workers, withdraw_workers
from runledger.runtime.children import resident_mb
from runledger.runtime.config import JobsConfig
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.slots import Slot, SlotState
from runledger.version import package_version

NOTICE_BYTES = 262_144
"""Room for some ten thousand job types. The kernel gives memory only for what is written."""

CHANGED_SECONDS = 1.0
"""The shortest pause between two announcements, however often workers come and go."""

_HEADER = struct.Struct("q")
_STATES = {
    SlotState.BOOTING: WorkerState.STARTING,
    SlotState.IDLE: WorkerState.IDLE,
    SlotState.BUSY: WorkerState.BUSY,
    SlotState.LEAVING: WorkerState.LEAVING,
}


class NoticeBoard:
    """One notice for each slot: the job types that its worker serves. Made before the first fork; a worker writes its
    own before it says that it is ready, the keeper reads it only after that."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * NOTICE_BYTES)

    def write(self, index: int, job_types: Sequence[str]) -> None:
        """The notice says these types, or nothing when they are too many for it."""
        data = json.dumps(list(job_types), ensure_ascii=False).encode()
        start = index * NOTICE_BYTES
        if len(data) > NOTICE_BYTES - _HEADER.size:
            data = b""
            log(logging.WARNING, "worker.types_not_announced", count=len(job_types))
        self._memory[start : start + _HEADER.size] = _HEADER.pack(0)
        self._memory[start + _HEADER.size : start + _HEADER.size + len(data)] = data
        self._memory[start : start + _HEADER.size] = _HEADER.pack(len(data))

    def read(self, index: int) -> str | None:
        """The JSON text of an array; None when nothing is written."""
        start = index * NOTICE_BYTES
        (size,) = _HEADER.unpack(self._memory[start : start + _HEADER.size])
        return self._memory[start + _HEADER.size : start + _HEADER.size + size].decode() if size else None


class Registry:
    """What the keeper tells of its host. ``tell_when_due`` may be called at every tick."""

    def __init__(
        self,
        link: DatabaseLink,
        slots: Sequence[Slot],
        board: NoticeBoard,
        *,
        host_id: str,
        app: str,
        queues: Sequence[str] | None,
        config: JobsConfig,
    ) -> None:
        self._link = link
        self._slots = slots
        self._board = board
        self._ttl_seconds = config.lease_ttl_seconds
        self._host = WorkerHost(
            host_id=host_id,
            host_name=clean_text(socket.gethostname(), 255),
            app=app,
            version=package_version(),
            queues=None if queues is None else tuple(queues),
        )
        self._told_at = -float("inf")
        self._told: list[object] = []

    def tell_when_due(self, worker_ids: Sequence[str]) -> None:
        """Told again after a third of a lease time, or a second after workers came, went, or became ready.

        A database that refuses is reported and asked again later: people would know less, and every job runs as
        before. Raises UnavailableError when it is away."""
        now = time.monotonic()
        seen = [_outline(slot) for slot in self._slots]
        is_due = now >= self._told_at + (CHANGED_SECONDS if seen != self._told else self._ttl_seconds / 3)
        if not is_due:
            return
        self._told_at, self._told = now, seen
        workers = [
            self._announcement(slot, worker_id)
            for slot, worker_id in zip(self._slots, worker_ids, strict=True)
            if slot.pid
        ]
        try:
            with self._link.autocommit() as ledger:
                announce_workers(ledger, self._host, workers, ttl_seconds=self._ttl_seconds)
        except UnavailableError:
            self._told = []
            raise
        except RunledgerError as error:
            log(logging.WARNING, "workers.not_announced", code=error.code, detail=error.internal_message)

    def withdraw(self) -> None:
        """No row of this host is left; when the database is away, they end by themselves."""
        try:
            with self._link.autocommit() as ledger:
                withdraw_workers(ledger, self._host.host_id)
        except RunledgerError as error:
            log(logging.INFO, "workers.not_withdrawn", code=error.code)

    def _announcement(self, slot: Slot, worker_id: str) -> WorkerAnnouncement:
        state = slot.state
        is_ready = state > SlotState.BOOTING
        is_quiet = slot.is_quiet and state is SlotState.IDLE
        return WorkerAnnouncement(
            worker_id=worker_id,
            pid=slot.pid,
            state=WorkerState.QUIET if is_quiet else _STATES.get(state, WorkerState.LEAVING),
            job_types=self._board.read(slot.index) if is_ready else "[]",
            started_ago=max(0.0, (time.monotonic_ns() - slot.spawned_at) / 1e9),
            running_token=slot.running_token or None,
            jobs_done=slot.jobs_done,
            rss_kb=round(resident_mb(slot.pid) * 1_024) or None,
        )


def _outline(slot: Slot) -> object:
    """What is worth telling at once; that a worker became idle or busy is not."""
    return slot.incarnation, slot.pid > 0, slot.state > SlotState.BOOTING, slot.is_quiet
