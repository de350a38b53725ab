"""Behind a pooler that lends server connections by transaction: PgBouncer, started by the test.

Nothing may be prepared or set on a connection that the next transaction does not get, and no notification arrives.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from runtime.hosts import Desk, Host, until

from runledger import JobRequest, JobStatus, Ledger, Scope, cancel_job, enqueue_job

pytestmark = [pytest.mark.process, pytest.mark.pgbouncer]
StartHost = Callable[..., Host]
REMEDY = "PgBouncer is missing; install it: apt-get install pgbouncer"
POOL_SIZE = 8
JOBS = 5_000
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


@dataclass(frozen=True, slots=True)
class Pooler:
    """Where it listens, and as whom."""

    port: int
    user: str

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"


def _find_pgbouncer() -> str:
    found = shutil.which(
        "pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(REMEDY)
    if found is None:
        pytest.skip(REMEDY)
    return found


@pytest.fixture
def pooler(own_database: str) -> Iterator[Pooler]:
    """A PgBouncer in transaction mode before the server of the test's database; gone afterwards."""
    program = _find_pgbouncer()
    directory = Path(tempfile.mkdtemp(prefix="rl-pgbouncer-"))
    directory.chmod(0o777)
    parts = {name: value for name, value in conninfo_to_dict(own_database).items() if name != "dbname"}
    made = Pooler(_free_port(), str(parts.get("user") or "postgres"))
    server = make_conninfo(**{name: parts[name] for name in ("host", "port", "user", "password") if name in parts})
    (directory / "users").write_text(f'"{made.user}" ""\n')
    (directory / "ini").write_text(
        CONFIGURATION.format(server=server, port=made.port, directory=directory, pool_size=POOL_SIZE, user=made.user)
    )
    process = _start(program, directory / "ini")
    try:
        until(lambda: _answers(made.port, process), what="an answer of PgBouncer")
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


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


def _prepared_statements(url: str) -> int:
    """On all connections that the pooler can lend at once: each is held by an open transaction."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(POOL_SIZE)]
        found = [
            one.execute("SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements)").fetchone()
            for one in held
        ]
    rows = [row for row in found if row is not None]
    assert len({pid for pid, _ in rows}) == POOL_SIZE, "not every server connection was looked at"
    return sum(count for _, count in rows)


def _settings_left(url: str) -> set[str]:
    """What earlier transactions left on the connections of the pool."""
    changed = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name')"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(POOL_SIZE)]
        return {name for one in held for (name,) in one.execute(changed).fetchall()}


def test_a_host_and_its_clients_work_behind_a_transaction_pooler(
    desk: Desk, start_host: StartHost, pooler: Pooler
) -> None:
    url = pooler.url(desk.scalar("SELECT current_database()"))
    baseline = _settings_left(url)
    with Ledger(url) as ledger:
        jobs = [ledger.enqueue("noop").job_id for _ in range(20)]
        desk.enqueue("noop", count=JOBS - 40)
        with ledger.begin() as connection:
            jobs += [enqueue_job(connection, JobRequest("work")).job_id for _ in range(20)]
        host = start_host(url=url, JOBS_MAX_GLOBAL_CONCURRENCY=2).ready(2)

        desk.wait_until_all_ended(within=90)
        host.wait_for_event("listener.unavailable")
        later = ledger.enqueue("work")
        assert ledger.wait_for_job(later.job_id, 10).status is JobStatus.SUCCEEDED

        assert set(desk.successes_per_job().values()) == {1}
        assert desk.scalar("SELECT count(*) FROM runledger.job_queue WHERE final_status = 'SUCCEEDED'") == JOBS + 1
        assert {ledger.get_job(job_id).status for job_id in jobs} == {JobStatus.SUCCEEDED}
    assert _prepared_statements(url) == 0
    assert _settings_left(url) == baseline, "a setting of ours stayed on a connection that others get"
    assert host.events("tick.failed") == []
    assert host.stop() == 0
    assert desk.leases() == 0


def test_a_running_job_is_cancelled_behind_a_transaction_pooler(
    desk: Desk, start_host: StartHost, pooler: Pooler
) -> None:
    gate = desk.gate()
    url = pooler.url(desk.scalar("SELECT current_database()"))
    cancelled = desk.one("cancellable", gate=str(gate))
    host = start_host(url=url).ready()
    desk.wait_for_effect(cancelled)

    with Ledger(url) as ledger, ledger.begin() as connection:
        cancel_job(connection, cancelled, scope=Scope.any())

    desk.wait_for_effect(cancelled, "cancelled", within=5)
    assert desk.job(cancelled).status is JobStatus.CANCELED
    assert host.stop() == 0
