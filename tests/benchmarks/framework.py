"""The framework itself: ``runledger worker`` in processes of its own, drained or idle."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.app import LATENCY_JOB_TYPE, STARTS_CHANNEL
from benchmarks.ground import fill
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_job

ROOT = Path(__file__).resolve().parents[2]
DRAIN_TIMEOUT_SECONDS = 120
START_TIMEOUT_SECONDS = 20
IDLE_SECONDS = 0.1
LISTENING = "SELECT 1 FROM runledger.job_listeners WHERE listening_until > now()"
BUSY_SECONDS = """
SELECT extract(epoch FROM max(finished_at) - min(leased_at)) FROM runledger.job_attempts WHERE worker_id <> 'bench'
"""
"""Of the attempts of workers; those of a history that a bench wrote itself have this name."""

Connection = psycopg.Connection[tuple[Any, ...]]


def command(processes: int, *options: str, catalog: str = "catalog") -> list[str]:
    return [
        *(sys.executable, "-m", "runledger", "worker", "--app", f"benchmarks.app:{catalog}"),
        *("--processes", str(processes), "--no-reaper", *options),
    ]


def environment(url: str, *, batch: int, **settings: str) -> dict[str, str]:
    """What the worker's processes find: the database, the import path, the largest batch, and more ``settings``."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    given = {"RUNLEDGER_DATABASE_URL": url, "PYTHONPATH": paths, "JOBS_CLAIM_BATCH_SIZE": str(batch)}
    return os.environ | given | settings


def drain(url: str, *, processes: int, batch: int, catalog: str = "catalog", **settings: str) -> float:
    """Seconds from the first lease to the last end, as the database saw them: the start of Python is not counted."""
    done = subprocess.run(
        command(processes, "--drain", catalog=catalog),
        env=environment(url, batch=batch, **settings),
        timeout=DRAIN_TIMEOUT_SECONDS,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the worker ended with {done.returncode}: {done.stderr[-2_000:]}")
    with psycopg.connect(url) as connection:
        row = connection.execute(BUSY_SECONDS).fetchone()
    assert row is not None
    return float(row[0])


@contextlib.contextmanager
def idle_worker(url: str, *, catalog: str = "catalog") -> Iterator[None]:
    """A worker host is up and idle inside the block."""
    with subprocess.Popen(
        command(1, catalog=catalog),
        env=environment(url, batch=100),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_TIMEOUT_SECONDS)


def pick_up(url: str, samples: int) -> Mapping[str, float]:
    """How long after the call of enqueue the handler begins, one job at a time on an idle queue."""
    fill(url, 0)
    with (
        psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection,
        psycopg.connect(url, autocommit=True) as listener,
        idle_worker(url),
    ):
        listener.execute(f"LISTEN {STARTS_CHANNEL}")
        _one_pick_up_ms(url, connection, listener)  # waits for the worker to start
        wait_until_listening(connection)
        found = [_one_pick_up_ms(url, connection, listener) for _ in range(samples)]
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    return {"p50 ms": cuts[49], "p95 ms": cuts[94], "p99 ms": cuts[98]}


def wait_until_listening(connection: Connection) -> None:
    """A host announces that it listens a second or two after its first worker is idle; until then it polls."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not connection.execute(LISTENING).fetchone():
        if time.monotonic() > deadline:
            raise RuntimeError("the host does not listen")
        time.sleep(IDLE_SECONDS)


def _one_pick_up_ms(url: str, connection: Connection, listener: Connection) -> float:
    time.sleep(IDLE_SECONDS)  # what is measured is a queue at rest, and nothing tells from outside that it is
    began = time.monotonic()
    enqueue_job(connection, JobRequest(LATENCY_JOB_TYPE, {"url": url}))
    told = next(iter(listener.notifies(timeout=START_TIMEOUT_SECONDS, stop_after=1)), None)
    if told is None:
        raise RuntimeError("no worker started the job")
    return (float(told.payload) - began) * 1_000
