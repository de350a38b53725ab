"""Make, start and stop one PostgreSQL server in one place. The caller holds the place's change lock.

The server is started detached, in a session of its own, with a clean environment: neither a Ctrl-C in the terminal
nor the locale of the caller reaches it.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runledger.embedded.binaries import Binaries
from runledger.embedded.errors import (
    EmbeddedStartFailed,
    EmbeddedStopFailed,
    EmbeddedUnavailable,
    EmbeddedVersionMismatch,
)
from runledger.embedded.owner import ServerOwner
from runledger.embedded.places import Place
from runledger.embedded.postmaster import (
    PID_FILE,
    POLL_SECONDS,
    Postmaster,
    is_postmaster,
    is_running,
    live_postmaster,
    process_exists,
    processes_in,
    read_postmaster,
    signal_postmaster,
    wait_until_gone,
)
from runledger.embedded.sockets import make_socket_directory, remove_socket_directory

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
INITDB_TIMEOUT_SECONDS = 120.0
LOG_LINES_SHOWN = 20
INITDB_OPTIONS = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
BUILTIN_LOCALE_OPTIONS = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
BUILTIN_LOCALE_SINCE = 17
# sh only detaches: the arguments travel as "$@", so no path needs quoting; the log is its standard error
DETACH = ("/bin/sh", "-c", 'exec "$@" >&2 & echo $!', "sh")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A place together with the programs and the user that serve it."""

    place: Place
    binaries: Binaries
    owner: ServerOwner

    @property
    def environment(self) -> dict[str, str]:
        clean = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
        library_directory = self.binaries.library_directory
        return clean | ({"LD_LIBRARY_PATH": str(library_directory)} if library_directory else {})


def data_version(data: Path) -> str | None:
    """The major version that made the data directory; None when there is none."""
    try:
        return (data / "PG_VERSION").read_text().strip()
    except OSError:
        return None


def initialise(cluster: Cluster) -> None:
    """The data directory exists, made by this major version; an interrupted initdb leaves no half of one behind.

    Raises EmbeddedVersionMismatch when another version made it, EmbeddedStartFailed when initdb fails.
    """
    found = data_version(cluster.place.data)
    if found is None:
        _run_initdb(cluster)
    elif found != str(cluster.binaries.major):
        raise EmbeddedVersionMismatch(
            f"{cluster.place.data} was made by PostgreSQL {found}, not by {cluster.binaries.version} as found now",
            hint="`runledger db reset` destroys this development database and recreates it",
        )


