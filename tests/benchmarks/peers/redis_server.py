"""A Redis of our own for the peers that need one: append-only file, flushed every second, gone afterwards."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator


@contextlib.contextmanager
def running_redis() -> Iterator[tuple[str, int] | None]:
    """URL and process id; None where Redis is not installed."""
    if shutil.which("redis-server") is None:
        yield None
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as home:
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "warning"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_until_open(port)
            yield f"redis://127.0.0.1:{port}/0", process.pid
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("Redis did not start")
