"""What the supervisor tells the keeper when a worker has died: one line of JSON through a pipe."""

import contextlib
import json
import os
import signal
import time
from collections import deque
from dataclasses import asdict, dataclass

from runledger.core.failures import TIMEOUT_CODE, Failure
from runledger.core.states import Outcome
from runledger.postgres.recovery import WorkerDeath
from runledger.runtime.pulse import Pulse
from runledger.runtime.signals import drain
from runledger.runtime.slots import Slot

_WRITE_BYTES = 4_096
"""What a pipe takes whole."""


@dataclass(frozen=True, slots=True)
class Obituary:
    """How a worker ended and which leases it held. ``cause`` is ``crash``, ``timeout``, ``canceled``,
    ``memory``, ``wedged``, ``boot`` or ``shutdown``."""

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
        if self.cause == "canceled":
            message = "the lease was lost, and the handler did not end within the grace; its process was killed"
            return Failure(Outcome.LEASE_EXPIRED, "job.lease_expired", message, None, None, self.exit_signal)
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


class ObituaryPost:
    """The supervisor's end of the pipe. What no keeper has confirmed is kept, and told again to the next one: whatever
    a keeper had read and not settled when it died is not lost with it. To settle twice changes nothing."""

    def __init__(self, read: int, write: int, pulse: Pulse) -> None:
        self._read = read
        self._write = write
        self._pulse = pulse
        self._confirmed = 0
        self._kept: deque[bytes] = deque()
        self._unsent = b""

    @property
    def has_told_everything(self) -> bool:
        """Whether the pipe has taken every obituary."""
        return not self._unsent

    def add(self, obituary: Obituary) -> None:
        """It is told with the next ``send``."""
        self._kept.append(obituary.to_line())
        self._unsent += self._kept[-1]

    def send(self) -> None:
        """The pipe may be full while the keeper is away; the rest waits here. Never blocks."""
        self._forget_the_confirmed()
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._write, self._unsent[:_WRITE_BYTES]) :]

    def start_again(self) -> None:
        """The keeper is dead. What it left in the pipe is taken out, and the next one is told everything anew."""
        self._forget_the_confirmed()
        while drain(self._read):
            pass
        self._unsent = b"".join(self._kept)

    def _forget_the_confirmed(self) -> None:
        confirmed = self._pulse.confirmed
        while self._confirmed < confirmed and self._kept:
            self._kept.popleft()
            self._confirmed += 1
