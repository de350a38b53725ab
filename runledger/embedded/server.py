"""One embedded PostgreSQL server: start it, ask about it, stop it, destroy it.

``EmbeddedServer`` is the server of one home, whichever process started it. Every change happens under the change lock
of its place, so processes that start and stop at the same time take turns.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from runledger.embedded.binaries import Binaries, find_binaries
from runledger.embedded.cluster import (
    Cluster,
    clear_leftovers,
    data_version,
    initialise,
    launch,
    shut_down,
    wait_until_ready,
)
from runledger.embedded.errors import EmbeddedInUse, EmbeddedNotRunning
from runledger.embedded.locks import exclusively, open_lock, try_exclusive
from runledger.embedded.owner import server_owner
from runledger.embedded.places import LOCATION_FILE, Place, cache_directory, locate_place, make_place
from runledger.embedded.postmaster import Postmaster, live_postmaster
from runledger.embedded.record import RunRecord, read_record, write_record
from runledger.embedded.relocation import reachable_binaries
from runledger.embedded.settings import DEVELOPMENT_SETTINGS
from runledger.embedded.sockets import remove_socket_directory

CHANGE_TIMEOUT_SECONDS = 180.0


class ServerState(StrEnum):
    """ABSENT: no data directory has been made yet; STOPPED: it is there and no server runs on it."""

    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is true now. ``settings`` are those of the running server; ``keep_running``: it outlives its users."""

    state: ServerState
    home: Path
    data_directory: Path
    version: str | None
    pid: int | None
    url: str | None
    keep_running: bool
    is_in_use: bool
    settings: Mapping[str, str]


