"""A durable server of a test's own with a synchronous standby that may take its place.

A commit is acknowledged when the standby has it on disk. While there is no standby, commits wait: nothing is ever
acknowledged that one server alone has.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from runtime.crashing import CrashingServer, directory_of_servers
from runtime.hosts import until

from runledger.embedded import DURABLE_SETTINGS, EmbeddedServer, find_binaries
from runledger.embedded.cluster import Cluster
from runledger.embedded.owner import server_owner
from runledger.embedded.places import cache_directory
from runledger.embedded.relocation import reachable_binaries

STANDBY = "standby"
SETTINGS = DURABLE_SETTINGS | {
    "max_connections": "300",  # sessions whose clients gave up go on waiting for the standby
    "synchronous_standby_names": STANDBY,
    "wal_keep_size": "1GB",
    "recovery_init_sync_method": "syncfs",
    "wal_retrieve_retry_interval": "100ms",
}
IN_SYNC = "SELECT FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming' AND sync_state = 'sync'"
SEED_SECONDS = 120.0


class ReplicatedServer(CrashingServer):
    """The link leads to whoever is the primary now; the other one of the two follows it through the same link."""

    def __init__(self, directory: Path) -> None:
        follows = f"host={directory / 'socket'} port=5432 user=postgres application_name={STANDBY}"
        settings = SETTINGS | {"primary_conninfo": follows}
        super().__init__(directory, settings)
        self._standby = EmbeddedServer(directory / "other", settings)
        self._is_detached = False
        self._seeding: threading.Thread | None = None
        self._seeding_failed: BaseException | None = None
        self.promotion_seconds: list[float] = []
        """For each failover: how long after the kill somebody could be written to again."""
        self.sync_seconds: list[float] = []
        """For each failover: how long after the kill commits were acknowledged again, because a standby had them."""

    def start(self) -> None:
        super().start()
        if not (self._standby.place.data / "PG_VERSION").exists():
            self._seed()

    def crash(self) -> None:
        self._wait_for_the_seed()
        super().crash()

    def detach(self) -> None:
        """The standby gets nothing any more of what is committed from here on."""
        self.settle_down()
        self._standby.stop()
        self._is_detached = True

    def fail_over(self, *, read_only_seconds: float = 0.0) -> None:
        """The primary is gone and the standby has its place; a new standby is made of the new primary meanwhile.

        The standby need not be in sync: what it lacks was not acknowledged, though somebody may have seen it. For
        ``read_only_seconds`` clients reach the standby before it is promoted.
        """
        self._wait_for_the_seed()
        killed_at = time.monotonic()
        super().crash()
        if self._is_detached:
            self._attach()
        if read_only_seconds:
            self._lead_to(self._standby)
            threading.Event().wait(read_only_seconds)
        with psycopg.connect(self._standby.url(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,), (
                "the standby did not promote"
            )
        self._server, self._standby = self._standby, self._server
        self._lead_to(self._server)
        self.promotion_seconds.append(time.monotonic() - killed_at)
        self._seeding = threading.Thread(target=self._seed_aside, args=(killed_at,), daemon=True)
        self._seeding.start()

    def settle_down(self) -> None:
        """The standby follows. Raises what kept it from being made, and AssertionError when it stays away."""
        self._wait_for_the_seed()
        if self._is_detached:
            self._attach()
        self._wait_until_in_sync()

    def _wait_for_the_seed(self) -> None:
        """There is a standby, which has everything that was ever acknowledged."""
        thread, self._seeding = self._seeding, None
        if thread is not None:
            thread.join(SEED_SECONDS)
        if self._seeding_failed is not None:
            raise self._seeding_failed

    def _attach(self) -> None:
        self._standby.start()
        self._is_detached = False

    def destroy(self) -> None:
        if self._seeding is not None:
            self._seeding.join(SEED_SECONDS)
        self._standby.destroy()
        super().destroy()

    def _seed_aside(self, killed_at: float) -> None:
        try:
            self._seed()
            self.sync_seconds.append(time.monotonic() - killed_at)
        except BaseException as error:  # raised to whoever needs the standby next
            self._seeding_failed = error

    def _seed(self) -> None:
        """The other server is a copy of the primary and follows it; what it was before is gone."""
        self._standby.destroy()
        with self._standby.changing():
            self._copy_the_primary()
        self._standby.start()
        self._wait_until_in_sync()

    def _wait_until_in_sync(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            until(lambda: connection.execute(IN_SYNC, (STANDBY,)).fetchone() is not None, what="a standby in sync")

    def _copy_the_primary(self) -> None:
        owner, place = server_owner(), self._standby.place
        cluster = Cluster(place, reachable_binaries(find_binaries(), owner, cache_directory()), owner)
        draft = place.root / "data.new"
        draft.mkdir(mode=0o700)
        os.chown(draft, owner.uid, owner.gid)
        program = cluster.binaries.program("pg_basebackup")
        source = ["-h", str(self._link), "-p", "5432", "-U", "postgres"]
        options = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        finished = subprocess.run(
            [program, *source, "-D", str(draft), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SEED_SECONDS,
            env=cluster.environment,
            cwd="/",
            **({"user": owner.uid, "group": owner.gid, "extra_groups": []} if owner.is_switched else {}),
        )
        assert finished.returncode == 0, f"no copy of the primary: {finished.stdout}"
        draft.rename(place.data)


@contextlib.contextmanager
def replicated_server() -> Iterator[ReplicatedServer]:
    """A running pair; nothing of it is left afterwards. Raises EmbeddedUnavailable where there is none to be had."""
    with directory_of_servers() as directory:
        made = ReplicatedServer(directory)
        try:
            made.start()
            yield made
        finally:
            made.destroy()
