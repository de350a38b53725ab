"""What a service manager hears: ready once, alive at half its interval, stopping. The test is the service manager."""

import itertools
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtime.hosts import Desk, Host

from runledger.runtime.systemd import ServiceManager
from runledger.testing import scoped_environment

StartHost = Callable[..., Host]
WATCHDOG_SECONDS = 3.0


class Manager:
    """A datagram socket, and what came in through it with the times at which it came."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def close(self) -> None:
        self._socket.close()

    def hear(self, wanted: str, *, within: float = 30.0) -> list[tuple[float, str]]:
        """Everything up to and including the first message that has the line ``wanted``."""
        heard: list[tuple[float, str]] = []
        deadline = time.monotonic() + within
        while not heard or wanted not in heard[-1][1].splitlines():
            ready, _, _ = select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted} was not heard within {within:g} seconds, only {heard}"
            heard.append((time.monotonic(), self._socket.recv(4_096).decode()))
        return heard


def an_address(kind: str, directory: Path) -> tuple[str, str]:
    """Where the service manager listens, as the kernel wants it, and how a service is told."""
    name = f"runledger-test-{secrets.token_hex(8)}"
    return (f"\0{name}", f"@{name}") if kind == "abstract" else (str(directory / name), str(directory / name))


@pytest.fixture
def listen() -> Iterator[Callable[[str], Manager]]:
    """Service managers; gone afterwards."""
    made: list[Manager] = []

    def at(address: str) -> Manager:
        made.append(Manager(address))
        return made[-1]

    yield at
    for manager in made:
        manager.close()


@pytest.mark.process
def test_a_service_manager_hears_ready_then_that_it_lives_then_stopping(
    desk: Desk, start_host: StartHost, listen: Callable[[str], Manager], tmp_path: Path
) -> None:
    here, address = an_address("abstract", tmp_path)
    manager = listen(here)
    host = start_host(NOTIFY_SOCKET=address, WATCHDOG_USEC=int(WATCHDOG_SECONDS * 1_000_000))

    heard = manager.hear("READY=1")
    assert f"MAINPID={host.pid}" in heard[-1][1].splitlines()
    beats = [heard[-1][0]]
    for _ in range(4):
        beats += [at for at, text in manager.hear("WATCHDOG=1", within=WATCHDOG_SECONDS) if "WATCHDOG=1" in text]
    assert host.stop() == 0
    assert any("STATUS=stopping" in text for _, text in manager.hear("STOPPING=1"))

    gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
    assert max(gaps) < WATCHDOG_SECONDS, "a late beat would have cost the host its life"
    assert sum(gaps) / len(gaps) > WATCHDOG_SECONDS / 4, "it beats as often as its loop turns"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_service_without_a_watchdog_says_nothing_of_being_alive(
    kind: str, listen: Callable[[str], Manager], tmp_path: Path
) -> None:
    here, address = an_address(kind, tmp_path)
    manager = listen(here)
    with scoped_environment(NOTIFY_SOCKET=address):
        service = ServiceManager()

    service.beat()
    service.tell(READY=1, STATUS="working")

    assert [text for _, text in manager.hear("READY=1")] == ["READY=1\nSTATUS=working"]
    assert service.pause_seconds(7.0) == 7.0


def test_a_pause_ends_when_the_watchdog_is_due(listen: Callable[[str], Manager], tmp_path: Path) -> None:
    here, address = an_address("path", tmp_path)
    manager = listen(here)
    with scoped_environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"):
        service = ServiceManager()

    assert service.pause_seconds(7.0) == 0.0, "the first beat is due at once"
    service.beat()

    assert 0.4 < service.pause_seconds(7.0) <= 0.5
    assert len(manager.hear("WATCHDOG=1")) == 1


def test_a_service_manager_that_went_away_or_never_was_is_no_reason_to_fail(tmp_path: Path) -> None:
    for address in (str(tmp_path / "nobody"), "@nobody-listens-here", ""):
        with scoped_environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"):
            service = ServiceManager()
        service.beat()
        service.tell(READY=1)
