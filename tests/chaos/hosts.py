"""The hosts under attack: who lives in which place now, and what became of those who lived there before."""

import contextlib
import json
import os
import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from chaos.nemesis import LEASE_TTL_SECONDS, SLOTS, STOP_SECONDS, Action, Kind, Role
from runtime.hosts import REPOSITORY, Host, environment_of, until

SCRIPT = Path(__file__).parent / "host.py"
SHUTDOWN_SECONDS = 10
PATIENCE_SECONDS = STOP_SECONDS + SHUTDOWN_SECONDS + 15.0
"""For anything that a stopped process may hold up until it is continued."""

ENVIRONMENT = {
    "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
    "JOBS_MAX_GLOBAL_CONCURRENCY": str(SLOTS),
    "JOBS_POLL_INTERVAL_MS": "100",
    "JOBS_LEASE_TTL_SECONDS": str(LEASE_TTL_SECONDS),
    "JOBS_REAPER_INTERVAL_SECONDS": "1",
    "JOBS_REAPER_RETRY_DELAY_MS": "1000",
    "JOBS_SHUTDOWN_TIMEOUT_SECONDS": str(SHUTDOWN_SECONDS),
    "JOBS_TIMEOUT_GRACE_SECONDS": "1",
    "JOBS_DATABASE_TIMEOUT_SECONDS": "3",
}
CLEAN, TIME_RAN_OUT = 0, 6


class Tail:
    """The log of a host, read on where it ended last time: who was started where, and which workers became ready."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lock = threading.Lock()
        self.started: dict[tuple[str, int], int] = {}
        self.worker_ids: dict[int, str] = {}
        self.ready_at: dict[int, float] = {}
        """By slot: when its newest worker became ready, as the clock on the wall says."""

    def read(self) -> None:
        with self._lock, self._path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
            complete = data[: data.rfind(b"\n") + 1]
            self._offset += len(complete)
            for line in complete.splitlines():
                if b'"process.started"' in line or b'"worker.ready"' in line:
                    self._note(json.loads(line))

    def _note(self, said: dict[str, Any]) -> None:
        if said["event"] == "process.started":
            self.started[said["role"], said["slot"] or 0] = said["pid"]
        elif said["event"] == "worker.ready":
            slot = int(said["worker_id"].split(".")[-2])
            self.worker_ids[said["pid"]] = said["worker_id"]
            self.ready_at[slot] = datetime.fromisoformat(said["time"]).timestamp()


class Place:
    """Host number ``index``: always one living host, started again when it was killed or told to stop."""

    def __init__(self, index: int, url: str, directory: Path, mutant: str | None) -> None:
        self.index = index
        self._url = url
        self._directory = directory
        self._environment = ENVIRONMENT | ({"CHAOS_MUTANT": mutant} if mutant else {})
        self._timers: list[threading.Timer] = []
        self._replacing: threading.Thread | None = None
        self.complaints: list[str] = []
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.host = Host(
            self._url,
            self._directory,
            self._environment | {"JOBS_WORKER_ID": f"host-{self.index}-{self.starts}"},
            {"app": "chaos.app:catalog", "script": str(SCRIPT)},
        )
        self.tail = Tail(self.host.log_path)

    def pid_of(self, role: Role, slot: int) -> int:
        """Who lives there, as soon as somebody does. Raises AssertionError when nobody comes."""
        self.settle_down()
        if role is Role.SUPERVISOR:
            return self.host.pid

        def living() -> int | None:
            if self.host.process.poll() is not None:
                raise AssertionError(f"host-{self.index} ended by itself with {self.host.process.returncode}")
            self.tail.read()
            pid = self.tail.started.get((role, slot if role is Role.WORKER else 0))
            return pid if pid in self.host.children() else None

        return int(until(living, within=PATIENCE_SECONDS, what=f"a {role} of host-{self.index}"))

    def suffer(self, action: Action, pid: int) -> None:
        """The process gets the signal of the action; a supervisor that ends by it is replaced, after a TERM in its own
        time."""
        if action.kind is Kind.STOP:
            self._stop_for_a_while(pid)
            return
        number = signal.SIGKILL if action.kind is Kind.KILL else signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if action.role is Role.SUPERVISOR:
            self._replacing = threading.Thread(target=self._replace, args=(action.kind,))
            self._replacing.start()
            if action.kind is Kind.KILL:
                self.settle_down()

    def roll(self) -> None:
        """The host is told to stop, and another one is ready in its place."""
        self.settle_down()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.host.pid, signal.SIGTERM)
        self._replace(Kind.TERM)
        self.host.ready(SLOTS)

    def settle_down(self) -> None:
        """Returns when no replacement is under way."""
        thread, self._replacing = self._replacing, None
        if thread is not None:
            thread.join(2 * PATIENCE_SECONDS)

    def _replace(self, kind: Kind) -> None:
        try:
            status = self.host.wait(PATIENCE_SECONDS)
            if status not in self._allowed_ends(kind):
                self.complaints.append(f"host-{self.index} ended with {status} after {kind}")
        except AssertionError as error:
            self.complaints.append(str(error)[:200])
            self.host.end()
        self._expect_nobody_left()
        self.start()

    def _allowed_ends(self, kind: Kind) -> set[int]:
        """A stop that is asked for while jobs are longer than its patience may run out of time."""
        if kind is Kind.KILL:
            return {-signal.SIGKILL}
        if not self.host.events("supervisor.started"):
            return {-signal.SIGTERM}  # it was still importing, and nobody depended on it
        return {CLEAN, TIME_RAN_OUT}

    def _expect_nobody_left(self) -> None:
        try:
            self.host.wait_until_gone(PATIENCE_SECONDS)
        except AssertionError:
            self.complaints.append(f"host-{self.index} left the processes {self.host.living()}")

    def _stop_for_a_while(self, pid: int) -> None:
        mark = self.host.mark.encode()

        def resume() -> None:
            if mark in environment_of(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(STOP_SECONDS, resume)
        self._timers.append(timer)
        timer.start()

    def heal(self) -> None:
        """Returns when nobody is stopped any more."""
        for timer in self._timers:
            timer.join(PATIENCE_SECONDS)
        self.settle_down()

    def retire(self) -> None:
        """The host is told to stop, and has to end cleanly with everybody in it."""
        status = self.host.process.poll()
        if status is None:
            status = self.host.stop()
        if status != CLEAN:
            self.complaints.append(f"host-{self.index} ended with {status} when all was well")
        self._expect_nobody_left()

    def end(self) -> None:
        """Nobody is left, whatever happened."""
        for timer in self._timers:
            timer.cancel()
        self.settle_down()
        self.host.end()
