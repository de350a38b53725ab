"""A durable server of a test's own that it may crash."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from runtime.hosts import until

from runledger.embedded import DURABLE_SETTINGS, EmbeddedServer


class CrashingServer:
    """Reached through a link to its socket directory, which changes with each start."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedServer(directory / "home", DURABLE_SETTINGS)
        self._link = directory / "socket"
        self.socket_path = str(self._link / ".s.PGSQL.5432")
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._link), safe='')}&port=5432"

    def start(self) -> None:
        self._server.start()
        pid = self._server.status().pid
        [socket_directory] = [
            line.strip()
            for number, line in enumerate((self._server.place.data / "postmaster.pid").read_text().splitlines())
            if number == 4
        ]
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(socket_directory)
        assert pid is not None

    def crash(self) -> None:
        """An immediate shutdown: no checkpoint, every session dropped; recovery follows at the next start."""
        pid = self._server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not Path(f"/proc/{pid}").exists(), what="the crash")

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


@contextlib.contextmanager
def crashing_server() -> Iterator[CrashingServer]:
    """A running one; nothing of it is left afterwards. Raises EmbeddedUnavailable where there is none to be had."""
    directory = Path(tempfile.mkdtemp(prefix="rl-crash-")).resolve()
    directory.chmod(0o755)
    made = CrashingServer(directory)
    try:
        made.start()
        yield made
        made.destroy()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
