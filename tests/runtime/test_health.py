"""What a host tells over HTTP, and what must never keep it from telling that it lives."""

import contextlib
import os
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtime.hosts import APPS, REPOSITORY, Desk, Host, until

from runledger.core.errors import InvalidConfiguration
from runledger.runtime.health import REQUEST_SECONDS, STILL_SECONDS, Health
from runledger.runtime.link import DatabaseLink
from runledger.runtime.slots import SlotState, SlotTable
from runledger.runtime.tally import TallyBoard
from runledger.testing.databases import connect_as_admin

StartHost = Callable[..., Host]
AT_ONCE_SECONDS = 1.0
FORGET_LAST_MIGRATION = """
    DELETE FROM runledger.runledger_migration_history
    WHERE version = (SELECT max(version) FROM runledger.runledger_migration_history)
"""


def ask(address: str, path: str, *, within: float = 30.0) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=within) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def ask_when_open(address: str, path: str) -> tuple[int, str]:
    def answer() -> tuple[int, str] | None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return ask(address, path)
        return None

    found: tuple[int, str] = until(answer, what=f"an answer at {address}")
    return found


@pytest.fixture
def address() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def dial(address: str) -> Iterator[Callable[[], socket.socket]]:
    """Connections that say nothing by themselves; closed afterwards."""
    host, _, port = address.partition(":")
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection((host, int(port)), timeout=10))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.mark.process
def test_a_host_that_works_is_alive_and_counts_and_is_ready_while_the_schema_fits(
    desk: Desk, start_host: StartHost, address: str
) -> None:
    jobs = desk.enqueue("work", count=5)
    host = start_host(health_address=address).ready()
    desk.wait_until_all_ended()

    assert ask_when_open(address, "/livez") == (200, "alive\n")
    assert ask(address, "/readyz") == (200, "ready\n")
    status, text = ask(address, "/metrics?from=prometheus")
    assert status == 200
    assert f'runledger_worker_jobs_total{{slot="0"}} {float(len(jobs))}' in text
    assert 'runledger_jobs{job_type="work",place="ready"} 0.0' in text
    assert ask(address, "/")[0] == 404

    desk.connection.execute(FORGET_LAST_MIGRATION)
    assert ask(address, "/readyz") == (503, "schema.behind\n")
    assert ask(address, "/livez") == (200, "alive\n"), "a new process would find the same schema"
    assert host.stop() == 0
    assert host.living() == []


@pytest.mark.process
def test_a_host_whose_database_is_away_is_alive_and_not_ready(
    desk: Desk, start_host: StartHost, address: str, server_url: str
) -> None:
    host = start_host(health_address=address).ready()
    assert ask_when_open(address, "/readyz") == (200, "ready\n")

    with refused(desk, server_url):
        assert ask(address, "/readyz") == (503, "db.unavailable\n")
        assert ask(address, "/livez") == (200, "alive\n")
        assert "runledger_worker_busy" in ask(address, "/metrics")[1], "what the slots say needs no database"

    until(lambda: ask(address, "/readyz") == (200, "ready\n"), what="readiness")
    assert host.stop() == 0


@pytest.mark.process
def test_a_database_that_hangs_never_makes_a_living_host_look_dead(
    desk: Desk, start_host: StartHost, address: str
) -> None:
    host = start_host(health_address=address, JOBS_DATABASE_TIMEOUT_SECONDS=2).ready()
    assert ask_when_open(address, "/readyz") == (200, "ready\n")
    backend = desk.scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'runledger:health'"
    )

    os.kill(backend, signal.SIGSTOP)
    try:
        with socket.create_connection(address.split(":"), timeout=10) as waiting:
            waiting.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            began_at = time.monotonic()
            answers = [ask(address, "/livez") for _ in range(3)]
            took = time.monotonic() - began_at
            assert waiting.makefile("rb").readline().split()[1] == b"503"
    finally:
        os.kill(backend, signal.SIGCONT)

    assert answers == [(200, "alive\n")] * 3
    assert took < AT_ONCE_SECONDS
    assert host.stop() == 0


@pytest.mark.process
def test_without_the_prometheus_client_the_metrics_say_what_to_install(
    desk: Desk, start_host: StartHost, address: str, tmp_path: Path
) -> None:
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "prometheus_client.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join(str(one) for one in (tmp_path / "missing", REPOSITORY, APPS))
    host = start_host(health_address=address, PYTHONPATH=path).ready()

    status, text = ask_when_open(address, "/metrics")

    assert status == 501
    assert "prometheus-client" in text
    assert ask(address, "/livez")[0] == 200
    assert host.stop() == 0