class EmbeddedServer:
    """The development server of one home directory. Making the object touches nothing."""

    def __init__(
        self, home: Path, settings: Mapping[str, str] = DEVELOPMENT_SETTINGS, *, binaries: Binaries | None = None
    ) -> None:
        self.home = home.expanduser().resolve()
        self.settings = settings
        self._binaries = binaries
        self._owner = server_owner()
        self._cache = cache_directory()

    @property
    def place(self) -> Place:
        """Where the files of this server are: the home, or below our cache when the server's user cannot enter it."""
        return locate_place(self.home, self._owner, self._cache)

    def start(self) -> str:
        """The server runs until ``stop()``, whoever else joins and leaves; returns its URL.

        Settings take effect only when this call is the one that starts it. Raises EmbeddedUnavailable,
        EmbeddedVersionMismatch or EmbeddedStartFailed.
        """
        with self.changing():
            self.ensure_running(keep_running=True)
            return self.url()

    def stop(self, *, even_if_in_use: bool = True) -> bool:
        """The server does not run; False when it did not run before.

        Raises EmbeddedInUse, when ``even_if_in_use`` is false and another process holds it by ``running_server``.
        """
        if not self.place.root.is_dir():
            return False
        with self.changing():
            if not even_if_in_use and self.is_in_use():
                raise EmbeddedInUse("another process is using this embedded server", hint="stop that process first")
            return self.ensure_stopped()

    def destroy(self, *, even_if_in_use: bool = True) -> None:
        """The server does not run and its data is gone."""
        self.stop(even_if_in_use=even_if_in_use)
        if not self.place.root.is_dir():
            return
        with self.changing():
            self.ensure_stopped()
            clear_leftovers(self.place.data)
            shutil.rmtree(self.place.data, ignore_errors=True)
            shutil.rmtree(self.place.root / "data.new", ignore_errors=True)
            place = self.place
            (self.home / LOCATION_FILE).unlink(missing_ok=True)
        if place.root != self.home:
            shutil.rmtree(place.root, ignore_errors=True)

    def status(self) -> ServerStatus:
        """What is true now; changes nothing."""
        place = self.place
        server, record = live_postmaster(place.data), self._record()
        version = data_version(place.data)
        is_running = server is not None and bool(server.socket_directory)
        stopped = ServerState.STOPPED if version else ServerState.ABSENT
        return ServerStatus(
            state=ServerState.RUNNING if is_running else stopped,
            home=self.home,
            data_directory=place.data,
            version=version,
            pid=server.pid if server else None,
            url=self.url() if is_running else None,
            keep_running=record is not None and record.keep_running,
            is_in_use=self._is_in_use_or_changing(),
            settings=record.settings if record else {},
        )

    def url(self, database: str = "postgres") -> str:
        """The percent-encoded URL of a database of the running server. Raises EmbeddedNotRunning."""
        server = live_postmaster(self.place.data)
        if server is None or not server.socket_directory:
            raise EmbeddedNotRunning("the embedded database is not running", hint="runledger db start")
        host = quote(server.socket_directory, safe="")
        return f"postgresql:///{quote(database, safe='')}?host={host}&port=5432&user=postgres"

    def program(self, name: str) -> str:
        """The path of a client program beside the server, such as ``psql``, where we ourselves can run it."""
        return self._found_binaries().program(name)

    def is_in_use(self) -> bool:
        """Whether any process holds the server by ``running_server``. The caller is inside ``changing()``."""
        if not self.place.users_lock.exists():
            return False
        descriptor = open_lock(self.place.users_lock)
        try:
            return not try_exclusive(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """The block may start and stop the server; others wait. Raises EmbeddedInUse after three minutes."""
        make_place(self.home, self.place, self._owner)
        with exclusively(self.place.change_lock, timeout_seconds=CHANGE_TIMEOUT_SECONDS):
            yield

    def ensure_running(self, *, keep_running: bool) -> None:
        """The server accepts connections, and outlives its users if asked to. The caller is inside ``changing()``."""
        place = self.place
        server = live_postmaster(place.data)
        if server is not None and server.socket_directory:
            wait_until_ready(place, server.pid)
            record = self._record() or RunRecord(server.pid, server.socket_directory, keep_running)
        else:
            server = self._launch(place)
            record = RunRecord(server.pid, server.socket_directory, keep_running, dict(self.settings))
        if keep_running or not record.keep_running:
            record = RunRecord(record.pid, record.socket_directory, keep_running, record.settings)
        write_record(place.record, record)

    def ensure_stopped(self) -> bool:
        """The server does not run; False when it did not run before. The caller is inside ``changing()``."""
        place = self.place
        record = read_record(place.record)
        was_running = shut_down(place.data, is_disposable=record is not None and record.is_disposable)
        if record is not None:
            remove_socket_directory(record.socket_directory, self._owner)
            place.record.unlink()
        return was_running

    def is_kept_running(self) -> bool:
        """Whether somebody asked for this run to outlive its users."""
        record = self._record()
        return record is not None and record.keep_running

    def _launch(self, place: Place) -> Postmaster:
        leftover = read_record(place.record)
        binaries = reachable_binaries(self._found_binaries(), self._owner, self._cache)
        cluster = Cluster(place, binaries, self._owner)
        initialise(cluster)
        server = launch(cluster, self.settings)
        if leftover is not None and leftover.socket_directory != server.socket_directory:
            remove_socket_directory(leftover.socket_directory, self._owner)
        return server

    def _is_in_use_or_changing(self) -> bool:
        """Asks only while nobody changes the server: a leaving process must not take our question for a user."""
        if not self.place.change_lock.exists():
            return False
        descriptor = open_lock(self.place.change_lock)
        try:
            return not try_exclusive(descriptor) or self.is_in_use()
        finally:
            os.close(descriptor)

    def _record(self) -> RunRecord | None:
        """The record of the run that is alive now."""
        record, server = read_record(self.place.record), live_postmaster(self.place.data)
        return record if record is not None and server is not None and server.pid == record.pid else None

    def _found_binaries(self) -> Binaries:
        return self._binaries or find_binaries()
