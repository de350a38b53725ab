"""Whether jobs would run, by the exit code: 0, 3 or 69."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
import pytest
from acceptance.command_line import run_command
from acceptance.test_cli_workers import announce


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """The address of a host, and what it answers next."""
    planned: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = planned.pop(0) if self.path == "/readyz" else (404, b"")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", planned
        server.shutdown()
        thread.join(10)


def test_a_ledger_is_healthy_while_a_worker_is_live(own_url: str) -> None:
    alone = run_command("health", url=own_url)
    assert (alone.exit_code, alone.stdout) == (3, "no worker is live\n")
    announce(own_url)
    assert run_command("health", url=own_url).exit_code == 0
    with psycopg.connect(own_url) as connection:
        connection.execute("UPDATE runledger.job_workers SET expires_at = clock_timestamp()")
    lost = run_command("health", "--json", url=own_url)
    assert (lost.exit_code, json.loads(lost.stdout)["is_healthy"]) == (3, False)


def test_a_database_without_the_schema_is_not_healthy_and_one_that_is_away_does_not_answer(empty_url: str) -> None:
    assert run_command("health", url=empty_url).exit_code == 3
    assert run_command("health", url="postgresql://nobody@/none?host=/nonexistent").exit_code == 69


def test_a_host_says_whether_it_is_ready(answers: tuple[str, list[tuple[int, bytes]]]) -> None:
    address, planned = answers
    planned += [(200, b"ready\n"), (503, b"no worker is ready\n")]

    ready, busy = (run_command("health", "--health-addr", address) for _ in range(2))

    assert (ready.exit_code, ready.stdout) == (0, "ready\n")
    assert (busy.exit_code, busy.stdout) == (3, "no worker is ready\n")


def test_a_host_that_is_away_does_not_answer_and_an_address_that_is_none_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert run_command("health", "--health-addr", f"127.0.0.1:{taken.getsockname()[1]}").exit_code == 69
    assert run_command("health", "--health-addr", "8080").exit_code == 2
