"""A supervisor as a real process, and what a test may see of it: its log lines, its children, its rows.

Every process of a host carries the host's mark in its environment, grandchildren included, so all of them are found
and ended by their ids, whatever the test did.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from runledger.core.jobs import Attempt, Job, Scope
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_jobs
from runledger.postgres.reads import get_job, list_job_attempts

REPOSITORY = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
MARK = "RL_TEST_MARK"
PATIENCE_SECONDS = 30.0

CREATE_EFFECTS = """
    CREATE TABLE IF NOT EXISTS effects (
        job_id uuid NOT NULL, attempt integer NOT NULL, pid integer NOT NULL, note text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""

Connection = psycopg.Connection[Any]


def until(condition: Callable[[], Any], *, within: float = PATIENCE_SECONDS, what: str = "it") -> Any:
    """What ``condition`` answers as soon as that is true. Raises AssertionError after ``within`` seconds."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        pause.wait(0.005)
    raise AssertionError(f"{what} did not happen within {within:g} seconds")


class Host:
    """``python apps/host.py`` with the options given, in a session of its own."""

    def __init__(self, url: str, directory: Path, environment: dict[str, str], options: dict[str, Any]) -> None:
        script = APPS / options.pop("script", "host.py")
        self.mark = secrets.token_hex(8)
        self.log_path = directory / f"host-{self.mark}.log"
        merged = os.environ | {
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{APPS}",
            "RL_TEST_DATABASE_URL": url,
            MARK: self.mark,
            "JOBS_MAX_GLOBAL_CONCURRENCY": "1",
            "JOBS_POLL_INTERVAL_MS": "50",
            "JOBS_TIMEOUT_GRACE_SECONDS": "1",
        }
        self.started_at = time.monotonic()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), json.dumps({"app": "hostile_jobs:catalog"} | options)],
                cwd=directory,
                env=merged | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this event, the first first."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said["event"] == name:
                    found.append(said)
        return found

    def wait_for_event(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        def seen() -> list[dict[str, Any]]:
            has_ended = self.process.poll() is not None
            found = self.events(name)
            assert len(found) >= count or not has_ended, f"{count} × {name} did not happen before the host ended"
            return found if len(found) >= count else []

        try:
            found: list[dict[str, Any]] = until(seen, what=f"{count} × {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the host said:\n{self.log}") from None
        return found

    def ready(self, workers: int = 1) -> "Host":
        """Returns once this many workers have said that they are ready."""
        self.wait_for_event("worker.ready", workers)
        return self

    @property
    def worker_pids(self) -> list[int]:
        """The living workers that have been ready, in the order in which they were."""
        living = self.children()
        return [said["pid"] for said in self.events("worker.ready") if said["pid"] in living]

    def children(self) -> list[int]:
        """The supervisor's children in the order of their birth: keeper, reaper, scheduler, workers, replacements."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split() if _state_of(int(pid)) != "Z"]

    def living(self) -> list[int]:
        """Every process that was started by this host or by what it started, the supervisor included."""
        wanted = f"{MARK}={self.mark}".encode()
        return [pid for pid in _all_pids() if wanted in environment_of(pid)]

    def pid_of(self, role: str) -> int:
        """The process of this role that was started last."""
        return int([one["pid"] for one in self.events("process.started") if one["role"] == role][-1])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, within: float = PATIENCE_SECONDS) -> int:
        """The exit status of the supervisor, once it has ended."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the host did not end within {within:g} seconds; it said:\n{self.log}") from None

    def stop(self) -> int:
        """SIGTERM once, and the exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait_until_gone(self, within: float = 10.0) -> None:
        """Returns once no process of this host is left."""
        until(lambda: not self.living(), within=within, what=f"the end of {self.living()}")

    def end(self) -> None:
        """Nothing of it is left, whatever state it is in."""
        for _ in range(100):
            left = self.living()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        self.process.wait(10)


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "Z"