@pytest.mark.process
def test_a_slow_or_rude_client_keeps_nobody_waiting(
    desk: Desk, start_host: StartHost, address: str, dial: Callable[[], socket.socket]
) -> None:
    host = start_host(health_address=address).ready()
    ask_when_open(address, "/livez")

    dial()  # says nothing
    rude = dial()  # asks and hangs up without listening
    rude.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.close()
    dribbling = dial()
    began_at = time.monotonic()
    assert ask(address, "/livez") == (200, "alive\n")
    assert time.monotonic() - began_at < REQUEST_SECONDS

    assert _seconds_until_hung_up(dribbling) < REQUEST_SECONDS + AT_ONCE_SECONDS
    assert "Traceback" not in host.log
    assert host.stop() == 0


def _seconds_until_hung_up(connection: socket.socket) -> float:
    """A byte of a request line every fifth of a second, until the other side has had enough."""
    began_at = time.monotonic()
    connection.settimeout(0.2)
    for _ in range(100):
        try:
            connection.sendall(b"G")
            if connection.recv(1_024) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began_at


@contextlib.contextmanager
def refused(desk: Desk, server_url: str) -> Iterator[None]:
    """Nobody is connected to the desk's database, and nobody can connect."""
    name = desk.scalar("SELECT current_database()")
    with connect_as_admin(server_url) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.fixture
def make_health(database_url: str, address: str) -> Iterator[Callable[[SlotTable], Health]]:
    made: list[tuple[Health, DatabaseLink]] = []

    def make(table: SlotTable) -> Health:
        link = DatabaseLink(database_url, "runledger", "health")
        made.append((Health(address, table, TallyBoard(len(table.slots)), link), link))
        return made[-1][0]

    yield make
    for health, link in made:
        health.is_stopping = True
        health.tick()
        link.close()


def a_table(state: SlotState, *, still_seconds: float = 0.0) -> SlotTable:
    table = SlotTable(1)
    table.beat(time.monotonic_ns() - int(still_seconds * 1e9))
    table.slots[0].reset(1, time.monotonic_ns())
    table.slots[0].turn(state, time.monotonic_ns())
    return table


def test_a_host_whose_supervisor_stands_still_is_not_alive(make_health: Callable[[SlotTable], Health]) -> None:
    health = make_health(a_table(SlotState.IDLE, still_seconds=STILL_SECONDS + 5))

    for path in ("/livez", "/readyz"):
        status, text = health.answer(path)
        assert status == 503
        assert "20 seconds" in text


@pytest.mark.parametrize(
    ("state", "status"),
    [(SlotState.BOOTING, 503), (SlotState.LEAVING, 503), (SlotState.IDLE, 200), (SlotState.BUSY, 200)],
)
def test_a_host_is_ready_while_a_worker_is(
    make_health: Callable[[SlotTable], Health], state: SlotState, status: int
) -> None:
    assert make_health(a_table(state)).answer("/readyz")[0] == status


@pytest.mark.parametrize("nonsense", ["", "8080", "localhost:http", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:²"])
def test_an_address_that_makes_no_sense_is_refused(nonsense: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"127\.0\.0\.1:8080"):
        Health(nonsense, SlotTable(1), TallyBoard(1), DatabaseLink("postgresql://nowhere", "runledger", "health"))


def test_an_address_that_is_taken_is_refused(make_health: Callable[[SlotTable], Health], address: str) -> None:
    make_health(a_table(SlotState.IDLE))

    with pytest.raises(InvalidConfiguration, match="cannot listen on"):
        Health(address, SlotTable(1), TallyBoard(1), DatabaseLink("postgresql://nowhere", "runledger", "health"))


def test_a_host_whose_schema_has_moved_ahead_stays_ready_and_one_that_never_fitted_is_not(
    desk: Desk, own_database: str
) -> None:
    desk.connection.execute(
        "INSERT INTO runledger.runledger_migration_history (version, name, checksum, package_version)"
        " VALUES (299901010001, 'next', 'x', 'next')"
    )
    link = DatabaseLink(own_database, "runledger", "health")
    answers = []
    for has_fitted in (False, True):
        table = SlotTable(1)
        table.beat(time.monotonic_ns())
        table.slots[0].turn(SlotState.IDLE, time.monotonic_ns())
        if has_fitted:
            table.note_fit()
        health = Health("127.0.0.1:0", table, TallyBoard(1), link)
        answers.append(health.answer("/readyz"))
        health.is_stopping = True
        health.tick()
    link.close()

    assert answers == [(503, "schema.ahead\n"), (200, "ready\n")]
