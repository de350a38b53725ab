"""A PgBouncer of a test's own, which lends server connections by transaction and may be killed and started again."""

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
server_login_retry = 1
admin_users = {user}
logfile = {directory}/log
pidfile = {directory}/pid
"""


class Pooler:
    """``port`` stays the same from one start to the next."""

    def __init__(self, program: str, directory: Path, server_url: str, pool_size: int) -> None:
        parts = {name: value for name, value in conninfo_to_dict(server_url).items() if name != "dbname"}
        server = make_conninfo(**{name: parts[name] for name in ("host", "port", "user", "password") if name in parts})
        self.port = _free_port()
        self.user = str(parts.get("user") or "postgres")
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "users").write_text(f'"{self.user}" "{parts.get("password") or ""}"\n')
        (directory / "ini").write_text(
            CONFIGURATION.format(
                server=server, port=self.port, directory=directory, pool_size=pool_size, user=self.user
            )
        )

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """It listens, whether or not there is a server behind it. It refuses to run as root."""
        (self._directory / "pid").unlink(missing_ok=True)
        options: dict[str, Any] = {"user": _unprivileged_user()} if os.geteuid() == 0 else {}
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._directory / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        until(self._listens, what="an answer of PgBouncer")

    def kill(self) -> None:
        """Every connection on both of its sides is gone at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"PgBouncer ended with {self._process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def find_pgbouncer() -> str | None:
    """Its path; None where it is not installed or nobody may run it."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    is_root_alone = os.geteuid() == 0 and _unprivileged_user() is None
    return None if is_root_alone else shutil.which("pgbouncer", path=places)


@contextlib.contextmanager
def running_pooler(program: str, server_url: str, *, pool_size: int) -> Iterator[Pooler]:
    """A running one in front of the server of this URL, for all of its databases; nothing is left of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="rl-pgbouncer-"))
    directory.chmod(0o777)
    made = Pooler(program, directory, server_url, pool_size)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def pooler_before(url: str) -> Iterator[Pooler]:
    """The same for a test: without PgBouncer it is skipped, and fails where CI=true."""
    program = find_pgbouncer()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(REMEDY)
    if program is None:
        pytest.skip(REMEDY)
    with running_pooler(program, url, pool_size=POOL_SIZE) as made:
        yield made


def _unprivileged_user() -> str | None:
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
