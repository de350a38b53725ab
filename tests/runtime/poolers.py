"""A PgBouncer in transaction mode that a test may kill and start again."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from runtime.hosts import until

REMEDY = "PgBouncer is missing; install it: apt-get install pgbouncer"
POOL_SIZE = 8
UNPRIVILEGED = ("nobody", "postgres")
CONFIGURATION = """\
[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
admin_users = {user}
ignore_startup_parameters = extra_float_digits
logfile = {directory}/log
pidfile = {directory}/pid
"""


class Pooler:
    """Where it listens, and as whom."""

    def __init__(self, program: str, directory: Path, server: dict[str, Any]) -> None:
        self.port = _free_port()
        self.user = str(server.get("user") or "postgres")
        self._program = program
        self._configuration = directory / "ini"
        self._process: subprocess.Popen[bytes] | None = None
        named = make_conninfo(**{name: server[name] for name in ("host", "port", "user", "password") if name in server})
        (directory / "users").write_text(f'"{self.user}" "{server.get("password") or ""}"\n')
        self._configuration.write_text(
            CONFIGURATION.format(server=named, port=self.port, directory=directory, pool_size=POOL_SIZE, user=self.user)
        )

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """It answers, on the port that it had before."""
        process = self._process = _start(self._program, self._configuration)
        until(lambda: _answers(self.port, process), what="an answer of PgBouncer")

    def kill(self) -> None:
        """It is gone, with all its connections on either side."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def pooler_before(url: str) -> Iterator[Pooler]:
    """One before the server that ``url`` names, with its user; gone afterwards."""
    program = _find_pgbouncer()
    directory = Path(tempfile.mkdtemp(prefix="rl-pgbouncer-"))
    directory.chmod(0o777)
    made = Pooler(program, directory, dict(conninfo_to_dict(url)))
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _find_pgbouncer() -> str:
    found = shutil.which(
        "pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(REMEDY)
    if found is None:
        pytest.skip(REMEDY)
    return found


def _start(program: str, configuration: Path) -> "subprocess.Popen[bytes]":
    """It refuses to run as root."""
    options: dict[str, Any] = {"user": _unprivileged_user()} if os.geteuid() == 0 else {}
    return subprocess.Popen(
        [program, "-q", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )


def _unprivileged_user() -> str:
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip(f"PgBouncer does not run as root, and there is none of the users {UNPRIVILEGED}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"PgBouncer ended with {process.returncode}"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
