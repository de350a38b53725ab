"""What a crash, a reboot or a careless hand leaves behind neither stops a start nor hurts a stranger."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runledger.embedded import DURABLE_SETTINGS, TEST_SETTINGS, EmbeddedServer, ServerState
from runledger.embedded.postmaster import (
    is_running,
    process_exists,
    read_postmaster,
    signal_postmaster,
    wait_until_gone,
)


@pytest.fixture
def stopped(home: Path) -> EmbeddedServer:
    """A server that ran and was stopped."""
    server = EmbeddedServer(home, TEST_SETTINGS)
    server.start()
    server.stop()
    return server


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that has nothing to do with us."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def write_pid_file(server: EmbeddedServer, pid: int) -> None:
    data = server.status().data_directory
    lines = [str(pid), str(data), "1700000000", "5432", "/tmp", "", "  1234  5678", "ready   "]
    (data / "postmaster.pid").write_text("\n".join(lines) + "\n")


def answers(server: EmbeddedServer) -> bool:
    with psycopg.connect(server.url()) as connection:
        return connection.execute("SELECT true").fetchone() == (True,)


def test_a_pid_file_that_names_a_stranger_does_not_stop_a_start_and_the_stranger_lives(
    stopped: EmbeddedServer, stranger: subprocess.Popen[bytes]
) -> None:
    write_pid_file(stopped, stranger.pid)

    assert stopped.status().state is ServerState.STOPPED
    assert not stopped.stop()
    assert not signal_postmaster(stranger.pid, stopped.status().data_directory, signal.SIGKILL)
    stopped.start()

    assert answers(stopped)
    assert stranger.poll() is None


def test_a_pid_file_that_names_the_server_of_another_home_leaves_that_server_alone(
    stopped: EmbeddedServer, directory: Path
) -> None:
    other = EmbeddedServer(directory / "other", TEST_SETTINGS)
    try:
        other.start()
        write_pid_file(stopped, other.status().pid or 0)
        stopped.start()
        stopped.stop()
        assert answers(other)
    finally:
        other.destroy()


@pytest.mark.parametrize("content", [b"", b"12", b"-1\n", b"\xff\xfe"])
def test_a_damaged_pid_file_does_not_stop_a_start(stopped: EmbeddedServer, content: bytes) -> None:
    (stopped.status().data_directory / "postmaster.pid").write_bytes(content)
    stopped.start()
    assert answers(stopped)


def test_a_pid_file_that_names_a_zombie_does_not_stop_a_start(stopped: EmbeddedServer) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
    wait_until_gone([zombie.pid], timeout_seconds=10)
    assert process_exists(zombie.pid)
    assert not is_running(zombie.pid)
    write_pid_file(stopped, zombie.pid)

    stopped.start()

    assert answers(stopped)
    zombie.communicate()


def test_a_killed_server_starts_again_with_its_data(home: Path) -> None:
    server = EmbeddedServer(home, DURABLE_SETTINGS)
    with psycopg.connect(server.start()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    killed = server.status().pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_until_gone([killed], timeout_seconds=10)

    server.start()

    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    assert server.status().pid != killed


def test_a_server_whose_pid_file_was_emptied_is_replaced(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    first = server.status().pid
    assert first is not None
    (server.status().data_directory / "postmaster.pid").write_bytes(b"")

    server.start()

    assert answers(server)
    assert not is_running(first)


def test_a_server_whose_pid_file_was_emptied_can_be_stopped(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    pid = server.status().pid
    assert pid is not None
    (server.status().data_directory / "postmaster.pid").write_bytes(b"")
    assert server.stop()
    assert not is_running(pid)


def test_the_pid_file_of_a_running_server_names_its_socket_directory(home: Path) -> None:
    server = EmbeddedServer(home, TEST_SETTINGS)
    server.start()
    found = read_postmaster(server.status().data_directory)
    assert found is not None
    assert found.is_ready
    assert Path(found.socket_directory).is_dir()
