"""A standby of a test's own primary: a copy that follows it, is promoted when told, and has a socket of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from runtime.crashing import CrashingServer
from runtime.hosts import until

from runledger.embedded.owner import server_owner

FOLLOWING = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"


class Follower:
    """Runs from the programs that its primary runs from, as the same user."""

    def __init__(self, primary: CrashingServer, directory: Path) -> None:
        self.directory = directory
        self.url = f"postgresql://postgres@/postgres?host={quote(str(directory), safe='')}&port=5432"
        self._data = directory / "data"
        self._programs = primary.programs
        owner = server_owner()
        self._as_owner: dict[str, Any] = {"user": owner.uid, "group": owner.gid} if owner.is_switched else {}
        if owner.is_switched:
            os.chown(directory, owner.uid, owner.gid)
        self._process: subprocess.Popen[bytes] | None = None

    def follow(self, primary: CrashingServer) -> None:
        """It has what the primary has, and from now on every commit before it is acknowledged."""
        copy = ["-h", primary.socket_directory, "-U", "postgres", "-D", str(self._data), "-R", "-N"]
        subprocess.run(
            [str(self._programs / "pg_basebackup"), *copy, "-c", "fast"],
            check=True,
            capture_output=True,
            timeout=120,
            **self._as_owner,
        )
        options = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(self.directory)}
        settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), *settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._as_owner,
        )
        with psycopg.connect(primary.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            until(lambda: connection.execute(FOLLOWING).fetchall(), what="a standby that follows")

    def promote(self) -> None:
        """It is the primary, and takes writes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def end(self) -> None:
        """No process of it is left."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)


@contextlib.contextmanager
def follower_of(primary: CrashingServer) -> Iterator[Follower]:
    """One that follows; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="rl-standby-")).resolve()
    directory.chmod(0o755)
    made = Follower(primary, directory)
    try:
        made.follow(primary)
        yield made
    finally:
        made.end()
        shutil.rmtree(directory, ignore_errors=True)


def url_of_both(primary: CrashingServer, standby: Follower) -> str:
    """Both servers, as an operator would name them; a session goes to the one that takes writes."""
    return f"host={primary.socket_directory},{standby.directory} port=5432,5432 user=postgres dbname=postgres"
