"""What the supervisor tells the keeper when a worker has died: one line of JSON through a pipe."""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass

from runledger.core.failures import TIMEOUT_CODE, Failure
from runledger.core.states import Outcome
from runledger.postgres.recovery import WorkerDeath
from runledger.runtime.slots import Slot


@dataclass(frozen=True, slots=True)
class Obituary:
    """How a worker ended and which leases it held. ``cause`` is ``crash``, ``timeout``, ``memory``,
    ``wedged`` or ``shutdown``."""

    worker_id: str
    cause: str
    exit_status: int
    exit_signal: int | None
    running: int
    begun: list[int]
    started_ago: float | None
    cpu_ms: int | None
    max_rss_kb: int | None

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Obituary":
        return cls(**json.loads(line))

    def death(self) -> WorkerDeath:
        """The same for the database: the outcome of the attempt that was running."""
        return WorkerDeath(
            worker_id=self.worker_id,
            failure=self._failure(),
            running=self.running or None,
            ran_unsettled=[token for token in self.begun if token != self.running],
            started_ago=self.started_ago,
            cpu_ms=self.cpu_ms,
            max_rss_kb=self.max_rss_kb,
        )

    def _failure(self) -> Failure | None:
        if self.cause == "shutdown":
            return None
        if self.cause == "timeout":
            message = "the handler did not end within its timeout and grace; its process was killed"
            return Failure(Outcome.TIMEOUT, TIMEOUT_CODE, message, None, None, self.exit_signal)
        if self.cause == "memory":
            message = "its worker process was killed for using more memory than allowed"
            return Failure(Outcome.PANICKED, "job.memory_exceeded", message, None, None, self.exit_signal)
        return Failure(Outcome.PANICKED, "job.worker_crash", self._how(), None, None, self.exit_signal)

    def _how(self) -> str:
        if self.exit_signal is not None:
            return f"the worker process was ended by {_name_of(self.exit_signal)}"
        return f"the worker process ended by itself with exit status {self.exit_status}"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def write_obituary(
    slot: Slot, worker_id: str, *, cause: str, wait_status: int, cpu_seconds: float, max_rss_kb: int
) -> Obituary:
    """What is known of a worker right after it was reaped; its slot still says what it was doing."""
    begun, _ = slot.tokens()
    running = slot.running_token
    return Obituary(
        worker_id=worker_id,
        cause=cause,
        exit_status=os.waitstatus_to_exitcode(wait_status) if os.WIFEXITED(wait_status) else 0,
        exit_signal=os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None,
        running=running,
        begun=begun,
        started_ago=(time.monotonic_ns() - slot.started_at) / 1e9 if running else None,
        cpu_ms=round(cpu_seconds * 1_000),
        max_rss_kb=max_rss_kb,
    )
