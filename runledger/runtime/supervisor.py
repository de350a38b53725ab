"""The supervisor: starts, watches, replaces and stops the processes of a host. It is single-threaded, imports no code
of the application, and has no connection to the database, so a hung server can never keep it from killing a child.

A turn reconciles what is with what should be, and may be repeated at any time: take signals, bury the dead and tell
the keeper, kill what is past its deadline, start what is missing.
"""

import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from enum import IntEnum

from runledger.postgres.connection import default_schema
from runledger.postgres.statements import check_schema_name
from runledger.runtime.children import EXIT_CONFIGURATION, EXIT_UNEXPECTED, Child, spawn
from runledger.runtime.config import JobsConfig
from runledger.runtime.keeper import worker_id
from runledger.runtime.logs import configure_logs, log
from runledger.runtime.obituary import write_obituary
from runledger.runtime.roles import Host, live_as_keeper, live_as_reaper, live_as_worker
from runledger.runtime.signals import SignalQueue, drain, wait_for
from runledger.runtime.slots import SlotState, SlotTable

EXIT_TIME_RAN_OUT = 6
TURN_SECONDS = 1.0
"""The longest pause between two turns; signals and deadlines shorten it."""

FAST_DEATH_SECONDS = 1.0
MOST_FAST_DEATHS = 10
"""Children of one role that die within a second of their start, in a row, before the supervisor gives up."""

KEEPER_PATIENCE_SECONDS = 10.0
"""How long the keeper may take to settle the dead after the last worker has gone."""


class Phase(IntEnum):
    RUNNING = 0
    STOPPING = 1
    KEEPER_STOPPING = 2


