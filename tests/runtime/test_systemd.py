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

pytestmark = pytest.mark.process
StartHost = Callable[..., Host]
WATCHDOG_SECONDS = 1.0


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


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    """A service manager and the address under which a service finds it."""
    name = f"runledger-test-{secrets.token_hex(8)}"
    is_abstract = request.param == "abstract"
    made = Manager(f"\0{name}" if is_abstract else str(tmp_path / "notify"))
    yield made, f"@{name}" if is_abstract else str(tmp_path / "notify")
    made.close()


def test_a_service_manager_hears_ready_then_that_it_lives_then_stopping(
    desk: Desk, start_host: StartHost, manager: tuple[Manager, str]
) -> None:
    listener, address = manager
    host = start_host(NOTIFY_SOCKET=address, WATCHDOG_USEC=int(WATCHDOG_SECONDS * 1_000_000))

    heard = listener.hear("READY=1")
    assert f"MAINPID={host.pid}" in heard[-1][1].splitlines()
    beats = [heard[-1][0]]
    for _ in range(4):
        beats += [at for at, text in listener.hear("WATCHDOG=1", within=WATCHDOG_SECONDS) if "WATCHDOG=1" in text]
    assert host.stop() == 0
    assert any("STATUS=stopping" in text for _, text in listener.hear("STOPPING=1"))

    gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
    assert max(gaps) < WATCHDOG_SECONDS, "a late beat would have cost the host its life"
    assert sum(gaps) / len(gaps) > WATCHDOG_SECONDS / 4, "it beats as often as its loop turns"


def test_a_host_without_a_watchdog_says_nothing_of_being_alive(
    desk: Desk, start_host: StartHost, manager: tuple[Manager, str]
) -> None:
    listener, address = manager
    host = start_host(NOTIFY_SOCKET=address)

    heard = listener.hear("READY=1")
    assert host.stop() == 0
    heard += listener.hear("STOPPING=1")

    assert not any("WATCHDOG" in text for _, text in heard)


def test_a_service_manager_that_went_away_is_no_reason_to_fail(
    desk: Desk, start_host: StartHost, tmp_path: Path
) -> None:
    host = start_host(NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC=100_000).ready()

    assert host.stop() == 0
