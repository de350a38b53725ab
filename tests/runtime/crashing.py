"""A durable server of a test's own that it may crash."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
from runtime.hosts import until

from runledger.embedded import DURABLE_SETTINGS, EmbeddedServer
from runledger.embedded.errors import EmbeddedUnavailable
from runledger.embedded.postmaster import is_running

Made = TypeVar("Made")


class CrashingServer:
    """Reached through a link to its socket directory, which changes with each start."""

    def __init__(self, directory: Path, settings: Mapping[str, str] = DURABLE_SETTINGS) -> None:
        self._link = directory / "socket"
        self._server = EmbeddedServer(directory / "home", settings)
        self.socket_path = str(self._link / ".s.PGSQL.5432")
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._link), safe='')}&port=5432"

    def start(self) -> None:
        self._server.start()
        self._lead_to(self._server)

    @property
    def socket_directory(self) -> str:
        return str(self._link)

    @property
    def programs(self) -> Path:
        """Where the programs are that it runs from."""
        return Path(os.readlink(f"/proc/{self._server.status().pid}/exe")).parent

    def crash(self) -> None:
        """An immediate shutdown: no checkpoint, every session dropped; recovery follows at the next start."""
        pid = self._server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not is_running(pid), what="the crash")

    def ask_for_password(self, user: str) -> None:
        """This user needs one on the socket, once the server has read its files again."""
        rules = self._server.place.data / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Every process of the server is stopped (SIGSTOP) inside of the block: connections are accepted by the kernel,
        and nothing is ever answered."""
        pids = self._processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The postmaster, which is to start nobody meanwhile, first."""
        pid = self._server.status().pid
        assert pid is not None
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(int(child) for child in children)]

    def destroy(self) -> None:
        self._server.destroy()

    def _lead_to(self, server: EmbeddedServer) -> None:
        """Whoever connects from now on meets this server; at no moment is there no link."""
        pid_file = server.place.data / "postmaster.pid"
        socket_directory = pid_file.read_text().splitlines()[4].strip()
        draft = self._link.with_name("socket.new")
        draft.symlink_to(socket_directory)
        draft.replace(self._link)


@contextlib.contextmanager
def crashing_server() -> Iterator[CrashingServer]:
    """A running one; nothing of it is left afterwards. Raises EmbeddedUnavailable where there is none to be had."""
    with directory_of_servers() as directory:
        made = CrashingServer(directory)
        made.start()
        yield made
        made.destroy()


@contextlib.contextmanager
def or_skipped(server: contextlib.AbstractContextManager[Made]) -> Iterator[Made]:
    """The server; where there is none to be had, the test is skipped, and fails where CI=true."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(server)
        except EmbeddedUnavailable as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield made


@contextlib.contextmanager
def directory_of_servers() -> Iterator[Path]:
    """A directory that the user of the servers may enter, with a path that is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="rl-crash-")).resolve()
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