def launch(cluster: Cluster, settings: Mapping[str, str]) -> Postmaster:
    """The server runs with these settings and accepts connections on a socket directory of its own.

    Raises EmbeddedStartFailed with the end of its log when it does not.
    """
    clear_leftovers(cluster.place.data)
    socket_directory = make_socket_directory(cluster.place, cluster.owner)
    options = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(socket_directory), **settings}
    command = [*DETACH, cluster.binaries.program("postgres"), "-D", str(cluster.place.data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    try:
        with cluster.place.log.open("wb") as log:
            answer = _run(cluster, command, stderr=log.fileno(), timeout_seconds=START_TIMEOUT_SECONDS)
        return wait_until_ready(cluster.place, int(answer.stdout))
    except BaseException:
        if live_postmaster(cluster.place.data) is None:
            remove_socket_directory(str(socket_directory), cluster.owner)
        raise


def wait_until_ready(place: Place, pid: int) -> Postmaster:
    """The server with this pid accepts connections. Raises EmbeddedStartFailed when it ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        is_alive = is_running(pid)
        found = read_postmaster(place.data)
        if found is not None and found.pid == pid and found.is_ready and is_alive:
            return found
        if not is_alive:
            raise EmbeddedStartFailed(f"PostgreSQL did not start:\n{last_log_lines(place.log)}")
        time.sleep(POLL_SECONDS)
    raise EmbeddedStartFailed(
        f"PostgreSQL was not ready after {START_TIMEOUT_SECONDS:g} s:\n{last_log_lines(place.log)}"
    )


def shut_down(data: Path, *, is_disposable: bool) -> bool:
    """The server of this data directory does not run; False when it did not run before.

    A disposable server ends at once, without a checkpoint. Raises EmbeddedStopFailed when it cannot be stopped.
    """
    pids = _postmaster_pids(data)
    for signal_number in (signal.SIGQUIT,) if is_disposable else (signal.SIGINT, signal.SIGQUIT):
        _signal_all(pids, data, signal_number)
        if not wait_until_gone(pids, STOP_TIMEOUT_SECONDS):
            return bool(pids)
    raise EmbeddedStopFailed(f"processes {pids} were told to stop and still run")


def clear_leftovers(data: Path) -> None:
    """No process works in the data directory any more, and no stale pid file keeps a server from starting.

    A server whose pid file was damaged is stopped; orphaned backends are only waited for.
    Raises EmbeddedStartFailed when some stay.
    """
    _signal_all(processes_in(data), data, signal.SIGQUIT)
    if left := wait_until_gone(processes_in(data), STOP_TIMEOUT_SECONDS):
        numbers = ", ".join(map(str, left))
        raise EmbeddedStartFailed(f"processes of an earlier server still use {data}: {numbers}")
    found = read_postmaster(data)
    if found is None or process_exists(found.pid):
        # a zombie or a stranger would keep PostgreSQL from starting; a pid that is gone it checks better than we do
        (data / PID_FILE).unlink(missing_ok=True)


def last_log_lines(log: Path) -> str:
    """The last twenty lines of the log; what cannot be read is said instead."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
    except OSError as error:
        return f"({log} cannot be read: {error.strerror})"


def _postmaster_pids(data: Path) -> list[int]:
    """The running server, found by its working directory when its pid file is damaged."""
    server = live_postmaster(data)
    return [server.pid] if server else [pid for pid in processes_in(data) if is_postmaster(pid, data)]


def _signal_all(pids: list[int], data: Path, signal_number: int) -> None:
    for pid in pids:
        try:
            signal_postmaster(pid, data, signal_number)
        except PermissionError as error:
            raise EmbeddedStopFailed(f"process {pid} belongs to another user") from error


def _run_initdb(cluster: Cluster) -> None:
    draft = cluster.place.root / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if cluster.owner.is_switched:
        os.chown(draft, cluster.owner.uid, cluster.owner.gid)
    has_builtin_locale = cluster.binaries.major >= BUILTIN_LOCALE_SINCE
    options = INITDB_OPTIONS + (BUILTIN_LOCALE_OPTIONS if has_builtin_locale else ())
    with cluster.place.log.open("wb") as log:
        answer = _run(
            cluster,
            [cluster.binaries.program("initdb"), "-D", str(draft), *options],
            stderr=log.fileno(),
            timeout_seconds=INITDB_TIMEOUT_SECONDS,
        )
    if answer.returncode != 0:
        shutil.rmtree(draft, ignore_errors=True)
        raise EmbeddedStartFailed(f"initdb failed:\n{last_log_lines(cluster.place.log)}")
    draft.rename(cluster.place.data)


def _run(
    cluster: Cluster, command: list[str], *, stderr: int, timeout_seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """The finished command, run as the server's user. Raises EmbeddedUnavailable when that user cannot run it."""
    is_switched = cluster.owner.is_switched
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            check=False,
            timeout=timeout_seconds,
            env=cluster.environment,
            cwd="/",
            start_new_session=True,
            user=cluster.owner.uid if is_switched else None,
            group=cluster.owner.gid if is_switched else None,
            extra_groups=[] if is_switched else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedUnavailable(
            f"{os.path.basename(command[0])} cannot be run as user {cluster.owner.uid}: {error}",
            hint="run this as an ordinary user, or set RUNLEDGER_TEST_DATABASE_URL or RUNLEDGER_DATABASE_URL",
        ) from error
