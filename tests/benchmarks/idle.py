"""What a host costs that has nothing to do, and how its memory grows while it has: numbers, no verdict."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import psycopg

from benchmarks.framework import environment
from benchmarks.ground import count_succeeded, fill, statement_calls
from benchmarks.report import Contest

WORKERS = 2
WARM_UP_JOBS = 5_000
GROWTH_JOBS = 50_000
SETTLE_SECONDS = 20.0
"""An idle host calms down in steps: its pauses grow, the listener is announced, and at its second turn, after fifteen
seconds, the reaper finds that it has counted everything."""

WATCH_SECONDS = 20.0
PATIENCE_SECONDS = 120.0
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


def contests(url: str) -> list[Contest]:
    """Run each of them once: they take a minute together."""
    return [
        Contest(f"idle host, {WORKERS} workers", {"runledger worker": partial(rest, url)}),
        Contest(f"memory over {GROWTH_JOBS:,} jobs", {"runledger worker": partial(grow, url)}),
    ]


def rest(url: str) -> Mapping[str, float]:
    """A whole host, with keeper, reaper and scheduler, over an empty queue."""
    fill(url, 0)
    with whole_host(url, WORKERS) as workers:
        time.sleep(SETTLE_SECONDS)
        commits, calls, began = _commits(url), statement_calls(url), time.monotonic()
        time.sleep(WATCH_SECONDS)
        seconds = time.monotonic() - began
        figures = {"transactions/s": (_commits(url) - commits) / seconds}
        if calls is not None:
            figures["statements/s"] = ((statement_calls(url) or 0) - calls) / seconds
        figures["RSS MB/worker"] = sum(memory_kb(pid, "Rss") for pid in workers) / len(workers) / 1_024
        figures["PSS MB/worker"] = sum(memory_kb(pid, "Pss") for pid in workers) / len(workers) / 1_024
    return figures


def grow(url: str) -> Mapping[str, float]:
    """One worker, which first runs enough to have imported and cached what it needs."""
    with whole_host(url, 1) as [worker]:
        _run_jobs(url, WARM_UP_JOBS)
        before = memory_kb(worker, "Rss")
        _run_jobs(url, GROWTH_JOBS)
        after = memory_kb(worker, "Rss")
    return {"RSS MB": after / 1_024, "RSS B/job": (after - before) * 1_024 / GROWTH_JOBS}


@contextlib.contextmanager
def whole_host(url: str, workers: int) -> Iterator[list[int]]:
    """The process ids of the workers of a host that is up inside the block."""
    command = [*(sys.executable, "-m", "runledger", "worker", "--app", "benchmarks.app:catalog")]
    command += ["--processes", str(workers), "--log-format", "json"]
    with (
        tempfile.NamedTemporaryFile(prefix="runledger-bench-", suffix=".log") as log,
        subprocess.Popen(
            command,
            env=environment(url, batch=100),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        try:
            yield _ready_workers(Path(log.name), workers)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def memory_kb(pid: int, measure: str) -> int:
    """``Rss`` or ``Pss`` of a process: with its share of what others map too, or with only its part of that."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{measure}:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not tell {measure} of {pid}")


def _ready_workers(log: Path, count: int) -> list[int]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        said = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        ready = [one["pid"] for one in said if one["event"] == "worker.ready"]
        if len(ready) >= count:
            return ready
        time.sleep(0.05)
    raise RuntimeError(f"no {count} workers became ready: {log.read_text()[-2_000:]}")


def _run_jobs(url: str, jobs: int) -> None:
    fill(url, jobs)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count_succeeded(url) < jobs:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{jobs} jobs took longer than {PATIENCE_SECONDS:.0f} seconds")
        time.sleep(0.2)


def _commits(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(COMMITS).fetchone()
    assert row is not None
    return int(row[0])
