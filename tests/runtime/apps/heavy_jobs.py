"""Jobs that take memory and keep it, and one that leaves an orphan behind."""

import os
import time
from pathlib import Path
from typing import Any

from runtime.apps.hostile_jobs import record, wait_for_gate

from runledger import JobCatalog, JobContext, RetryPolicy

catalog = JobCatalog(retry=RetryPolicy(base_seconds=0.01, factor=1.0, jitter=False), max_attempts=3)
kept: list[bytes] = []


@catalog.job("light")
def be_light(context: JobContext, payload: dict[str, Any]) -> None:
    record(context, "ran")


@catalog.job("keeps")
def keep(context: JobContext, payload: dict[str, Any]) -> None:
    """The memory stays with the process after the job."""
    kept.append(b"x" * (payload["megabytes"] * 1_048_576))
    record(context, "ran")


@catalog.job("swells", max_attempts=1)
def swell(context: JobContext, payload: dict[str, Any]) -> None:
    """A little more every hundredth of a second, up to a limit that a test machine can bear."""
    record(context, "begun")
    for _ in range(payload["most_megabytes"] // 8):
        kept.append(b"x" * 8 * 1_048_576)
        time.sleep(0.01)
    record(context, "ended")


@catalog.job("orphans")
def leave_orphan(context: JobContext, payload: dict[str, Any]) -> str:
    """A grandchild whose parent ends at once; it waits for the gate and ends with a telling status."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.setsid()
            Path(f"{payload['gate']}.pid").write_text(str(os.getpid()))
            wait_for_gate(payload)
            os._exit(payload["status"])
        os._exit(0)
    os.waitpid(child, 0)
    record(context, "ran")
    return "done"
