"""What the nemesis does other than to processes: to sessions, to the server, to the network, and as an operator."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
from chaos.nemesis import Action, Fault, Kind
from chaos.proxy import Proxy
from runtime.pooler import Pooler
from runtime.standby import ReplicatedServer

from runledger.postgres.statements import SCHEMA

OUR_SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runledger%%' AND pid <> pg_backend_pid()
    ORDER BY backend_start LIMIT %s
"""
SESSIONS_AT_ONCE = 3


class Breakage:
    """``networks`` are the proxies of the hosts and, last, of the load. Every fault heals by itself."""

    def __init__(self, server: ReplicatedServer, networks: list[Proxy], pooler: Pooler | None) -> None:
        self._server = server
        self._networks = networks
        self._pooler = pooler
        self._pooler_lock = threading.Lock()
        self.pooler_restarts = None if pooler is None else 0
        self._running: list[threading.Thread] = []
        self.disturbed_until = 0.0
        """On the monotonic clock: until when a slow stop has an excuse."""

    def do(self, action: Action) -> None:
        """The fault has begun; returns before it ends, except after a crash and a failover, when there is a
        primary again."""
        deeds: dict[Kind, Callable[[Action], None]] = {
            Kind.TERMINATE: self._terminate,
            Kind.CRASH: self._crash,
            Kind.FAILOVER: lambda one: self._server.fail_over(read_only_seconds=one.seconds),
            Kind.POOLER: lambda one: self._aside(self._restart_pooler, one),
            Kind.NETWORK: self._break_network,
            Kind.LOCK: lambda one: self._aside(self._lock, one),
            Kind.READER: lambda one: self._aside(self._read, one),
        }
        self.disturbed_until = max(self.disturbed_until, time.monotonic() + action.seconds + 1.0)
        deeds[action.kind](action)

    def heal(self) -> None:
        """Returns when nothing is broken any more."""
        for thread in self._running:
            thread.join(90)
        for network in self._networks:
            network.heal()
        self._server.settle_down()

    def _terminate(self, action: Action) -> None:
        with self._on_the_way() as connection:
            rows = connection.execute(OUR_SESSIONS, (SESSIONS_AT_ONCE * (action.host + 1),)).fetchall()
            for (pid,) in rows[-SESSIONS_AT_ONCE:]:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def _crash(self, action: Action) -> None:
        self._server.crash()
        self._server.start()
        self.disturbed_until = time.monotonic() + 1.0

    def _break_network(self, action: Action) -> None:
        network = self._networks[action.host]
        network.break_by(Fault(action.what))
        if action.seconds:
            self._aside(lambda one: (time.sleep(one.seconds), network.heal())[0], action)

    def _restart_pooler(self, action: Action) -> None:
        """Nothing happens where there is none."""
        if self._pooler is not None and self.pooler_restarts is not None:
            with self._pooler_lock:
                self._pooler.kill()
                time.sleep(action.seconds)
                self._pooler.start()
                self.pooler_restarts += 1

    def _lock(self, action: Action) -> None:
        """A table that nobody can use: what waits for it gives up after a second and comes again."""
        with self._on_the_way() as connection, connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute(f"LOCK TABLE {SCHEMA}.{action.what} IN ACCESS EXCLUSIVE MODE")
            connection.execute("SELECT pg_sleep(%s)", (action.seconds,))

    def _read(self, action: Action) -> None:
        with self._on_the_way() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute(f"SELECT count(*) FROM {SCHEMA}.job_leases")
            connection.execute("SELECT pg_sleep(%s)", (action.seconds,))

    @contextlib.contextmanager
    def _on_the_way(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """A session that may meet another fault: then what it was about does not happen."""
        with (
            contextlib.suppress(psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction),
            contextlib.closing(
                psycopg.connect(self._server.url, autocommit=True, application_name="nemesis")
            ) as session,
        ):
            yield session

    def _aside(self, deed: Callable[[Action], None], action: Action) -> None:
        self._running = [thread for thread in self._running if thread.is_alive()]
        thread = threading.Thread(target=deed, args=(action,), daemon=True)
        self._running.append(thread)
        thread.start()