class Desk:
    """What the test does with the database: enqueue, look, wait."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.connection: Connection = psycopg.connect(url, autocommit=True)
        self.connection.execute(CREATE_EFFECTS)

    def close(self) -> None:
        self.connection.close()

    def enqueue(self, job_type: str, *, count: int = 1, **payload: Any) -> list[str]:
        """``count`` jobs; keys that a request has (priority, max_attempts, timeout_seconds) are taken out of the
        payload."""
        options = {
            name: payload.pop(name) for name in ("priority", "max_attempts", "timeout_seconds") if name in payload
        }
        requests = [JobRequest(job_type, payload, **options) for _ in range(count)]
        with self.connection.transaction():
            return [str(job.job_id) for job in enqueue_jobs(self.connection, requests)]

    def one(self, job_type: str, **payload: Any) -> str:
        [job_id] = self.enqueue(job_type, **payload)
        return job_id

    def gate(self, name: str = "gate") -> Path:
        """A gate that is still closed; ``touch()`` opens it."""
        return self.directory / f"{name}-{secrets.token_hex(4)}"

    def scalar(self, query: str, *parameters: object) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def job(self, job_id: str) -> Job:
        return get_job(self.connection, job_id, scope=Scope.any())

    def attempts(self, job_id: str) -> list[Attempt]:
        return sorted(
            list_job_attempts(self.connection, job_id, scope=Scope.any(), limit=100), key=lambda one: one.lease_token
        )

    def outcomes(self, job_id: str) -> list[str]:
        return [one.outcome.value for one in self.attempts(job_id)]

    def effects(self, job_id: str) -> list[str]:
        rows = self.connection.execute("SELECT note FROM effects WHERE job_id = %s ORDER BY at", (job_id,)).fetchall()
        return [note for (note,) in rows]

    def leases(self) -> int:
        return int(self.scalar("SELECT count(*) FROM runledger.job_leases"))

    def unfinished(self) -> int:
        return int(self.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"))

    def successes_per_job(self) -> dict[str, int]:
        """Stored successes of each job that has any attempt or none."""
        return dict(
            self.connection.execute(
                "SELECT q.id::text, count(a.job_id) FROM runledger.job_queue q LEFT JOIN runledger.job_attempts a"
                " ON a.job_id = q.id AND a.outcome = 'SUCCEEDED' GROUP BY q.id"
            ).fetchall()
        )

    def wait_for_effect(self, job_id: str, note: str = "begun", *, count: int = 1, within: float = 30.0) -> int:
        """The pid of the process that recorded the last of them."""

        def pid() -> Any:
            rows = self.connection.execute(
                "SELECT pid FROM effects WHERE job_id = %s AND note = %s ORDER BY at", (job_id, note)
            ).fetchall()
            return rows[-1][0] if len(rows) >= count else None

        return int(until(pid, within=within, what=f"{note!r} of the job"))

    def wait_for_attempt(self, job_id: str, outcome: str, *, within: float = 30.0) -> Attempt:
        def found() -> Attempt | None:
            return next((one for one in self.attempts(job_id) if one.outcome == outcome), None)

        attempt: Attempt = until(found, within=within, what=f"an attempt that ended {outcome}")
        return attempt

    def wait_for_end(self, job_id: str, *, within: float = 30.0) -> Job:
        def ended() -> Job | None:
            job = self.job(job_id)
            return job if job.status.is_final else None

        job: Job = until(ended, within=within, what="the end of the job")
        return job

    def wait_until_all_ended(self, *, within: float = 60.0) -> None:
        until(lambda: self.unfinished() == 0, within=within, what="the end of all jobs")

    def age_leases(self, seconds: float) -> None:
        """Every lease lies this much further in the past."""
        self.connection.execute(
            "UPDATE runledger.job_leases SET leased_at = leased_at - %(age)s, renewed_at = renewed_at - %(age)s,"
            " lease_expires_at = lease_expires_at - %(age)s",
            {"age": timedelta(seconds=seconds)},
        )
