"""The workers of the demonstration: the real command in a process of its own, and the violent end of one of them."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runledger import Job, JobStatus

APP = "runledger.demo.jobs:catalog"
KILL_AT_STEP = 5
STOP_PATIENCE_SECONDS = 15
LOG_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Kill:
    """Which process was killed, and how far its job had come by its last checkpoint that we saw."""

    pid: int
    step: int


class DrainingWorkers:
    """``runledger worker --drain`` as it runs: ends by itself when nothing is left to do."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def kill_worker_of(self, job: Job) -> Kill | None:
        """SIGKILL to the process that runs ``job``, once it has left a few checkpoints; None while it has not.

        Only a child of the supervisor that we started is killed: the checkpoint names both.
        """
        checkpoint = job.checkpoint
        if job.status is not JobStatus.LEASED or job.attempt != 1 or not checkpoint:
            return None
        step = checkpoint["text"]["step"]
        if step < KILL_AT_STEP or checkpoint["parent_pid"] != self._process.pid:
            return None
        os.kill(checkpoint["pid"], signal.SIGKILL)
        return Kill(checkpoint["pid"], step)

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])


@contextmanager
def draining_workers(database_url: str, *, processes: int, home: Path) -> Iterator[DrainingWorkers]:
    """The command runs inside the block and has ended after it. ``home`` is where nothing of anybody's is imported
    from."""
    command = [sys.executable, "-m", "runledger", "worker", "--app", APP, "--processes", str(processes), "--drain"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=home, env=_environment(database_url), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield DrainingWorkers(process, log)
        finally:
            _stop(process)


def _environment(database_url: str) -> dict[str, str]:
    """Ours, with this database, and without settings that are meant for somebody else's workers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBS_")}
    return kept | {"RUNLEDGER_DATABASE_URL": database_url, "RUNLEDGER_LOG_FORMAT": "text"}


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
