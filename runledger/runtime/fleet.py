"""The fleet: the children of one supervisor. Start what is missing, bury the dead and tell the keeper, kill what is
past its deadline, ask to leave what has served enough. Every verb may be repeated at any time.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from runledger.database.settings import count_hosts
from runledger.runtime.children import EXIT_CONFIGURATION, Child, resident_mb, signal_group, spawn
from runledger.runtime.host import ATTENDING, CANARY, HEALTH, KEEPER, REAPER, SCHEDULER, WORKER, Host
from runledger.runtime.keeper import worker_id
from runledger.runtime.logs import log
from runledger.runtime.obituary import ObituaryPost, write_obituary
from runledger.runtime.pulse import STILL_SECONDS, Vigil
from runledger.runtime.reasons import Reasons
from runledger.runtime.replacing import READY, Replacement
from runledger.runtime.roles import (
    live_as_canary,
    live_as_health,
    live_as_keeper,
    live_as_reaper,
    live_as_scheduler,
    live_as_worker,
)
from runledger.runtime.signals import drain
from runledger.runtime.slots import Slot, SlotState
from runledger.runtime.starts import Starts

WEDGED_SECONDS = 30.0
"""How long a worker's loop may stand still beyond its longest pause and its longest wait for the database."""

OLD_CODE_HINT = "the supervisor imported the app, and fresh processes run that code; for new code start the host anew"
_UNWANTED = "unwanted"


