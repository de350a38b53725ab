"""The supervisor: starts, watches, replaces and stops the processes of a host. It is single-threaded, imports no code
of the application, and has no connection to the database, so a hung server can never keep it from killing a child.

A turn reconciles what is with what should be: take signals, bury the dead, kill what is overdue, start what is missing.
"""

import faulthandler
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from enum import IntEnum

from runledger.postgres.connection import default_schema
from runledger.postgres.statements import check_schema_name
from runledger.runtime.children import EXIT_CONFIGURATION, EXIT_UNEXPECTED, Child
from runledger.runtime.config import JobsConfig
from runledger.runtime.fleet import Fleet
from runledger.runtime.health import parse_address
from runledger.runtime.host import HEALTH, KEEPER, REAPER, SCHEDULER, WORKER, Host, Shared
from runledger.runtime.interrupts import CANCEL_SIGNAL
from runledger.runtime.logs import configure_logs, log
from runledger.runtime.roles import preload
from runledger.runtime.signals import SignalQueue, wait_for
from runledger.runtime.systemd import ServiceManager

EXIT_TIME_RAN_OUT = 6
TURN_SECONDS = 1.0
"""The longest pause between two turns; signals and deadlines shorten it."""

SPREAD_SECONDS = 0.5
"""In this time all processes are told to write their stacks, one after the other: they share a stream, and write
piece by piece."""

KEEPER_PATIENCE_SECONDS = 10.0
"""How long the keeper may take to settle the dead after the last worker has gone."""


class Phase(IntEnum):
    """The supervisor only ever moves forward."""

    RUNNING = 0
    STOPPING = 1
    KEEPER_STOPPING = 2


