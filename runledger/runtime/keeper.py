"""The keeper: the process that holds a host's leases. It renews them for every live worker in one statement, settles
those of workers that died, promotes what is due, and wakes idle workers. It is the last to stop.

A heartbeat thread beside a handler starves behind the interpreter's lock; a process of its own does not.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence

from runledger.core.errors import LockNotAvailable, RunledgerError, UnavailableError
from runledger.core.results import Ended
from runledger.core.states import Outcome
from runledger.postgres.leases import held_leases, renew_leases
from runledger.postgres.promote import LARGEST_PROMOTION, promote_due_jobs
from runledger.postgres.recovery import Recovered, settle_dead_worker
from runledger.postgres.settle import settle_jobs
from runledger.runtime.config import JobsConfig
from runledger.runtime.interrupts import CANCEL_SIGNAL
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.obituary import Obituary
from runledger.runtime.prefetch import STALE_SECONDS
from runledger.runtime.pulse import Pulse
from runledger.runtime.registry import Registry
from runledger.runtime.shallows import SHARE_OF_TIME, SLOW_LOOK_SECONDS
from runledger.runtime.slots import Slot, SlotState
from runledger.runtime.tally import Tally
from runledger.runtime.wakeups import WakeUps

PROMOTE_EVERY_SECONDS = 0.5
FRESH_SECONDS = 2.0
"""Where it takes long to find out whether any job is ready, only those that were enqueued since are looked at in
between: dead rows that cannot be removed are why."""

CHECK_EVERY_SECONDS = 0.5
"""How often running attempts are compared with their leases: a cancel reaches a handler within twice that."""

LOCKED_AGAIN_SECONDS = 1.0
"""Pause before the leases of a dead worker are tried again, one of which somebody has locked."""

TAKE_OVER_SECONDS = 2.0


class Keeper:
    """One tick does whatever is due; every duty has its own time."""

    def __init__(
        self,
        link: DatabaseLink,
        slots: Sequence[Slot],
        obituaries: int,
        wake_pipes: Sequence[int],
        registry: Registry,
        *,
        host_id: str,
        config: JobsConfig,
        tally: Tally | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._link = link
        self._slots = slots
        self._obituaries = obituaries
        self._pulse = Pulse() if pulse is None else pulse
        self._wake_ups = WakeUps(link, slots, wake_pipes, host_id=host_id)
        self._registry = registry
        self._host_id = host_id
        self._config = config
        self._tally = tally
        self._unread = b""
        self._dead: list[Obituary] = []
        self._dead_again_at = 0.0
        self._renew_at = self._promote_at = self._check_at = self._look_at_all_at = 0.0
        self._given_back: set[int] = set()
        self._unclaimed: set[int] = set()
        """Leases of live workers that no slot knows: the answer to their claim was lost, or the database refused their
        outcome. Seen twice, they are left to lapse, for nobody would ever settle them."""
        self.is_stopping = False

    def tick(self) -> float | None:
        """Every duty that is due is done. Answers with the seconds until the next one; None when told to stop and
        nothing is left to settle."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew()  # before all else: whatever the rest runs into, the living keep their leases
            self._renew_at = now + self._config.lease_ttl_seconds / 3  # only now: one that failed is tried again
        self._settle_the_dead()
        if self.is_stopping and not self._dead:
            self._wake_ups.withdraw()
            self._registry.withdraw()
            return None
        self._wake_ups.pass_on()  # before what may wait for the database
        if now >= self._promote_at:
            self._promote(now)
        if now >= self._check_at:
            self._check_at = now + CHECK_EVERY_SECONDS
            self._check_running()
        if not self.is_stopping:
            self._wake_ups.look_when_due(now)
        self._wake_ups.pass_on()  # those that came with the answers to the statements above
        self._registry.tell_when_due([self.worker_id(slot) for slot in self._slots])
        return max(
            0.0, min(self._renew_at, self._promote_at, self._check_at, self._wake_ups.look_at) - time.monotonic()
        )

    def worker_id(self, slot: Slot) -> str:
        return worker_id(self._host_id, slot.index, slot.incarnation)

    def _settle_the_dead(self) -> None:
        self._read_obituaries()
        while self._dead and time.monotonic() >= self._dead_again_at:
            dead = self._dead[0]
            try:
                recovered = self._settle(dead)
            except LockNotAvailable as error:  # the living must not wait for whoever holds that lock
                self._dead_again_at = time.monotonic() + LOCKED_AGAIN_SECONDS
                log(logging.WARNING, "worker.settle_postponed", worker_id=dead.worker_id, code=error.code)
                return
            self._dead.pop(0)
            self._pulse.confirm()
            if self._tally is not None:
                self._tally.count_recovered(recovered)
            log(
                logging.WARNING,
                "worker.settled",
                worker_id=dead.worker_id,
                cause=dead.cause,
                exit_signal=dead.exit_signal,
                retried=len(recovered.retried),
                dead_lettered=len(recovered.dead_lettered),
                released=len(recovered.released),
            )
            if recovered.retried or recovered.released:
                self._promote_at = 0.0
                self._wake_ups.wake_idle()

    def _settle(self, dead: Obituary) -> Recovered:
        """A worker whose leases the database refuses to settle must not keep the living from being renewed: its leases
        run out, and the reaper decides."""
        try:
            with self._link.transaction() as ledger:
                return settle_dead_worker(ledger, dead.death())
        except UnavailableError:
            raise
        except RunledgerError as error:
            log(
                logging.ERROR,
                "worker.not_settled",
                worker_id=dead.worker_id,
                code=error.code,
                detail=error.internal_message,
            )
            return Recovered()

    def _read_obituaries(self) -> None:
        try:
            while data := os.read(self._obituaries, 65_536):
                self._unread += data
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            try:
                self._dead.append(Obituary.from_line(line))
            except (ValueError, TypeError):  # no supervisor of this release writes such a line
                log(logging.WARNING, "obituary.unreadable", size=len(line))

    def take_over(self) -> None:
        """The supervisor is gone. Its workers are ended (the kernel has most likely done so), and their leases go back
        at once, attempts refunded: no other host has to wait for them to lapse."""
        for slot in self._slots:
            pid = slot.pid
            if not pid:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            if _is_gone(pid, TAKE_OVER_SECONDS):
                begun, _ = slot.tokens()
                obituary = Obituary(
                    self.worker_id(slot), "shutdown", 0, None, slot.running_token, begun, None, None, None
                )
                self._dead.append(obituary)
        self._dead_again_at = 0.0
        self._settle_the_dead()
        self._registry.withdraw()

    def _living(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.pid and slot.state > SlotState.BOOTING]

    def _renew(self) -> None:
        workers = [self.worker_id(slot) for slot in self._living() if not _is_stopped(slot.pid)]
        if not any(slot.tokens() != ([], []) for slot in self._slots):
            return
        now = time.monotonic_ns()
        overdue = [slot.running_token for slot in self._slots if 0 < slot.hard_deadline < now]
        known = {token for slot in self._slots for tokens in slot.tokens() for token in tokens}
        with self._link.autocommit() as ledger:
            renewed = renew_leases(
                ledger,
                worker_ids=workers,
                lease_ttl_seconds=self._config.lease_ttl_seconds,
                overdue_tokens=[*overdue, *(self._unclaimed - known)],
            )
            self._unclaimed = set(held_leases(ledger, list((self._unclaimed | set(renewed.values())) - known)))

    def _check_running(self) -> None:
        """A running attempt whose lease is gone is interrupted, and has the grace of a timeout to end; jobs stuck
        behind a long one are given back."""
        now = time.monotonic_ns()
        long = [slot for slot in self._living() if slot.running_token and now - slot.started_at > 250_000_000]
        if not long:
            return
        self._give_back_stuck(long, now)
        running = {slot.running_token: slot for slot in long if slot.running_token}
        with self._link.autocommit() as ledger:
            held = held_leases(ledger, list(running))
        for token in running.keys() - held:
            slot = running[token]
            if slot.running_token == token and slot.interrupted_token != token:
                grace = self._config.timeout_grace_seconds * 1_000_000_000
                slot.interrupt(token, time.monotonic_ns() + grace)
                _signal(slot.pid)
                log(logging.INFO, "job.interrupted", worker_id=self.worker_id(slot), lease_token=token)

    def _give_back_stuck(self, long: Sequence[Slot], now: int) -> None:
        stuck = [slot for slot in long if now - slot.claimed_at > 2 * STALE_SECONDS * 1e9]
        tokens = [token for slot in stuck for token in slot.tokens()[1] if token not in self._given_back]
        self._given_back.intersection_update(token for slot in stuck for token in slot.tokens()[1])
        if not tokens:
            return
        with self._link.transaction() as ledger:
            ends = [
                Ended(
                    job_id,
                    token,
                    Outcome.RELEASED,
                    status_reason="stuck behind a long job",
                    is_refunded=True,
                    is_unstarted=True,
                )
                for token, job_id in held_leases(ledger, tokens).items()
            ]
            settle_jobs(ledger, ends)
        self._given_back.update(tokens)
        self._wake_ups.wake_idle()

    def _promote(self, now: float) -> None:
        looks_at_all = now >= self._look_at_all_at
        began_at = time.monotonic()
        with self._link.autocommit() as ledger:
            promotion = promote_due_jobs(ledger, enqueued_within=None if looks_at_all else FRESH_SECONDS)
        seconds = time.monotonic() - began_at
        if looks_at_all and seconds > SLOW_LOOK_SECONDS:
            self._look_at_all_at = now + seconds / SHARE_OF_TIME
        if promotion.has_ready:
            self._wake_ups.wake_idle()
        wait = min(PROMOTE_EVERY_SECONDS, self._config.poll_interval_seconds)
        if promotion.next_due_seconds is not None:
            wait = min(wait, promotion.next_due_seconds + 0.001)
        self._promote_at = now + (0.0 if promotion.promoted >= LARGEST_PROMOTION else wait)


def worker_id(host_id: str, slot_index: int, incarnation: int) -> str:
    """Unique for each process that ever lived: names are not reused, so an old lease is never taken for a new one."""
    return f"{host_id}.{slot_index}.{incarnation}"


def _is_gone(pid: int, seconds: float) -> bool:
    """Whether the process has ended, at the latest after ``seconds``; one that nobody has reaped yet has ended too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _process_state(pid) in (b"", b"Z"):
            return True
        time.sleep(0.01)
    return False


def _process_state(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b""


def _is_stopped(pid: int) -> bool:
    """Whether the process is stopped (SIGSTOP, a debugger): nobody vouches for its leases."""
    return _process_state(pid) in (b"T", b"t", b"Z")


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself meanwhile
        os.kill(pid, CANCEL_SIGNAL)