class Supervisor:
    """``Supervisor(app=..., database_url=...).run_until_shutdown()`` runs a host and answers with its exit status:
    0 after a clean stop or an empty queue, 6 when running jobs had to be killed, 78 when the set-up is wrong."""

    def __init__(
        self,
        *,
        app: str,
        database_url: str,
        schema: str | None = None,
        config: JobsConfig | None = None,
        queues: Sequence[str] | None = None,
        is_draining: bool = False,
        with_reaper: bool = True,
        with_sync: bool = True,
        log_level: str = "info",
        log_format: str = "auto",
    ) -> None:
        self._config = JobsConfig.from_env() if config is None else config
        self._with_reaper = with_reaper
        self._is_draining = is_draining
        configure_logs(log_level, log_format)
        table = SlotTable(self._config.max_global_concurrency)
        wakes = [_pipe() for _ in table.slots]
        obituaries_read, self._obituaries_write = _pipe()
        self._host = Host(
            host_id=f"{self._config.worker_id}.{secrets.token_hex(4)}",
            app=app,
            database_url=database_url,
            schema=default_schema() if schema is None else check_schema_name(schema),
            config=self._config,
            queues=None if queues is None else tuple(queues),
            is_draining=is_draining,
            with_sync=with_sync,
            slots=table.slots,
            obituaries_read=obituaries_read,
            wake_reads=[read for read, _ in wakes],
            wake_writes=[write for _, write in wakes],
        )
        self._children: dict[int, Child] = {}
        self._incarnation = 0
        self._phase = Phase.RUNNING
        self._deadline = float("inf")
        self._stop_requests = 0
        self._status = 0
        self._unsent = b""
        self._fast_deaths: dict[str, int] = {}
        self._spawn_at: dict[str, float] = {}
        self._drained: set[int] = set()
        self._to_replace: list[int] = []

    # -- the loop -------------------------------------------------------------------------------------------

    def run_until_shutdown(self) -> int:
        """Returns when every child has ended; answers with the exit status. Call it in the main thread."""
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)
        before = {number: signal.getsignal(number) for number in watched}
        self._signals = SignalQueue(watched)
        log(
            logging.INFO,
            "supervisor.started",
            host_id=self._host.host_id,
            processes=self._config.max_global_concurrency,
            recovery_bound=f"{self._config.lease_ttl_seconds + self._config.reaper_interval_seconds}s",
        )
        try:
            while self.tick():
                wait_for([self._signals.fileno()], self._pause_seconds())
        finally:
            self._kill_everything()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
        log(logging.INFO, "supervisor.stopped", status=self._status)
        return self._status

    def tick(self) -> bool:
        """One turn; answers whether there is anything left to watch."""
        for number in self._signals.take():
            self._take_signal(number)
        self._bury_the_dead()
        self._send_obituaries()
        self._kill_the_overdue()
        self._recycle()
        if self._phase is Phase.RUNNING:
            self._start_what_is_missing()
        else:
            self._stop_what_remains()
        return bool(self._children) or (self._phase is Phase.RUNNING)

    def _pause_seconds(self) -> float:
        """Until the next deadline, at most a second."""
        now = time.monotonic_ns()
        deadlines = [slot.hard_deadline for slot in self._host.slots if slot.hard_deadline]
        nearest = (min(deadlines) - now) / 1e9 if deadlines else TURN_SECONDS
        pauses = [at - time.monotonic() for at in self._spawn_at.values()]
        return max(0.005, min(TURN_SECONDS, nearest, *(pauses or [TURN_SECONDS])))

    # -- signals --------------------------------------------------------------------------------------------

    def _take_signal(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop_requests += 1
            if self._stop_requests == 1:
                self._stop("signal", number.name)
            else:
                self._deadline = min(self._deadline, time.monotonic())
        elif number == signal.SIGHUP and self._phase is Phase.RUNNING:
            self._to_replace = [child.pid for child in self._children.values() if child.slot_index is not None]
            log(logging.INFO, "workers.replacing", count=len(self._to_replace))
        elif number == signal.SIGUSR1:
            self._log_status()

    def _stop(self, cause: str, detail: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        self._phase = Phase.STOPPING
        self._deadline = time.monotonic() + self._config.shutdown_timeout_seconds
        log(logging.INFO, "supervisor.stopping", cause=cause, detail=detail)
        for child in self._children.values():
            if child.role != "keeper":
                _signal_process(child.pid, signal.SIGTERM)

    def _log_status(self) -> None:
        for slot in self._host.slots:
            log(
                logging.INFO,
                "slot.status",
                slot=slot.index,
                pid=slot.pid,
                state=slot.state.name,
                jobs_done=slot.jobs_done,
                running_token=slot.running_token or None,
            )

    # -- the dead -------------------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        for pid in list(self._children):
            reaped, wait_status, usage = os.wait4(pid, os.WNOHANG)
            if reaped:
                child = self._children.pop(pid)
                self._bury(child, wait_status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
        self._reap_adopted()

    def _reap_adopted(self) -> None:
        """As the first process of a container we inherit orphans; they are reaped by name and mean nothing to us."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self._children:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    def _bury(self, child: Child, wait_status: int, cpu_seconds: float, max_rss_kb: int) -> None:
        status = os.waitstatus_to_exitcode(wait_status)
        is_clean = status == 0
        if child.slot_index is not None:
            slot = self._host.slots[child.slot_index]
            is_clean = is_clean and slot.state is SlotState.LEAVING  # a handler's own exit(0) is no success
            if not is_clean:
                self._report_worker(child, wait_status, cpu_seconds, max_rss_kb)
            slot.clear()
        if status == EXIT_CONFIGURATION:
            self._status = EXIT_CONFIGURATION
            self._stop("configuration", child.role)
        if is_clean and child.slot_index is not None and self._is_draining:
            self._drained.add(child.slot_index)
        if not is_clean or (child.slot_index is None and self._phase is Phase.RUNNING):
            log(logging.WARNING, "process.died", role=child.role, pid=child.pid, status=status, cause=child.kill_cause)
        self._note_death(child, is_clean)

    def _report_worker(self, child: Child, wait_status: int, cpu_seconds: float, max_rss_kb: int) -> None:
        assert child.slot_index is not None
        slot = self._host.slots[child.slot_index]
        cause = child.kill_cause or "crash"
        obituary = write_obituary(
            slot,
            worker_id(self._host.host_id, slot.index, slot.incarnation),
            cause=cause,
            wait_status=wait_status,
            cpu_seconds=cpu_seconds,
            max_rss_kb=max_rss_kb,
        )
        self._unsent += obituary.to_line()
        _signal_group(child.pid)

    def _note_death(self, child: Child, is_clean: bool) -> None:
        if is_clean or time.monotonic() - child.spawned_at > FAST_DEATH_SECONDS:
            self._fast_deaths[child.role] = 0
            return
        deaths = self._fast_deaths[child.role] = self._fast_deaths.get(child.role, 0) + 1
        self._spawn_at[child.role] = time.monotonic() + min(10.0, 0.1 * 2**deaths)
        if deaths >= MOST_FAST_DEATHS and self._phase is Phase.RUNNING:
            log(logging.ERROR, "supervisor.crash_loop", role=child.role, deaths=deaths)
            self._status = EXIT_UNEXPECTED
            self._stop("crash loop", child.role)

    def _send_obituaries(self) -> None:
        """The pipe may be full while the keeper is away; the rest waits here. Nothing in this process ever blocks."""
        while self._unsent:
            try:
                self._unsent = self._unsent[os.write(self._obituaries_write, self._unsent[:4_096]) :]
            except BlockingIOError:
                return

    # -- the overdue ----------------------------------------------------------------------------------------

    def _kill_the_overdue(self) -> None:
        now = time.monotonic_ns()
        for child in self._children.values():
            if child.slot_index is None or child.kill_cause is not None:
                continue
            slot = self._host.slots[child.slot_index]
            boot_limit = self._config.boot_timeout_seconds * 1_000_000_000
            if slot.hard_deadline and now > slot.hard_deadline:
                self._kill(child, "timeout")
            elif slot.state is SlotState.BOOTING and now - slot.spawned_at > boot_limit:
                self._kill(child, "boot")

    def _kill(self, child: Child, cause: str) -> None:
        child.kill_cause = cause
        log(logging.WARNING, "process.killed", role=child.role, pid=child.pid, cause=cause)
        _signal_group(child.pid)

    def _recycle(self) -> None:
        """Workers that served enough, grew too large, or are to be replaced leave between two jobs, one at a time
        for a rolling replacement."""
        workers = [child for child in self._children.values() if child.slot_index is not None]
        for child in workers:
            slot = self._host.slots[child.slot_index or 0]
            if not slot.is_asked_to_leave and self._has_served_enough(child):
                slot.ask_to_leave()
                self._wake(child)
        self._to_replace = [pid for pid in self._to_replace if pid in self._children]
        is_complete = len(workers) == len(self._host.slots)
        is_ready = all(slot.state in (SlotState.IDLE, SlotState.BUSY) for slot in self._host.slots)
        if self._to_replace and is_complete and is_ready:
            child = self._children[self._to_replace[0]]
            slot = self._host.slots[child.slot_index or 0]
            if not slot.is_asked_to_leave:
                slot.ask_to_leave()
                self._wake(child)

    def _has_served_enough(self, child: Child) -> bool:
        slot = self._host.slots[child.slot_index or 0]
        most_jobs, most_mb = self._config.max_jobs_per_process, self._config.max_memory_mb
        if most_jobs and slot.jobs_done >= most_jobs:
            return True
        return bool(most_mb) and resident_mb(child.pid) > most_mb

    def _wake(self, child: Child) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._host.wake_writes[child.slot_index or 0], b"w")

    # -- the missing ----------------------------------------------------------------------------------------

    def _start_what_is_missing(self) -> None:
        roles = {child.role for child in self._children.values()}
        if "keeper" not in roles:
            self._start("keeper", lambda parent: live_as_keeper(self._host, parent))
        if self._with_reaper and "reaper" not in roles:
            self._start("reaper", lambda parent: live_as_reaper(self._host, parent))
        taken = {child.slot_index for child in self._children.values()}
        for slot in self._host.slots:
            if slot.index not in taken and slot.index not in self._drained:
                self._start_worker(slot.index)
        if self._is_draining and len(self._drained) == len(self._host.slots):
            self._stop("drained", "the queue is empty")

    def _start_worker(self, index: int) -> None:
        slot = self._host.slots[index]
        if self._is_held_back("worker"):
            return
        self._incarnation += 1
        slot.reset(self._incarnation, time.monotonic_ns())
        drain(self._host.wake_reads[index])
        self._start("worker", lambda parent: live_as_worker(self._host, slot, parent), index)

    def _start(self, role: str, run: Callable[[int], int], slot_index: int | None = None) -> None:
        if self._is_held_back(role):
            return
        child = spawn(role, run, slot_index=slot_index)
        self._children[child.pid] = child
        if slot_index is not None:
            self._host.slots[slot_index].set_pid(child.pid)

    def _is_held_back(self, role: str) -> bool:
        if time.monotonic() < self._spawn_at.get(role, 0.0):
            return True
        self._spawn_at.pop(role, None)
        return False

    # -- the end --------------------------------------------------------------------------------------------

    def _stop_what_remains(self) -> None:
        others = [child for child in self._children.values() if child.role != "keeper"]
        keepers = [child for child in self._children.values() if child.role == "keeper"]
        now = time.monotonic()
        if others and now >= self._deadline:
            for child in others:
                if child.kill_cause is None:
                    self._status = self._status or EXIT_TIME_RAN_OUT
                    self._kill(child, "shutdown")
        elif not others and self._phase is Phase.STOPPING:
            self._phase = Phase.KEEPER_STOPPING
            self._deadline = now + KEEPER_PATIENCE_SECONDS
        if self._phase is Phase.KEEPER_STOPPING and not self._unsent:
            for child in keepers:
                if now >= self._deadline and child.kill_cause is None:
                    self._kill(child, "shutdown")
                elif child.kill_cause is None:
                    _signal_process(child.pid, signal.SIGTERM)

    def _kill_everything(self) -> None:
        for child in self._children.values():
            _signal_group(child.pid)
        for pid in list(self._children):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            del self._children[pid]


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1_048_576
    except (OSError, IndexError):
        return 0.0


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


def _signal_process(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int) -> None:
    """SIGKILL to the whole process group, so that what a handler started does not outlive its worker."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
