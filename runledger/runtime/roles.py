"""What each child does after its fork: its own signals, its own connection, its own loop."""

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from runledger.core.catalog import JobCatalog
from runledger.core.errors import ConfigurationError, InvalidConfiguration, RunledgerError
from runledger.runtime.app import idle_queues, load_catalog, queues_of
from runledger.runtime.children import count_threads, unblock_signals
from runledger.runtime.fitness import check_fitness
from runledger.runtime.health import Health
from runledger.runtime.host import CANARY, HEALTH, KEEPER, REAPER, SCHEDULER, Host
from runledger.runtime.interrupts import Interrupts
from runledger.runtime.keeper import Keeper, worker_id
from runledger.runtime.link import DatabaseLink
from runledger.runtime.logs import log
from runledger.runtime.loop import run_loop
from runledger.runtime.pulse import Pulse
from runledger.runtime.reaper import Reaper
from runledger.runtime.registry import Registry
from runledger.runtime.scheduler import Scheduler
from runledger.runtime.signals import SignalQueue, drain
from runledger.runtime.slots import Slot, SlotState
from runledger.runtime.tally import Tally
from runledger.runtime.worker import Worker


def _link(host: Host, role: str, pulse: Pulse | None = None) -> DatabaseLink:
    timeout = host.config.database_timeout_seconds
    if pulse is None:
        return DatabaseLink(host.database_url, host.schema, role, timeout_seconds=timeout)
    return DatabaseLink(host.database_url, host.schema, role, timeout_seconds=timeout, beat=pulse.beat)


def preload(app: str) -> None:
    """The app is imported here, once, and workers share its memory. They run this code until the host starts anew.

    Raises AppNotImportable; InvalidConfiguration when the import left threads behind, beside which nothing may fork.
    """
    load_catalog(app)
    if count_threads() > 1:
        raise InvalidConfiguration(f"{app!r} starts threads when it is imported; run without --preload")
    gc.collect()
    gc.freeze()


def live_as_canary(host: Host) -> int:
    """A fresh worker could do its work: the app can be imported, and the schema fits, if the database answers.

    Raises ConfigurationError otherwise.
    """
    unblock_signals()
    sys.argv[0] = "runledger canary"
    load_catalog(host.app)
    with contextlib.closing(_link(host, CANARY)) as link:
        try:
            with link.autocommit() as ledger:
                check_fitness(ledger, host.shared.table)
        except ConfigurationError:
            raise
        except RunledgerError:
            pass  # a fresh worker waits for the database like the old ones
    return 0


def live_as_worker(host: Host, slot: Slot, parent_pid: int) -> int:
    """Imports the app, then claims, runs and settles until told to stop, or until the queue is drained."""
    slot.set_pid(os.getpid())
    signals = SignalQueue((signal.SIGTERM,))
    unblock_signals()
    sys.argv[0] = f"runledger worker {slot.index}"
    catalog = load_catalog(host.app)
    if slot.index == 0:
        _warn_of_idle_queues(catalog, host.queues)
    link = _link(host, f"worker-{slot.index}")
    tally = None if host.health_address is None else Tally(host.shared.tallies, slot.index)
    own_id = worker_id(host.host_id, slot.index, slot.incarnation)
    worker = Worker(
        catalog,
        link,
        slot,
        Interrupts(slot),
        worker_id=own_id,
        config=host.config,
        queues=host.queues,
        is_draining=host.is_draining,
        with_sync=host.with_sync,
        tally=tally,
        table=host.shared.table,
        on_prepared=lambda: log(logging.INFO, "worker.ready", worker_id=own_id),
    )
    host.shared.board.write(slot.index, catalog.job_types)
    slot.turn(SlotState.IDLE, time.monotonic_ns())
    worker.watch_stop(lambda: signal.SIGTERM in signals.seen)
    wake_read = host.shared.wakes[slot.index].read

    def tick() -> float | None:
        drain(wake_read)
        return worker.tick()

    status = run_loop(tick, signals=signals, link=link, parent_pid=parent_pid, wake=lambda: (wake_read,))
    worker.end()
    link.close()
    return status


def _warn_of_idle_queues(catalog: JobCatalog, queues: Sequence[str] | None) -> None:
    """Said by one worker of a host: perhaps the name of a queue is misspelt."""
    for name in idle_queues(catalog, queues):
        log(logging.WARNING, "queue.has_no_job_type", queue=name, queues=", ".join(queues_of(catalog)))


def live_as_keeper(host: Host, parent_pid: int) -> int:
    """Keeps the leases of this host until told to stop, which the supervisor does last."""
    signals = SignalQueue((signal.SIGTERM,))
    unblock_signals()
    pulse = host.shared.pulses[KEEPER]
    link = _link(host, KEEPER, pulse)
    registry = Registry(
        link, host.slots, host.shared.board, host_id=host.host_id, app=host.app, queues=host.queues, config=host.config
    )
    keeper = Keeper(
        link,
        host.slots,
        host.shared.obituaries.read,
        [wake.write for wake in host.shared.wakes],
        registry,
        host_id=host.host_id,
        config=host.config,
        tally=None if host.health_address is None else Tally(host.shared.tallies, host.shared.tallies.keepers_page),
        pulse=pulse,
    )

    def tick() -> float | None:
        keeper.is_stopping = signal.SIGTERM in signals.seen
        return keeper.tick()

    def wake() -> tuple[int, ...]:
        socket = link.fileno()
        return (host.shared.obituaries.read,) if socket is None else (host.shared.obituaries.read, socket)

    status = run_loop(tick, signals=signals, link=link, parent_pid=parent_pid, wake=wake, beat=pulse.beat)
    if os.getppid() != parent_pid:
        keeper.take_over()
    link.close()
    return status


def live_as_reaper(host: Host, parent_pid: int) -> int:
    """Reaps lapsed leases until told to stop."""
    signals = SignalQueue((signal.SIGTERM,))
    unblock_signals()
    pulse = host.shared.pulses[REAPER]
    link = _link(host, REAPER, pulse)
    reaper = Reaper(link, host.config)

    def tick() -> float | None:
        reaper.is_stopping = signal.SIGTERM in signals.seen
        return reaper.tick()

    status = run_loop(tick, signals=signals, link=link, parent_pid=parent_pid, beat=pulse.beat)
    link.close()
    return status


def live_as_scheduler(host: Host, parent_pid: int) -> int:
    """Fires due schedules until told to stop."""
    signals = SignalQueue((signal.SIGTERM,))
    unblock_signals()
    pulse = host.shared.pulses[SCHEDULER]
    link = _link(host, SCHEDULER, pulse)
    scheduler = Scheduler(link, host.config)

    def tick() -> float | None:
        scheduler.is_stopping = signal.SIGTERM in signals.seen
        return scheduler.tick()

    status = run_loop(tick, signals=signals, link=link, parent_pid=parent_pid, beat=pulse.beat)
    link.close()
    return status


def live_as_health(host: Host, parent_pid: int) -> int:
    """Answers health requests until told to stop, which the supervisor does with the keeper."""
    assert host.health_address is not None
    signals = SignalQueue((signal.SIGTERM,))
    unblock_signals()
    link = _link(host, HEALTH)
    health = Health(host.health_address, host.shared.table, host.shared.tallies, link)

    def tick() -> float | None:
        health.is_stopping = signal.SIGTERM in signals.seen
        return health.tick()

    status = run_loop(
        tick,
        signals=signals,
        link=link,
        parent_pid=parent_pid,
        wake=lambda: (health.fileno(),),
        beat=host.shared.pulses[HEALTH].beat,
    )
    link.close()
    return status