class Fleet:
    """Children by pid. ``misconfiguration`` and ``is_crash_looping`` say why no further start will help."""

    def __init__(self, host: Host, *, with_reaper: bool, with_scheduler: bool) -> None:
        self._host = host
        self._config = host.config
        self._post = ObituaryPost(host.shared.obituaries.read, host.shared.obituaries.write, host.shared.pulses[KEEPER])
        self._vigil = Vigil()
        self._longest_wait_seconds = self._config.database_timeout_seconds * count_hosts(host.database_url)
        self._with_reaper = with_reaper
        self._with_scheduler = with_scheduler
        self._children: dict[int, Child] = {}
        self._incarnation = 0
        self._starts = Starts()
        self._drained: set[int] = set()
        self._reasons = Reasons()
        self._replacement = Replacement(host.slots)
        self._is_quiet = False
        self.misconfiguration: str | None = None

    def __len__(self) -> int:
        return len(self._children)

    @property
    def is_drained(self) -> bool:
        """Whether every worker has left because there was nothing more to do."""
        return len(self._drained) == len(self._host.slots)

    @property
    def is_crash_looping(self) -> bool:
        """Whether children of a role die as fast as they are started."""
        return self._starts.is_crash_looping

    @property
    def is_ready(self) -> bool:
        """Whether every slot has a worker that has imported the app."""
        return all(slot.state in READY for slot in self._host.slots)

    @property
    def is_prepared(self) -> bool:
        """Whether every slot has a worker that the database has answered."""
        return self.is_ready and all(slot.is_prepared for slot in self._host.slots)

    @property
    def has_told_everything(self) -> bool:
        """Whether the keeper's pipe has taken every obituary."""
        return self._post.has_told_everything

    def of_role(self, *roles: str) -> list[Child]:
        return [child for child in self._children.values() if child.role in roles]

    def pause_seconds(self, longest: float) -> float:
        """Until the next deadline of a running job or the next allowed start, at most ``longest``."""
        now = time.monotonic_ns()
        deadlines = [(slot.hard_deadline - now) / 1e9 for slot in self._host.slots if slot.hard_deadline]
        return max(0.005, min([longest, *deadlines, *self._starts.pauses()]))

    def bury_the_dead(self) -> None:
        """Every child that has ended is reaped, and the keeper learns which leases it left behind."""
        for pid in list(self._children):
            reaped, wait_status, usage = os.wait4(pid, os.WNOHANG)
            if reaped:
                self._bury(self._children.pop(pid), wait_status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
        self._reap_adopted()
        self._post.send()

    def _reap_adopted(self) -> None:
        """As the first process of a container we inherit orphans; they are reaped by pid and mean nothing to us."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in self._children:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    def _bury(self, child: Child, wait_status: int, cpu_seconds: float, max_rss_kb: int) -> None:
        status = os.waitstatus_to_exitcode(wait_status)
        if child.role == CANARY:
            self._judge(child, status)
            return
        is_clean = status == 0
        has_run_a_job = False
        if child.slot_index is not None:
            slot = self._host.slots[child.slot_index]
            has_run_a_job = bool(slot.running_token or slot.jobs_done)
            is_clean = is_clean and slot.state is SlotState.LEAVING  # a handler's own exit(0) is no success
            if is_clean and self._host.is_draining and not slot.is_asked_to_leave:
                self._drained.add(slot.index)
            if not is_clean:
                self._report(child, slot, wait_status, cpu_seconds, max_rss_kb)
            slot.clear()
        if child.role == KEEPER:
            self._post.start_again()
        if not is_clean:
            log(logging.WARNING, "process.died", role=child.role, pid=child.pid, status=status, cause=child.kill_cause)
        # what ends a process in a job is the job's doing, and says nothing about the set-up or the next start
        if status == EXIT_CONFIGURATION and not has_run_a_job:
            self._note_misfit(child)
        else:
            lived_seconds = time.monotonic() - child.spawned_at
            self._starts.note_death(child.role, lived_seconds, is_harmless=is_clean or has_run_a_job)

    def _note_misfit(self, child: Child) -> None:
        """The set-up is wrong. A worker that meanwhile cannot start is tried again as long as another one of the host
        is ready; everything else ends the host."""
        reason = self._reasons.take() or f"the {child.role} ended with {EXIT_CONFIGURATION}"
        if child.role == WORKER and any(slot.state in READY and slot.is_prepared for slot in self._host.slots):
            self._replacement.stop()
            for slot in self._host.slots:
                slot.ask_to_leave(False)
            pause = self._starts.note_misfit(WORKER)
            log(logging.ERROR, "worker.not_replaced", reason=reason, retry_in=f"{pause:.0f}s")
        else:
            self.misconfiguration = self.misconfiguration or reason

    def _report(self, child: Child, slot: Slot, wait_status: int, cpu_seconds: float, max_rss_kb: int) -> None:
        obituary = write_obituary(
            slot,
            worker_id(self._host.host_id, slot.index, slot.incarnation),
            cause=child.kill_cause or "crash",
            wait_status=wait_status,
            cpu_seconds=cpu_seconds,
            max_rss_kb=max_rss_kb,
        )
        self._post.add(obituary)
        signal_group(child.pid, signal.SIGKILL)

    def kill_the_overdue(self) -> None:
        """SIGKILL to the process group of every worker that is past its job's timeout and grace, or past the grace of
        an attempt that counts no more, that did not become ready in time, whose loop stands still, or that outgrew its
        memory; and to every other child that gives no sign of life."""
        now = time.monotonic_ns()
        for child in self.of_role(WORKER):
            cause = self._reason_to_kill(child, now)
            if cause is not None and child.kill_cause is None:
                self.kill(child, cause)
        for child in self.of_role(CANARY):
            if time.monotonic() - child.spawned_at > self._config.boot_timeout_seconds and child.kill_cause is None:
                self.kill(child, "boot")
        self._kill_the_still()

    def _kill_the_still(self) -> None:
        beats = {child.pid: self._host.shared.pulses[child.role].beats for child in self.of_role(*ATTENDING)}
        for pid, still_seconds in self._vigil.look(beats, time.monotonic()):
            child = self._children[pid]
            if still_seconds > STILL_SECONDS + self._longest_wait_seconds and child.kill_cause is None:
                self.kill(child, "wedged")

    def kill(self, child: Child, cause: str) -> None:
        """The child and what it started end now; its leases are settled by the cause."""
        child.kill_cause = cause
        log(logging.WARNING, "process.killed", role=child.role, pid=child.pid, cause=cause)
        signal_group(child.pid, signal.SIGKILL)

    def _reason_to_kill(self, child: Child, now: int) -> str | None:
        slot = self._slot_of(child)
        if 0 < slot.hard_deadline < now:  # each is read once: its worker sets it to 0 at any moment
            return "timeout"
        if 0 < slot.interrupt_deadline < now:
            return "canceled"
        if slot.state is SlotState.BOOTING:
            is_late = now - slot.spawned_at > self._config.boot_timeout_seconds * 1_000_000_000
            return "boot" if is_late else None
        if self._is_wedged(slot, now):
            return "wedged"
        ceiling = self._config.max_memory_hard_mb
        return "memory" if ceiling and resident_mb(child.pid) > ceiling else None

    def _is_wedged(self, slot: Slot, now: int) -> bool:
        """Whether the worker's loop has stood still for longer than any pause or round trip of its own can last."""
        if slot.running_token:
            return False
        allowed = WEDGED_SECONDS + self._longest_wait_seconds + self._config.poll_interval_seconds * 16
        return now - slot.turn_at > allowed * 1_000_000_000

    def replace_workers(self) -> None:
        """A canary finds out whether a fresh worker could do its work; if so, every worker of that moment is replaced,
        each between two jobs. Otherwise all stay."""
        self._replacement.stop()
        self.end_canary()
        self._start(CANARY, lambda parent: live_as_canary(self._host))

    def end_canary(self) -> None:
        """Nobody wants to know any more."""
        for child in self.of_role(CANARY):
            child.kill_cause = _UNWANTED
            signal_group(child.pid, signal.SIGKILL)

    def _judge(self, canary: Child, status: int) -> None:
        signal_group(canary.pid, signal.SIGKILL)  # what the import of the app may have started
        told = self._reasons.take()
        if canary.kill_cause == _UNWANTED:
            return
        if status != 0:
            how = f"killed, cause={canary.kill_cause}" if canary.kill_cause else f"status {status}"
            reason = told or f"the import of the app ended its process ({how})"
            log(logging.ERROR, "workers.not_replaced", reason=reason)
            return
        self._starts.forgive(WORKER)
        level, hint = (logging.WARNING, OLD_CODE_HINT) if self._host.is_preloaded else (logging.INFO, None)
        log(level, "workers.replacing", count=self._replacement.begin(), hint=hint)

    def recycle(self) -> None:
        """Workers that served enough jobs or grew too large are asked to leave, and those whose turn it is to be
        replaced. While a fresh worker cannot start, those that are there stay."""
        if self._starts.misfits:
            if not self.is_ready:
                return
            self._starts.forgive(WORKER)
        for slot in self._replacement.next_to_leave(time.monotonic_ns(), self._drained):
            self._wake(slot)
        for child in self.of_role(WORKER):
            if self._has_served_enough(child):
                self._ask_to_leave(child)

    def _has_served_enough(self, child: Child) -> bool:
        most_jobs, most_mb = self._config.max_jobs_per_process, self._config.max_memory_mb
        if most_jobs and self._slot_of(child).jobs_done >= most_jobs:
            return True
        return bool(most_mb) and resident_mb(child.pid) > most_mb

    def _ask_to_leave(self, child: Child) -> None:
        slot = self._slot_of(child)
        if not slot.is_asked_to_leave:
            slot.ask_to_leave()
            self._wake(slot)

    def set_quiet(self, is_quiet: bool, /) -> None:
        """Workers claim nothing, or claim again; those that start later do the same."""
        self._is_quiet = is_quiet
        for slot in self._host.slots:
            slot.set_quiet(is_quiet)
            self._wake(slot)

    def _wake(self, slot: Slot) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._host.shared.wakes[slot.index].write, b"w")

    def start_what_is_missing(self) -> None:
        """Keeper, reaper, scheduler and a worker in every slot run, unless a start is held back after fast deaths."""
        self.start_a_missing_keeper()
        if self._with_reaper and not self.of_role(REAPER):
            self._start(REAPER, lambda parent: live_as_reaper(self._host, parent))
        if self._with_scheduler and not self.of_role(SCHEDULER):
            self._start(SCHEDULER, lambda parent: live_as_scheduler(self._host, parent))
        if self._host.health_address is not None and not self.of_role(HEALTH):
            self._start(HEALTH, lambda parent: live_as_health(self._host, parent))
        taken = {child.slot_index for child in self._children.values()}
        for slot in self._host.slots:
            if slot.index not in taken and slot.index not in self._drained and not self._starts.is_held_back(WORKER):
                self._start_worker(slot)

    def start_a_missing_keeper(self) -> None:
        """The keeper runs, unless its start is held back."""
        if not self.of_role(KEEPER):
            self._start(KEEPER, lambda parent: live_as_keeper(self._host, parent))

    def _start_worker(self, slot: Slot) -> None:
        self._incarnation += 1
        slot.reset(self._incarnation, time.monotonic_ns())
        slot.set_quiet(self._is_quiet)
        drain(self._host.shared.wakes[slot.index].read)
        self._start(WORKER, lambda parent: live_as_worker(self._host, slot, parent), slot)

    def _start(self, role: str, run: Callable[[int], int], slot: Slot | None = None) -> None:
        if self._starts.is_held_back(role):
            return
        death_signal = signal.SIGTERM if role == KEEPER else signal.SIGKILL
        child = spawn(
            role, self._reasons.telling(run), slot_index=None if slot is None else slot.index, death_signal=death_signal
        )
        self._children[child.pid] = child
        if slot is not None:
            slot.set_pid(child.pid)
        log(logging.INFO, "process.started", role=role, pid=child.pid, slot=child.slot_index)

    def signal(self, number: signal.Signals, *roles: str, spread_seconds: float = 0.0) -> None:
        """Every child of these roles gets the signal; with a spread they get it up to 10 ms apart."""
        children = self.of_role(*roles)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)
            time.sleep(min(0.01, spread_seconds / len(children)))

    def end(self) -> None:
        """No child is left, whatever it was doing."""
        for pid in list(self._children):
            signal_group(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            del self._children[pid]

    def _slot_of(self, child: Child) -> Slot:
        assert child.slot_index is not None, "only workers have a slot"
        return self._host.slots[child.slot_index]