class Supervisor:
    """``Supervisor(app=..., database_url=...).run_until_shutdown()`` runs a host and answers with its exit status:
    0 after a clean stop or an empty queue, 6 when running jobs had to be killed, 78 when the set-up is wrong, 1 when
    children die as fast as they are started.

    ``is_preloading`` imports the app here, ``is_preloaded`` says that somebody has: fresh workers run that code."""

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
        with_scheduler: bool = True,
        with_sync: bool = True,
        health_address: str | None = None,
        is_preloading: bool = False,
        is_preloaded: bool = False,
        log_level: str = "info",
        log_format: str = "auto",
    ) -> None:
        self._config = JobsConfig.from_env() if config is None else config
        if health_address is not None:
            parse_address(health_address)
        self._log = (log_level, log_format)
        self._is_preloading = is_preloading
        self._host = Host(
            host_id=f"{self._config.worker_id}.{secrets.token_hex(4)}",
            app=app,
            database_url=database_url,
            schema=default_schema() if schema is None else check_schema_name(schema),
            config=self._config,
            queues=None if queues is None else tuple(queues),
            is_draining=is_draining,
            with_sync=with_sync,
            is_preloaded=is_preloading or is_preloaded or app.partition(":")[0] in sys.modules,
            health_address=health_address,
            shared=Shared.among(self._config.max_global_concurrency),
        )
        self._fleet = Fleet(
            self._host,
            with_reaper=with_reaper,
            with_scheduler=with_scheduler and not is_draining,  # who leaves when the queue is empty does not fill it
        )
        self._phase = Phase.RUNNING
        self._deadline = float("inf")
        self._stop_requests = 0
        self._status = 0
        self._reason: str | None = None
        self._manager = ServiceManager()
        self._is_announced = False
        self._is_prepared = False

    def run_until_shutdown(self) -> int:
        """Returns when every child has ended; answers with the exit status. Call it in the main thread."""
        configure_logs(*self._log)
        if self._is_preloading:
            preload(self._host.app)
        watched = (*_ON_SIGNAL, signal.SIGCHLD)
        before = {number: signal.getsignal(number) for number in watched}
        signals = SignalQueue(watched)
        log(
            logging.INFO,
            "supervisor.started",
            host_id=self._host.host_id,
            processes=self._config.max_global_concurrency,
            recovery_bound=f"{self._config.lease_ttl_seconds + self._config.reaper_interval_seconds}s",
        )
        try:
            while self.tick(signals.take()):
                wait_for([signals.fileno()], self._fleet.pause_seconds(self._manager.pause_seconds(TURN_SECONDS)))
        finally:
            self._fleet.end()
            signals.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        is_wrong = self._status in (EXIT_CONFIGURATION, EXIT_UNEXPECTED)
        log(logging.ERROR if is_wrong else logging.INFO, "supervisor.stopped", status=self._status, reason=self._reason)
        return self._status

    def tick(self, signals: Sequence[signal.Signals] = ()) -> bool:
        """One turn; answers whether there is anything left to watch."""
        self._host.shared.table.beat(time.monotonic_ns())
        self._manager.beat()
        for number in signals:
            if number in _ON_SIGNAL:
                _ON_SIGNAL[number](self)
        self._fleet.bury_the_dead()
        self._fleet.kill_the_overdue()
        self._fleet.recycle()
        if self._phase is Phase.RUNNING:
            self._stop_if_pointless()
        if self._phase is Phase.RUNNING:
            self._fleet.start_what_is_missing()
            self._announce_when_ready()
        else:
            self._stop_what_remains()
        return len(self._fleet) > 0 or self._phase is Phase.RUNNING

    def _announce_when_ready(self) -> None:
        """The service manager hears of it once the app is imported: it must not restart a host whose database is away.
        People hear of it when the database has answered as well."""
        if not self._is_announced and self._fleet.is_ready:
            self._is_announced = True
            self._manager.tell(READY=1, MAINPID=os.getpid(), STATUS="working")
        if not self._is_prepared and self._fleet.is_prepared:
            self._is_prepared = True
            log(logging.INFO, "supervisor.ready")

    def _stop_if_pointless(self) -> None:
        if self._fleet.misconfiguration is not None:
            self._status = EXIT_CONFIGURATION
            self._stop("misconfigured")
            self._reason = self._fleet.misconfiguration
        elif self._fleet.is_crash_looping:
            self._status = EXIT_UNEXPECTED
            self._stop("crash loop")
        elif self._host.is_draining and self._fleet.is_drained:
            self._stop("the queue is drained")

    def _on_stop_request(self) -> None:
        """Once: stop claiming, finish what runs. Twice: interrupt what runs. Thrice: kill it."""
        self._stop_requests += 1
        if self._stop_requests == 1:
            self._stop("stop requested")
        elif self._stop_requests == 2:
            self._interrupt_everything()
        else:
            self._deadline = min(self._deadline, time.monotonic())

    def _interrupt_everything(self) -> None:
        log(logging.WARNING, "supervisor.interrupting")
        for slot in self._host.slots:
            if slot.running_token:
                slot.interrupt(slot.running_token)
        self._fleet.signal(CANCEL_SIGNAL, WORKER)

    def _on_replace_request(self) -> None:
        if self._phase is Phase.RUNNING:
            self._fleet.replace_workers()

    def _on_quit(self) -> None:
        """Every process writes its stacks to stderr; then the host stops without waiting."""
        faulthandler.dump_traceback(all_threads=True)
        self._fleet.signal(signal.SIGQUIT, WORKER, KEEPER, REAPER, SCHEDULER, HEALTH, spread_seconds=SPREAD_SECONDS)
        self._stop("quit")
        self._deadline = min(self._deadline, time.monotonic() + TURN_SECONDS)

    def _on_quiet(self) -> None:
        log(logging.INFO, "workers.quiet")
        self._fleet.set_quiet(True)

    def _on_resume(self) -> None:
        log(logging.INFO, "workers.resumed")
        self._fleet.set_quiet(False)

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

    def _stop(self, reason: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        self._phase = Phase.STOPPING
        self._reason = reason
        self._fleet.end_canary()
        self._deadline = time.monotonic() + self._config.shutdown_timeout_seconds
        running = sum(slot.running_token > 0 for slot in self._host.slots)
        self._fleet.signal(signal.SIGTERM, WORKER, REAPER, SCHEDULER)
        log(logging.INFO, "supervisor.stopping", reason=reason, running=running, hint=self._what_is_waited_for(running))
        self._manager.tell(STOPPING=1, STATUS=f"stopping: {reason}")

    def _what_is_waited_for(self, running: int) -> str | None:
        if not running or not self._stop_requests:
            return None
        jobs = "1 running job" if running == 1 else f"{running} running jobs"
        return f"waiting up to {self._config.shutdown_timeout_seconds} s for {jobs}; again to interrupt them"

    def _stop_what_remains(self) -> None:
        """First all who work, by their own will or by force; the keeper last, when nobody holds a lease."""
        others = self._fleet.of_role(WORKER, REAPER, SCHEDULER)
        if others:
            self._keep_a_keeper()
            self._force(others, EXIT_TIME_RAN_OUT)
        elif self._phase is Phase.STOPPING:
            self._phase = Phase.KEEPER_STOPPING
            self._deadline = time.monotonic() + KEEPER_PATIENCE_SECONDS
        if self._phase is Phase.KEEPER_STOPPING and self._fleet.has_told_everything:
            self._fleet.signal(signal.SIGTERM, KEEPER, HEALTH)
        if self._phase is Phase.KEEPER_STOPPING:
            self._force(self._fleet.of_role(KEEPER, HEALTH), EXIT_UNEXPECTED)

    def _keep_a_keeper(self) -> None:
        """Jobs may run on for as long as the shutdown timeout lasts, and their leases have to be renewed."""
        if not (self._fleet.misconfiguration or self._fleet.is_crash_looping):
            self._fleet.start_a_missing_keeper()

    def _force(self, children: Sequence[Child], status: int) -> None:
        if time.monotonic() < self._deadline:
            return
        for child in children:
            if child.kill_cause is None:
                self._status = self._status or status
                self._fleet.kill(child, "shutdown")


_ON_SIGNAL: dict[signal.Signals, Callable[[Supervisor], None]] = {
    signal.SIGTERM: Supervisor._on_stop_request,
    signal.SIGINT: Supervisor._on_stop_request,
    signal.SIGHUP: Supervisor._on_replace_request,
    signal.SIGQUIT: Supervisor._on_quit,
    signal.SIGTSTP: Supervisor._on_quiet,
    signal.SIGCONT: Supervisor._on_resume,
    signal.SIGUSR1: Supervisor._log_status,
}
"""Which signal does what; docs/signals.md says the same for people."""
