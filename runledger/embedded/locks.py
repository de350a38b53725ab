"""Locks between processes by ``flock``: the kernel drops them with the process, so no list of pids can go stale."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from runledger.embedded.errors import EmbeddedInUse, EmbeddedUnavailable

POLL_SECONDS = 0.02


def open_lock(path: Path) -> int:
    """A new file descriptor on the lock file, not inherited by programs we start."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedUnavailable(f"{path} cannot be opened: {error.strerror}") from error


def lock_shared(descriptor: int) -> None:
    """The shared lock is held until the descriptor is closed. Waits while somebody holds it exclusively."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_exclusive(descriptor: int) -> bool:
    """Whether nobody else holds the lock; it is ours alone then, and lost otherwise."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusively(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """The block runs while no other process is inside one on this path.

    Raises EmbeddedInUse when the lock is not free in time.
    """
    descriptor = open_lock(path)
    try:
        deadline = time.monotonic() + timeout_seconds
        while not try_exclusive(descriptor):
            if time.monotonic() > deadline:
                raise EmbeddedInUse(f"another process has been changing this server for {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
